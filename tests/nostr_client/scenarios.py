"""The client of this folder against a running tellerd: what docs/NOSTR_RPC.md says about hold invoices.

Started by run.sh, which sets up the world and says in the environment where it is.
"""

import asyncio
import base64
import hashlib
import json
import os
import re
import secrets
import signal
import sys
import time
import urllib.request
from pathlib import Path

import websockets
from client import Client, Pairing, RpcError, encrypt, make_event, public_key, sign, verify_event, wire

TELLERD = os.environ["TELLERD"]
WORK = Path(os.environ["WORK"])
LND = os.environ["LND_ADDRESS"]
HTTP = os.environ["HTTP_ADDRESS"]
RELAY = os.environ["RELAY"]
CARELESS = os.environ["CARELESS"]
CONFIG = str(WORK / "fleet.toml")
MOST_SECONDS = 420

passed: list[tuple[str, int]] = []


class Failed(Exception):
    pass


def check(what: str, condition, got=None):
    if not condition:
        raise Failed(f"{passed[-1][0]}: {what}" + ("" if got is None else f"\n  got: {got}"))
    name, count = passed[-1]
    passed[-1] = (name, count + 1)


def scenario(name: str):
    passed.append((name, 0))
    print(f"  {name}", flush=True)


async def until(what: str, probe, deadline: float = 30):
    """Looks until the probe is true, and gives what it gave."""
    end = time.monotonic() + deadline
    while not (got := await probe()):
        if time.monotonic() > end:
            drops = {name: value for name, value in (await metrics()).items() if "_dropped_total" in name and value}
            raise Failed(f"{passed[-1][0]}: not within {deadline} s: {what}\n  dropped so far: {drops}")
        await asyncio.sleep(0.1)
    return got


async def fails(what: str, call, code: str, *words: str) -> RpcError:
    try:
        reply = await call
    except RpcError as error:
        check(f"{what}: code {code}", error.code == code, error.reply)
        for word in words:
            check(f"{what}: the reason names {word}", word in error.reason, error.reply)
        return error
    raise Failed(f"{passed[-1][0]}: {what}: should be {code}, was {reply}")


# -- the world around


async def command(*words: str) -> str:
    process = await asyncio.create_subprocess_exec(TELLERD, *words, cwd=WORK, stdout=asyncio.subprocess.PIPE,
                                                   stderr=asyncio.subprocess.PIPE)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    if process.returncode != 0:
        raise Failed(f"tellerd {' '.join(words)}: {err.decode()}{out.decode()}")
    return out.decode()


async def control(*words: str) -> str:
    return await command("emulate", "control", "--dir", "lnd", "--lnd", LND, *words)


async def ledger() -> dict:
    """The simulated LND's own record: the states of each invoice, and what became of each payment."""
    text = await control("ledger")
    return {
        "text": text,
        "invoices": {h: re.findall(r"[A-Z]{4,}", rest) for h, rest in re.findall(r"invoice (\w{64}) (.*)", text)},
        "payments": dict(re.findall(r"payment \d+ of (\w{64}): (.*)", text)),
    }


async def metrics() -> dict[str, float]:
    def get():
        try:
            with urllib.request.urlopen(f"http://{HTTP}/metrics", timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    lines = (await asyncio.to_thread(get)).splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[:1] != "#")}


async def dropped(reason: str) -> float:
    return (await metrics()).get(f'tellerd_nostr_events_dropped_total{{reason="{reason}"}}', 0)


async def up():
    async def probe():
        now = await metrics()
        relays = [now.get(f'tellerd_nostr_relay_connected{{relay="{relay}"}}') for relay in (RELAY, CARELESS)]
        return relays == [1, 1] and now.get("tellerd_lnd_connected") == 1

    await until("tellerd is up, with LND and both relays", probe, 60)


async def kill():
    """SIGKILL; run.sh starts it again, as a service manager does."""
    pid = int((WORK / "tellerd.pid").read_text())
    os.kill(pid, signal.SIGKILL)

    async def another():
        text = (WORK / "tellerd.pid").read_text().strip()
        return text and int(text) != pid

    await until("tellerd is started again", another)
    await up()


