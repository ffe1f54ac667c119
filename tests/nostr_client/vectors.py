"""Checks the client against the vectors and against the complete example of the page."""

import json
import re
from pathlib import Path

import client as c

HERE = Path(__file__).parent
VECTORS = HERE.parent / "vectors" / "nip44_v1.json"
PAGE = HERE.parent.parent / "docs" / "NOSTR_RPC.md"
passed = 0


def check(what: str, condition: bool):
    global passed
    assert condition, what
    passed += 1


def refuses(what: str, call):
    try:
        call()
    except c.Bad:
        check(what, True)
    else:
        raise AssertionError(f"{what}: was taken")


def vectors():
    data = json.loads(VECTORS.read_text())
    keys = data["keys"]
    secret = {who: bytes.fromhex(keys[f"{who}_secret"]) for who in ("client", "server")}
    public = {who: keys[f"{who}_pubkey"] for who in ("client", "server")}
    for who, other in (("client", "server"), ("server", "client")):
        check(f"public key of {who}", c.public_key(secret[who]) == public[who])
        check(f"key of version 1, {who}", c.key_v1(secret[who], public[other]).hex() == keys["conversation_key"])
    key = bytes.fromhex(keys["conversation_key"])
    for v in data["encrypt"]:
        check("encrypt v1", c.encrypt_v1(key, v["plaintext"], bytes.fromhex(v["nonce"])) == v["payload"])
    for i, v in enumerate(data["decrypt"]):
        sender, reader = v["from"], v["to"]
        for name in ("v1", "v2"):
            if name not in v:
                continue
            version = int(name[1])
            got = c.decrypt(secret[reader], public[sender], v[name])
            check(f"decrypt {name} {i}", got == (version, v["plaintext"]))
            got = c.decrypt(secret[sender], public[reader], v[name])
            check(f"decrypt {name} {i} by its sender", got == (version, v["plaintext"]))
            nonce = c.payload_bytes(v[name])[1 : 25 if version == 1 else 33]
            if version == 1:
                again = c.encrypt_v1(key, v["plaintext"], nonce)
            else:
                again = c.encrypt_v2(c.key_v2(secret[sender], public[reader]), v["plaintext"], nonce)
            check(f"encrypt {name} {i} to the same bytes", again == v[name])
    for i, event in enumerate(data["events"]):
        c.verify_event(event)
        check(f"event {i}", True)
    hello = data["decrypt"][0]
    payload = c.payload_bytes(hello["v1"])
    as_object = json.dumps({"v": 1, "nonce": c.base64.b64encode(payload[1:25]).decode(),
                            "ciphertext": c.base64.b64encode(payload[25:]).decode()})
    got = c.decrypt(secret[hello["to"]], public[hello["from"]], as_object)
    check("v1 as an object", got == (1, hello["plaintext"]))
    flipped = bytearray(c.payload_bytes(hello["v2"]))
    flipped[40] ^= 1
    refuses("v2 with a flipped bit", lambda: c.decrypt(secret[hello["to"]], public[hello["from"]],
                                                       c.base64.b64encode(flipped).decode()))


def both_ways():
    a, b = bytes([7]) * 32, bytes([9]) * 32
    for version in (1, 2):
        for text in ("x", "grüezi ☕ 𝄞", "a" * 31, "a" * 32, "a" * 33, "b" * 255, "b" * 257, "c" * 1025, "d" * 40_000):
            sealed = c.encrypt(version, a, c.public_key(b), text)
            got = c.decrypt(b, c.public_key(a), sealed)
            check(f"v{version} there, {len(text)} characters", got == (version, text))
            got = c.decrypt(a, c.public_key(b), c.encrypt(version, b, c.public_key(a), text))
            check(f"v{version} back, {len(text)} characters", got == (version, text))
    for length in (1, 65_408):
        got = c.decrypt(b, c.public_key(a), c.encrypt(2, a, c.public_key(b), "e" * length))
        check(f"v2 with {length} bytes", got == (2, "e" * length))
    for length in (0, 65_409):
        refuses(f"v2 with {length} bytes", lambda n=length: c.encrypt(2, a, c.public_key(b), "e" * n))
    lengths = {1: 32, 32: 32, 33: 64, 64: 64, 65: 96, 256: 256, 257: 320, 320: 320, 383: 384, 1024: 1024, 1025: 1280,
               65_408: 65_536}
    check("padding as in NIP-44", all(c.padded_length(n) == want for n, want in lengths.items()))


def example():
    page = PAGE.read_text().partition("## A complete example")[2]
    blocks = re.findall(r"\*\*([^*]+)\*\*[^\n]*\n```json\n(.*?)\n```", page, re.S)
    parts = {name: json.loads(text) for name, text in blocks}
    check("the page's six parts", len(parts) == 6)
    keys = parts["Keys"]
    client, service = bytes.fromhex(keys["client_secret"]), bytes.fromhex(keys["service_secret"])
    check("client's public key", c.public_key(client) == keys["client_pubkey"])
    check("service's public key", c.public_key(service) == keys["service_pubkey"])
    for name, reader, sender, version, plain in (
        ("Event, version 1", service, keys["client_pubkey"], 1, "Plaintext of the request"),
        ("Event, version 2", service, keys["client_pubkey"], 2, "Plaintext of the request"),
        ("Event of the reply", client, keys["service_pubkey"], 1, "Plaintext of the reply"),
    ):
        event = parts[name]
        c.verify_event(event)
        check(f"{name}: id and signature", True)
        check(f"{name}: sender", event["pubkey"] == sender)
        check(f"{name}: recipient", event["tags"][0] == ["p", c.public_key(reader)])
        got, text = c.decrypt(reader, sender, event["content"])
        check(f"{name}: version", got == version)
        check(f"{name}: plaintext", json.loads(text) == parts[plain])
        broken = dict(event, content="A" + event["content"])
        refuses(f"{name}: another content", lambda e=broken: c.verify_event(e))


def pieces():
    message = {"text": "grüezi 𝄞 " * 500}
    texts = c.shards(json.dumps(message, ensure_ascii=False), 700)
    check("more than one piece", len(texts) > 3)
    joiner = c.Joiner()
    shuffled = [json.loads(text) for text in texts[::-1] + texts[:1]]
    check("no message before the last piece", all(joiner.put(piece) is None for piece in shuffled[:-2]))
    check("the message from its pieces", joiner.put(shuffled[-2]) == message)
    joiner = c.Joiner()
    joiner.put(shuffled[0])
    refuses("a contradiction", lambda: joiner.put(dict(shuffled[0], part="x")))


def profile():
    # The example of NIP-19.
    text = ("nprofile1qqsrhuxx8l9ex335q7he0f09aej04zpazpl0ne2cgukyawd24mayt8gpp4mhxue69uhhytnc9e3k7mgpz4mhxue69uhkg6nzv9ej"
            "uumpv34kytnrdaksjlyr9p")
    got = c.Pairing.parse(text + ":" + "ab" * 32)
    check("nprofile's key", got.service == "3bf0c63fcb93463407af97a5e5ee64fa883d107ef9e558472c4eb9aaaefa459d")
    check("nprofile's relays", got.relays == ["wss://r.x.com", "wss://djbas.sadkb.com"])
    check("the token", got.token == "ab" * 32)
    refuses("a wrong checksum", lambda: c.Pairing.parse(text[:-1] + "q"))


if __name__ == "__main__":
    for part in (vectors, both_ways, example, pieces, profile):
        part()
    print(f"vectors: {passed} checks passed")