class Payer:
    """A customer who pays an invoice, and how that ended."""

    def __init__(self, process):
        self.process = process

    @staticmethod
    async def pay(invoice: str) -> "Payer":
        return Payer(await asyncio.create_subprocess_exec(
            TELLERD, "emulate", "pay", invoice, "--dir", "lnd", "--lnd", LND, cwd=WORK,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT))

    async def end(self) -> str:
        out, _ = await asyncio.wait_for(self.process.communicate(), 60)
        return out.decode()


def new_hash() -> tuple[str, str]:
    preimage = secrets.token_bytes(32)
    return preimage.hex(), hashlib.sha256(preimage).hexdigest()


async def pair(name: str) -> Pairing:
    pairing = Pairing.parse(re.search(r"nprofile1\w+:[0-9a-f]{64}", await command("client", "add", name, "--by", "test", "--config", CONFIG))[0])
    check("the pairing string names both relays", sorted(pairing.relays) == sorted([RELAY, CARELESS]), pairing.relays)
    return pairing


async def state(client: Client, hash: str) -> str:
    return (await client.call("getHoldInvoice", {"hash": hash}))["state"]


async def comes_to(client: Client, hash: str, wanted: str):
    async def probe():
        return await state(client, hash) == wanted

    await until(f"{hash[:8]} is {wanted}", probe)


async def made(client: Client, amount: int = 60_000) -> tuple[str, str, dict]:
    preimage, hash = new_hash()
    return preimage, hash, await client.call("createHoldInvoice", {"hash": hash, "amount_sats": amount, "memo": "test"})


async def held(client: Client, amount: int = 60_000) -> tuple[str, str, Payer]:
    preimage, hash, reply = await made(client, amount)
    payer = await Payer.pay(reply["invoice"])
    await comes_to(client, hash, "ACCEPTED")
    return preimage, hash, payer


async def answered(client: Client, event: dict, request_id: str) -> dict:
    """Publishes one event, once, and waits for its answer."""
    await client.publish(event)
    received = await client.reply(request_id, 30)
    check("one event is answered", received is not None)
    return client.result(received)


# -- the scenarios


async def pairing(version: int) -> tuple[Client, Client, Client]:
    """Two clients on the relay under test, and the first one's key on the careless relay."""
    scenario("pairing, enrollClient")
    paired = await pair(f"alice-v{version}")
    secret, other = secrets.token_bytes(32), secrets.token_bytes(32)
    alice = await Client(secret, paired, version, [RELAY]).__aenter__()
    loose = await Client(secret, paired, version, [CARELESS]).__aenter__()
    bob = await Client(other, await pair(f"bob-v{version}"), version, [RELAY]).__aenter__()
    await fails("a stranger", alice.call("getServiceInfo"), "not_allowed")
    await fails("a wrong token", alice.call("enrollClient", {"token": "00" * 32}), "not_allowed")
    await fails("no token", alice.call("enrollClient"), "bad_request", "token")
    for _ in range(2):
        reply = await alice.call("enrollClient", {"token": paired.token})
        check("enrolled, also when asked again", reply["client"] == f"alice-v{version}", reply)
    await fails("a token that was used", bob.call("enrollClient", {"token": paired.token}), "not_allowed")
    await bob.call("enrollClient", {"token": bob.pairing.token})
    return alice, bob, loose


async def info(client: Client):
    scenario("getServiceInfo")
    received = await client.ask("getServiceInfo", None)
    reply = client.result(received)
    check("the reply has the request's version of NIP-44", received.version == client.version, received.version)
    fields = ("name version node_pubkey network block_height node_up can_create hold_expiry_delta min_blocks_left "
              "cltv_expiry hold_deadline_seconds commit_deadline_seconds now_unix client limits").split()
    for name in fields:
        check(f"the reply has {name}", name in reply, reply)
    limits = {"max_amount_sats", "max_held_sats", "max_open", "requests_per_minute", "sats_per_day"}
    check("all limits", limits <= reply["limits"].keys(), reply)
    check("it can create", reply["can_create"] and reply["node_up"], reply)
    check("its clock", abs(reply["now_unix"] - time.time()) < 10, reply)
    check("PascalCase, no body", (await client.call("GetServiceInfo"))["name"] == reply["name"])
    check("an empty body", (await client.call("getServiceInfo", {}))["name"] == reply["name"])
    if client.version == 1:
        request_id, message = client.request("getServiceInfo")
        payload = encrypt(1, client.secret, client.pairing.service, json.dumps(message))
        raw = base64.b64decode(payload)
        content = json.dumps({"v": 1, "nonce": base64.b64encode(raw[1:25]).decode(),
                              "ciphertext": base64.b64encode(raw[25:]).decode()})
        await answered(client, make_event(client.secret, client.pairing.service, content), request_id)


async def create(client: Client, bob: Client):
    scenario("createHoldInvoice")
    preimage, hash = new_hash()
    body = {"hash": hash, "amount_sats": 60_000, "memo": "ATM Cash-Out $60 \u2615"}
    first = await client.call("createHoldInvoice", body)
    check("a regtest invoice", first["invoice"].startswith("lnbcrt600u1"), first)
    check("its hash", first["payment_hash"] == hash, first)
    check("it expires in 10 minutes", 590 <= first["expires_at_unix"] - time.time() <= 601, first)
    check("the hold's deadline", first["hold_deadline_seconds"] > 0, first)
    check("same create, same invoice", (await client.call("createHoldInvoice", body))["invoice"] == first["invoice"])
    check("PascalCase and params", (await client.call("CreateHoldInvoice", body, spelling="params"))["invoice"] == first["invoice"])
    request_id, message = client.request("createHoldInvoice", body)
    message["params"], message["query"] = {"amount_sats": 1}, {"x": 1}
    reply = await answered(client, client.events(message)[0], request_id)
    check("body goes before params", reply["invoice"] == first["invoice"])
    request_id, message = client.request("createHoldInvoice", {})
    message["params"] = body
    reply = await answered(client, client.events(message)[0], request_id)
    check("an empty body gives way to params", reply["invoice"] == first["invoice"])
    await fails("another amount", client.call("createHoldInvoice", body | {"amount_sats": 60_001}), "already_exists")
    await fails("another caller", bob.call("createHoldInvoice", body), "already_exists")
    for method, args in (("getHoldInvoice", {"hash": hash}), ("commitHoldInvoice", {"hash": hash}),
                         ("cancelHoldInvoice", {"hash": hash}), ("settleHoldInvoice", {"preimage": preimage})):
        await fails(f"{method} by another", bob.call(method, args), "not_found")
    await fails("an unknown hash", client.call("getHoldInvoice", {"hash": "ab" * 32}), "not_found")
    await fails("commit before it is paid", client.call("commitHoldInvoice", {"hash": hash}), "still_open")
    await fails("settle before it is paid", client.call("settleHoldInvoice", {"preimage": preimage}), "still_open")
    got = await client.call("getHoldInvoice", {"hash": hash})
    check("OPEN, with its amount", (got["state"], got["amount_sats"], got["amount_paid_sats"]) == ("OPEN", 60_000, 0), got)
    check("what is not known is left out", not {"accepted_at_unix", "settled_at_unix", "funds", "blocks_left"} & got.keys(), got)
    check("null is as missing", (await client.call("createHoldInvoice", body | {"expiry": None}))["invoice"] == first["invoice"])
    check("one invoice in the node", (await ledger())["invoices"][hash] == ["OPEN"])
    check("canceled", (await client.call("cancelHoldInvoice", {"hash": hash}))["state"] == "CANCELED")
    _, hash = new_hash()
    await client.call("createHoldInvoice", {"hash": hash, "amount_sats": 1, "memo": "", "expiry": 1, "cltv_expiry": 60})
    await comes_to(client, hash, "CANCELED")
    await fails("too much for this client", client.call("createHoldInvoice", {"hash": new_hash()[1], "amount_sats": 2_000_001, "memo": ""}), "over_limit")


async def settle(client: Client):
    scenario("subscribe, pay, commit, settle")
    reply = await client.call("subscribeHoldInvoices")
    check("subscribed for a quarter of an hour", 850 <= reply["subscribed_until_unix"] - time.time() <= 910, reply)
    preimage, hash, reply = await made(client)
    payer = await Payer.pay(reply["invoice"])

    async def push(wanted):
        while True:
            received = await asyncio.wait_for(client.pushes.get(), 30)
            if received.message.get("payment_hash") == hash and received.message["state"] == wanted:
                return received

    received = await push("ACCEPTED")
    check("ACCEPTED by push, in the version that was asked in", received.version == client.version, received.version)
    got = await client.call("getHoldInvoice", {"hash": hash})
    check("ACCEPTED by polling", got["state"] == "ACCEPTED", got)
    check("paid", got["amount_paid_sats"] == 60_000 and abs(got["accepted_at_unix"] - time.time()) < 30, got)
    check("the hold", got["blocks_left"] == 62 and got["hold_deadline_unix"] > time.time(), got)
    same = {name: value for name, value in received.message.items() if name != "requestId"}
    check("the push is as getHoldInvoice", same == {n: v for n, v in got.items() if n != "requestId"}, received.message)
    commit = await client.call("commitHoldInvoice", {"hash": hash})
    fields = {"payment_hash", "state", "commit_deadline_unix", "blocks_left", "amount_paid_sats", "htlc_expiry_height", "block_height"}
    check("committed", fields <= commit.keys() and commit["state"] == "ACCEPTED", commit)
    check("time to settle", commit["commit_deadline_unix"] > time.time() + 60, commit)
    check("commit again", (await client.call("commitHoldInvoice", {"hash": hash}))["commit_deadline_unix"] == commit["commit_deadline_unix"])
    reply = await client.call("settleHoldInvoice", {"preimage": preimage})
    check("settle is taken", reply["payment_hash"] == hash and reply["state"] in ("ACCEPTED", "SETTLED"), reply)
    await comes_to(client, hash, "SETTLED")
    await push("SETTLED")
    end = await payer.end()
    check("the payer paid", "succeeded: paid 60000 sat" in end, end)
    check("the node's record", (await ledger())["invoices"][hash] == ["OPEN", "ACCEPTED", "SETTLED"])
    await until("the payment's preimage is ours", lambda: proof_of(hash, preimage))
    check("settle again", (await client.call("settleHoldInvoice", {"preimage": preimage}))["state"] == "SETTLED")
    body = {"hash": hash, "amount_sats": 60_000, "memo": "test"}
    check("create after settle: the same invoice", (await client.call("createHoldInvoice", body))["invoice"] == got["invoice"])
    await fails("cancel after settle", client.call("cancelHoldInvoice", {"hash": hash}), "already_settled")
    got = await client.call("getHoldInvoice", {"hash": hash})
    # The page lets it be left out.
    check("settled_at_unix", abs(got.get("settled_at_unix", time.time()) - time.time()) < 60, got)

    async def is_there() -> bool:
        # This node stores what becomes of HTLCs, and its peer is there.
        told = (await client.call("getHoldInvoice", {"hash": hash})).get("funds")
        assert told in ("pending", "final"), told
        return told == "final"

    await until("the settled money is there", is_there)


async def proof_of(hash: str, preimage: str) -> bool:
    """The payer's payment in the node's ledger holds the preimage."""
    for line in (WORK / "lnd" / "ledger.jsonl").read_text().splitlines():
        records = json.loads(line)
        for record in records if isinstance(records, list) else []:
            payment = record.get("payment", {})
            if payment.get("order", {}).get("hash") == hash and payment["preimage"] == preimage:
                return True
    return False


async def cancel(client: Client):
    scenario("pay, cancel")
    preimage, hash, payer = await held(client, 4_321)
    check("CANCELED at once", (await client.call("cancelHoldInvoice", {"hash": hash}))["state"] == "CANCELED")
    end = await payer.end()
    check("the money is back", "4321 sat back" in end, end)
    check("the node's record", (await ledger())["invoices"][hash] == ["OPEN", "ACCEPTED", "CANCELED"])
    check("cancel again", (await client.call("cancelHoldInvoice", {"hash": hash}))["state"] == "CANCELED")
    await fails("settle after cancel", client.call("settleHoldInvoice", {"preimage": preimage}), "already_canceled")
    body = {"hash": hash, "amount_sats": 4_321, "memo": "test"}
    await fails("create after cancel", client.call("createHoldInvoice", body), "already_canceled")
    await fails("commit after cancel", client.call("commitHoldInvoice", {"hash": hash}), "already_canceled")


async def bad_fields(client: Client):
    scenario("unknown methods, bad fields")
    await fails("unknown method", client.call("payMeANewCar", {}), "unknown_method")
    await fails("an operator's method", client.call("drainAtm", {"atm": "lobby"}), "not_allowed")
    before = (await ledger())["text"]
    good = {"hash": new_hash()[1], "amount_sats": 60_000, "memo": "m"}
    for name, values in {
        "amount_sats": (-1, 0, 1.5, 1.0, 2_100_000_000_000_001, 1 << 63, 1 << 64, 1e30, "60000", True, [], {}, None),
        "hash": ("zz" * 32, "ab" * 31, "ab" * 33, "", "0x" + "ab" * 31, 7, None),
        "memo": ("m" * 640, "\u2615" * 214, 7, None),
        "expiry": (0, -1, 31_536_001, 1.5, "600"),
        "cltv_expiry": (0, 23, 30, 2_017, 65_536, -80, 80.0),
        "surprise": (1, "x"),
    }.items():
        for value in values:
            error = await fails(f"{name} = {str(value)[:40]!r}", client.call("createHoldInvoice", good | {name: value}), "bad_request", name)
            if isinstance(value, str) and len(value) > 5:
                check("the value is not repeated", value not in error.reason, error.reply)
    for method, name, values in (
        ("settleHoldInvoice", "preimage", ("ab" * 31, "xy" * 32, 5, None)),
        ("getHoldInvoice", "hash", ("ab" * 31, None)),
        ("commitHoldInvoice", "hash", ("q" * 64, None)),
        ("cancelHoldInvoice", "hash", ("ab" * 64, None)),
    ):
        for value in values:
            await fails(f"{method} {name}", client.call(method, {name: value}), "bad_request", name)
    await fails("a body that is no object", client.call("getHoldInvoice", [1]), "bad_request", "body")
    check("the node heard of none of it", (await ledger())["text"] == before)


async def batch(client: Client):
    scenario("BatchUser")
    _, hash, reply = await made(client, 777)
    got = await client.call("BatchUser", {"requests": [
        {"rpcName": "getHoldInvoice", "req": {"hash": hash}},
        {"rpcName": "getHoldInvoice", "req": {"hash": "cd" * 32}},
        {"rpcName": "noSuchThing", "req": {}},
        {"rpcName": "BatchUser", "req": {"requests": []}},
        {"rpcName": "CancelHoldInvoice", "req": {"hash": hash}},
    ]})
    answers = got["responses"]
    check("each in its place", [a["status"] for a in answers] == ["OK", "ERROR", "ERROR", "ERROR", "OK"], got)
    check("the first", answers[0]["invoice"] == reply["invoice"], got)
    check("the errors", [a["code"] for a in answers[1:3]] == ["not_found", "unknown_method"], got)
    check("the last", answers[4]["state"] == "CANCELED", got)
    eleven = [{"rpcName": "getServiceInfo", "req": {}}] * 11
    await fails("eleven", client.call("BatchUser", {"requests": eleven}), "bad_request", "requests")


async def long_messages(client: Client):
    scenario("messages in pieces")
    request_id, message = client.request("getServiceInfo")
    text = json.dumps(message)
    shards_id = secrets.token_hex(16)
    third = len(text) // 3
    parts = [text[:third], text[third : 2 * third], text[2 * third :]]
    pieces = [client.event(json.dumps({"part": part, "index": i, "totalShards": 3, "shardsId": shards_id}))
              for i, part in enumerate(parts)]
    for piece in (pieces[2], pieces[0]):
        await client.publish(piece)
    reply = await answered(client, pieces[1], request_id)
    check("a request in three pieces, not in order", reply["client"].startswith("alice"), reply)
    async with Client(secrets.token_bytes(32), client.pairing, client.version, [RELAY]) as stranger:
        before = await dropped("shard_refused")
        piece = json.dumps({"part": parts[0], "index": 0, "totalShards": 3, "shardsId": secrets.token_hex(16)})
        await stranger.publish(stranger.event(piece))

        async def counted():
            return await dropped("shard_refused") > before

        await until("a stranger's piece is counted as shard_refused", counted)


async def no_second(clients: list[Client], publisher: Client, events: dict[str, dict], before: str, counting: bool):
    """Publishes events that were answered before; nothing may come of it."""
    counts = {r: [len(c.replies.get(r, [])) for c in clients] for r in events}
    for request_id, event in events.items():
        seen = await dropped("replay")
        futures = await publisher.publish(event)

        async def counted():
            if await dropped("replay") > seen:
                return "dropped by tellerd"
            for future in futures:
                if future.done() and (not future.result()[0] or future.result()[1].startswith("duplicate")):
                    return f"held back by the relay: {future.result()[1]}"
            return None if counting else "nothing to wait for"

        await until("the event that was played again is dropped", counted)
    for client in clients:
        # What comes to this fence was published after whatever the events above led to.
        await client.call("getServiceInfo")
    for request_id, count in counts.items():
        now = [len(c.replies.get(request_id, [])) for c in clients]
        check("no second reply", now == count, f"{count} before, {now} now")
    check("no second effect in the node", (await ledger())["text"] == before)


async def replays(client: Client, loose: Client):
    scenario("the same event again, also after SIGKILL")
    preimage, hash, payer = await held(client)
    other_preimage, other, other_payer = await held(client, 5_000)
    events = {}
    request_id, message = client.request("settleHoldInvoice", {"preimage": preimage})
    events[request_id] = client.events(message)[0]
    await answered(client, events[request_id], request_id)
    request_id, message = client.request("cancelHoldInvoice", {"hash": other})
    events[request_id] = client.events(message)[0]
    await answered(client, events[request_id], request_id)
    fresh = new_hash()[1]
    request_id, message = client.request("createHoldInvoice", {"hash": fresh, "amount_sats": 900, "memo": "again", "expiry": 3600})
    events[request_id] = client.events(message)[0]
    await answered(client, events[request_id], request_id)
    await payer.end()
    await other_payer.end()
    await comes_to(client, hash, "SETTLED")
    await comes_to(client, other, "CANCELED")
    await client.call("cancelHoldInvoice", {"hash": fresh})

    async def gone():
        return (await ledger())["invoices"][fresh] == ["OPEN", "CANCELED"]

    await until("the third is canceled in the node", gone)
    before = (await ledger())["text"]
    # Within one run the relay library already knows the event.
    await no_second([client, loose], loose, events, before, False)
    await no_second([client, loose], client, events, before, False)
    await kill()
    await no_second([client, loose], loose, events, before, True)
    await no_second([client, loose], client, events, before, False)


async def killed(client: Client):
    scenario("SIGKILL in the middle")
    preimage, hash, payer = await held(client, 12_345)
    await client.call("commitHoldInvoice", {"hash": hash})
    request_id, message = client.request("settleHoldInvoice", {"preimage": preimage})
    await client.publish(client.events(message)[0])
    await kill()
    # Whether that was taken, answered or lost: ask again with the same requestId.
    client.replies.pop(request_id, None)
    await client.call("settleHoldInvoice", {"preimage": preimage}, request_id=request_id)
    await comes_to(client, hash, "SETTLED")
    end = await payer.end()
    check("paid once", "succeeded: paid 12345 sat" in end, end)
    preimage, hash, payer = await held(client, 2_222)
    commit = await client.call("commitHoldInvoice", {"hash": hash})
    await kill()
    got = await client.call("getHoldInvoice", {"hash": hash})
    check("a commit outlives SIGKILL", got["hold_deadline_unix"] == commit["commit_deadline_unix"], got)
    await client.call("cancelHoldInvoice", {"hash": hash})
    check("the money is back", "2222 sat back" in await payer.end())


async def no_answer(client: Client, loose: Client):
    scenario("events that get no answer")
    service, secret = client.pairing.service, client.secret
    now = int(time.time())

    def fresh(created_at=None, **changes):
        request_id, message = client.request("getServiceInfo")
        message |= changes
        content = encrypt(client.version, secret, service, json.dumps(message))
        return request_id, make_event(secret, service, content, created_at)

    async def silent(what: str, reason: str, request_id: str, event: dict, via: Client = loose):
        before = await dropped(reason)
        await via.publish(event)

        async def counted():
            return await dropped(reason) > before

        await client.call("getServiceInfo")
        # On the same way, after it: what the relay library refuses is counted with the next message.
        await loose.call("getServiceInfo")
        await until(f"{what} is counted as {reason}", counted, 15)
        check(f"{what}: no answer", request_id not in client.replies and request_id not in loose.replies)

    await silent("an event of two minutes ago", "too_old", *fresh(now - 120))
    await silent("an event from the future", "too_new", *fresh(now + 1_200))
    request_id, event = fresh()
    event["sig"] = event["sig"][:-2] + ("00" if event["sig"][-2:] != "00" else "01")
    await silent("a wrong signature", "bad_signature", request_id, event)
    request_id, event = fresh()
    event["created_at"] -= 1
    await silent("a wrong id", "bad_signature", request_id, event)
    request_id, event = fresh()
    event["sig"] = make_event(secrets.token_bytes(32), service, event["content"])["sig"]
    await silent("a signature of another key", "bad_signature", request_id, event)
    request_id, event = fresh()
    await loose.publish(event | {"sig": "00" * 64})
    await answered(loose, event, request_id)
    check("a copy with a wrong signature does not spoil the event", True)
    request_id, event = fresh(authIdentifier=public_key(secrets.token_bytes(32)))
    await silent("somebody else's authIdentifier", "auth_mismatch", request_id, event)
    request_id, event = fresh()
    raw = bytearray(base64.b64decode(event["content"]))
    # v1: the first letter of the JSON turns into rubbish; v2: the MAC does not fit.
    raw[25 if client.version == 1 else 40] ^= 0x80
    event["content"] = base64.b64encode(raw).decode()
    reason = "undecryptable"
    await silent("a flipped bit, signed again", reason, request_id, sign(secret, event))
    if client.version == 1:
        request_id, event = fresh()
        raw = bytearray(base64.b64decode(event["content"]))
        raw[25] ^= 0x01
        event["content"] = base64.b64encode(raw).decode()
        await silent("a flipped bit that leaves text, signed again", "not_json", request_id, sign(secret, event))
    request_id, event = fresh()
    event["content"] = "hello"
    await silent("not encrypted", "undecryptable", request_id, sign(secret, event))
    content = encrypt(client.version, secret, service, "[1,2]")
    await silent("an array", "not_json", "-", make_event(secret, service, content))
    content = encrypt(client.version, secret, service, '{"status":"OK","requestId":"x"}')
    await silent("a reply instead of a request", "unexpected", "x", make_event(secret, service, content))
    await silent("an event that is too large", "too_large", "-", make_event(secret, service, "A" * 66_000))
    # The same through the relay under test: whoever stops it, nothing comes back.
    ids = []
    for request_id, event in (fresh(now - 200), fresh(now + 2_000)):
        await client.publish(event)
        ids.append(request_id)
    request_id, event = fresh()
    event["sig"] = "00" * 64
    await client.publish(event)
    await client.call("getServiceInfo")
    check("nor through the relay under test", not any(i in client.replies for i in [*ids, request_id]))


async def limits(version: int):
    scenario("limits of one client")
    async with Client(secrets.token_bytes(32), await pair("slow"), version, [RELAY]) as slow:
        await slow.call("enrollClient", {"token": slow.pairing.token})
        await fails("more than max_amount_sats", slow.call("createHoldInvoice", {"hash": new_hash()[1], "amount_sats": 1_001, "memo": ""}), "over_limit")
        ids = []
        for _ in range(20):
            request_id, message = slow.request("getServiceInfo")
            await slow.publish(slow.events(message)[0])
            ids.append(request_id)
        def codes():
            return [slow.replies[i][0].message.get("code", "OK") for i in ids if i in slow.replies]

        async def told():
            return "rate_limited" in codes()

        await until("rate_limited is told", told)
        await until("the rest is counted as rate_limited", lambda: more("rate_limited"))
        check("few were answered", codes().count("OK") <= 6, codes())


async def more(reason: str) -> bool:
    return await dropped(reason) > 0


async def several_relays(alice: Client):
    scenario("several relays at once")
    async with Client(alice.secret, alice.pairing, alice.version) as both:
        for relay in both.relays:
            await asyncio.wait_for(relay.ready.wait(), 20)
        request_id, message = both.request("getServiceInfo")
        before = await dropped("replay")
        await answered(both, both.events(message)[0], request_id)
        await both.call("getServiceInfo")
        check("one reply, although it comes by both", len(both.replies[request_id]) == 1)
        check("a second copy is not counted as played again, or is", await dropped("replay") >= before)


async def beacon() -> dict:
    """The first beacon that the relay under test passes on, of whomever."""
    while True:
        try:
            async with websockets.connect(RELAY) as socket:
                await socket.send(json.dumps(["REQ", "b", {"kinds": [30078], "#d": ["tellerd"]}]))
                async for text in socket:
                    match json.loads(text):
                        case ["EVENT", "b", event]:
                            return event
        except (OSError, websockets.WebSocketException):
            await asyncio.sleep(0.5)


def check_beacon(event: dict, service: str):
    scenario("the beacon")
    verify_event(event)
    content = json.loads(event["content"])
    check("the service's", event["pubkey"] == service, event["pubkey"])
    check("its fields", {"name", "version", "limits", "can_create", "network"} <= content.keys(), content)
    check("its tag", ["d", "tellerd"] in event["tags"], event["tags"])
    check("its time", abs(time.time() - event["created_at"]) < MOST_SECONDS, event["created_at"])


async def few_blocks(client: Client):
    scenario("too few blocks left")
    preimage, hash, payer = await held(client, 3_000)
    await client.call("commitHoldInvoice", {"hash": hash})
    _, other, other_payer = await held(client, 3_001)
    await control("advance", "51")
    await comes_to(client, other, "CANCELED")
    check("without a commit the money is back", "3001 sat back" in await other_payer.end())
    got = await client.call("getHoldInvoice", {"hash": hash})
    check("with a commit it is held", (got["state"], got["blocks_left"]) == ("ACCEPTED", 11), got)
    await client.call("settleHoldInvoice", {"preimage": preimage})
    check("and can be settled", "succeeded: paid 3000 sat" in await payer.end())


async def run(version: int, beacons: asyncio.Task):
    print(f"NIP-44 version {version}", flush=True)
    alice, bob, loose = await pairing(version)
    try:
        await info(alice)
        await create(alice, bob)
        await settle(alice)
        await cancel(alice)
        await bad_fields(alice)
        await batch(alice)
        await long_messages(alice)
        await no_answer(alice, loose)
        await several_relays(alice)
        await limits(version)
        await few_blocks(alice)
        await replays(alice, loose)
        await killed(alice)
        if version == 2:
            check_beacon(await asyncio.wait_for(beacons, 75), alice.pairing.service)
        scenario("all that came from the service was sound")
        check("nothing was refused", not alice.refused and not bob.refused, alice.refused + bob.refused)
    finally:
        for client in (alice, bob, loose):
            await client.__aexit__()


async def main():
    async with asyncio.timeout(MOST_SECONDS):
        beacons = asyncio.create_task(beacon())
        await up()
        tables = []
        for version in (1, 2):
            passed.clear()
            await run(version, beacons)
            tables.append(dict(passed))
    last = await ledger()
    print(f"\n{'scenario':<44}{'v1':>6}{'v2':>6}")
    for name in tables[0] | tables[1]:
        print(f"{name:<44}{tables[0].get(name, '-'):>6}{tables[1].get(name, '-'):>6}")
    print(f"\nthe node: {last['text'].splitlines()[0]}")
    total = sum(sum(table.values()) for table in tables)
    print(f"{total} passed, 0 failed")


if __name__ == "__main__":
    passed.append(("start", 0))
    try:
        asyncio.run(main())
    except (Failed, TimeoutError, RpcError) as error:
        sys.exit(f"FAILED in {passed[-1][0]}: {type(error).__name__}: {error}")
