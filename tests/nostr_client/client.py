"""A client of the hold-invoice service of a tellerd over Nostr, written from docs/NOSTR_RPC.md alone.

    async with Client(secret, Pairing.parse(text)) as client:
        await client.call("enrollClient", {"token": client.pairing.token})
        made = await client.call("createHoldInvoice", {"hash": hash, "amount_sats": 60000, "memo": "60"})

As a script: client.py PAIRING METHOD [JSON], with the key in the environment's NOSTR_SECRET (64 hexadecimal digits).
"""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import sys
import time
from dataclasses import dataclass, field

import websockets
from coincurve import PrivateKey, PublicKey, PublicKeyXOnly
from Crypto.Cipher import ChaCha20

KIND = 21000
MAX_EVENT = 65_536
MAX_OWN_EVENT = 60_000
MAX_SHARDS = 32
PUSH = "subscribeHoldInvoices"


class Bad(Exception):
    """What came is not what the protocol says."""


class NotOurs(Bad):
    """Of other parties. There are relays that do not look at the filter's tags."""


class NoAnswer(Exception):
    pass


class RpcError(Exception):
    def __init__(self, code, reason, reply):
        super().__init__(f"{code}: {reason}")
        self.code, self.reason, self.reply = code, reason, reply


# -- keys and NIP-44


def public_key(secret: bytes) -> str:
    return PublicKeyXOnly.from_secret(secret).format().hex()


def shared_x(secret: bytes, peer: str) -> bytes:
    """x of the ECDH point."""
    return PublicKey(b"\x02" + bytes.fromhex(peer)).multiply(secret).format()[1:]


def key_v1(secret: bytes, peer: str) -> bytes:
    return hashlib.sha256(shared_x(secret, peer)).digest()


def key_v2(secret: bytes, peer: str) -> bytes:
    return hmac.digest(b"nip44-v2", shared_x(secret, peer), "sha256")


def encrypt_v1(key: bytes, plaintext: str, nonce: bytes | None = None) -> str:
    nonce = nonce or secrets.token_bytes(24)
    cipher = ChaCha20.new(key=key, nonce=nonce)  # with 24 bytes of nonce this is XChaCha20
    return base64.b64encode(b"\x01" + nonce + cipher.encrypt(plaintext.encode())).decode()


def message_keys_v2(key: bytes, nonce: bytes) -> tuple[bytes, bytes, bytes]:
    """HKDF-expand to 76 bytes: cipher key, cipher nonce, MAC key."""
    out, block = b"", b""
    for i in range(1, 4):
        block = hmac.digest(key, block + nonce + bytes([i]), "sha256")
        out += block
    return out[:32], out[32:44], out[44:76]


def padded_length(length: int) -> int:
    if length <= 32:
        return 32
    power = 1 << (length - 1).bit_length()
    chunk = 32 if power <= 256 else power // 8
    return chunk * ((length - 1) // chunk + 1)


def encrypt_v2(key: bytes, plaintext: str, nonce: bytes | None = None) -> str:
    nonce = nonce or secrets.token_bytes(32)
    data = plaintext.encode()
    if not 1 <= len(data) <= 65_408:
        raise Bad("a plaintext of version 2 has 1 to 65408 bytes")
    padded = len(data).to_bytes(2, "big") + data + bytes(padded_length(len(data)) - len(data))
    cipher_key, cipher_nonce, mac_key = message_keys_v2(key, nonce)
    ciphertext = ChaCha20.new(key=cipher_key, nonce=cipher_nonce).encrypt(padded)
    mac = hmac.digest(mac_key, nonce + ciphertext, "sha256")
    return base64.b64encode(b"\x02" + nonce + ciphertext + mac).decode()


def payload_bytes(content: str) -> bytes:
    """The payload: base64, or the object that version 1 may come as."""
    try:
        if content.startswith("{"):
            parts = json.loads(content)
            if parts["v"] != 1:
                raise Bad("an object that is not of version 1")
            nonce = base64.b64decode(parts["nonce"], validate=True)
            return b"\x01" + nonce + base64.b64decode(parts["ciphertext"], validate=True)
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise Bad(f"not a payload: {error}") from None


def decrypt(secret: bytes, peer: str, content: str) -> tuple[int, str]:
    """The version and the plaintext."""
    payload = payload_bytes(content)
    version = payload[0] if payload else 0
    if version == 1:
        if len(payload) < 25:
            raise Bad("too short")
        data = ChaCha20.new(key=key_v1(secret, peer), nonce=payload[1:25]).decrypt(payload[25:])
    elif version == 2:
        if len(payload) < 99:
            raise Bad("too short")
        nonce, ciphertext, mac = payload[1:33], payload[33:-32], payload[-32:]
        cipher_key, cipher_nonce, mac_key = message_keys_v2(key_v2(secret, peer), nonce)
        if not hmac.compare_digest(mac, hmac.digest(mac_key, nonce + ciphertext, "sha256")):
            raise Bad("the MAC does not fit")
        padded = ChaCha20.new(key=cipher_key, nonce=cipher_nonce).decrypt(ciphertext)
        length = int.from_bytes(padded[:2], "big")
        data = padded[2 : 2 + length]
        if length == 0 or len(data) != length or len(padded) != 2 + padded_length(length):
            raise Bad("the padding does not fit")
    else:
        raise Bad(f"version {version} is not known")
    try:
        return version, data.decode()
    except UnicodeDecodeError:
        raise Bad("the plaintext is not UTF-8") from None


def encrypt(version: int, secret: bytes, peer: str, plaintext: str) -> str:
    if version == 1:
        return encrypt_v1(key_v1(secret, peer), plaintext)
    return encrypt_v2(key_v2(secret, peer), plaintext)


# -- events (NIP-01)


def event_id(event: dict) -> str:
    fields = [0, event["pubkey"], event["created_at"], event["kind"], event["tags"], event["content"]]
    return hashlib.sha256(json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def make_event(secret: bytes, recipient: str, content: str, created_at: int | None = None) -> dict:
    event = {
        "kind": KIND,
        "pubkey": public_key(secret),
        "created_at": int(time.time()) if created_at is None else created_at,
        "tags": [["p", recipient]],
        "content": content,
    }
    return sign(secret, event)


def sign(secret: bytes, event: dict) -> dict:
    event["id"] = event_id(event)
    event["sig"] = PrivateKey(secret).sign_schnorr(bytes.fromhex(event["id"])).hex()
    return event


def verify_event(event: dict) -> None:
    """The id is the hash of what it says, and its sender signed it."""
    if event_id(event) != event["id"]:
        raise Bad("the id does not fit")
    if not PublicKeyXOnly(bytes.fromhex(event["pubkey"])).verify(
        bytes.fromhex(event["sig"]), bytes.fromhex(event["id"])
    ):
        raise Bad("the signature does not fit")


def wire(event: dict) -> str:
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False)


# -- the pairing string: nprofile (NIP-19), a colon, and the token

BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def bech32_decode(text: str) -> tuple[str, bytes]:
    """BIP-173, without its limit of 90 characters."""
    if text.lower() != text and text.upper() != text:
        raise Bad("mixed case")
    prefix, _, rest = text.lower().rpartition("1")
    if not prefix or len(rest) < 6 or any(c not in BECH32 for c in rest):
        raise Bad("not bech32")
    words = [BECH32.index(c) for c in rest]
    check = 1
    for value in [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + words:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> i & 1 else 0
    if check != 1:
        raise Bad("the checksum does not fit")
    bits = number = 0
    out = bytearray()
    for word in words[:-6]:
        number, bits = (number << 5 | word) & 0xFFF, bits + 5
        if bits >= 8:
            bits -= 8
            out.append(number >> bits & 0xFF)
    return prefix, bytes(out)


@dataclass
class Pairing:
    service: str
    relays: list[str]
    token: str | None = None

    @staticmethod
    def parse(text: str) -> "Pairing":
        profile, _, token = text.strip().partition(":")
        prefix, data = bech32_decode(profile)
        if prefix != "nprofile":
            raise Bad("not a pairing string")
        service, relays = None, []
        while data:  # type, length, value
            kind, length = data[0], data[1]
            value, data = data[2 : 2 + length], data[2 + length :]
            if kind == 0:
                service = value.hex()
            elif kind == 1:
                relays.append(value.decode())
        if service is None or len(service) != 64 or not relays:
            raise Bad("a pairing string without key or relay")
        return Pairing(service, relays, token or None)


# -- long messages


def shards(message: str, size: int) -> list[str]:
    """The message in pieces of at most so many characters; it itself when it is short."""
    if len(message) <= size:
        return [message]
    parts = [message[i : i + size] for i in range(0, len(message), size)]
    if len(parts) > MAX_SHARDS:
        raise Bad("too long")
    shards_id = secrets.token_hex(16)
    return [
        json.dumps({"part": part, "index": i, "totalShards": len(parts), "shardsId": shards_id}, ensure_ascii=False)
        for i, part in enumerate(parts)
    ]


class Joiner:
    """Puts messages together of which pieces come."""

    def __init__(self):
        self.waiting = {}

    def put(self, message: dict) -> dict | None:
        if "shardsId" not in message:
            return message
        shards_id, index, total = message["shardsId"], message["index"], message["totalShards"]
        if not (1 <= total <= MAX_SHARDS and 0 <= index < total and isinstance(message["part"], str)):
            raise Bad("a piece of the wrong shape")
        known, parts = self.waiting.setdefault(shards_id, (total, {}))
        if known != total or parts.setdefault(index, message["part"]) != message["part"]:
            del self.waiting[shards_id]
            raise Bad("a piece that contradicts another")
        if len(parts) < total:
            return None
        del self.waiting[shards_id]
        return json.loads("".join(parts[i] for i in range(total)))


# -- the client


@dataclass
class Received:
    """A message of the service, and how it came."""

    message: dict
    version: int
    event_ids: list[str] = field(default_factory=list)


class Relay:
    """A connection to one relay, made again when it breaks."""

    def __init__(self, url: str, client: "Client"):
        self.url, self.client = url, client
        self.socket = None
        self.ready = asyncio.Event()
        self.oks: dict[str, asyncio.Future] = {}
        self.notices: list = []

    async def run(self):
        while True:
            try:
                async with websockets.connect(self.url, max_size=4 * MAX_EVENT, open_timeout=10) as socket:
                    self.socket = socket
                    await self.subscribe()
                    async for text in socket:
                        await self.take(json.loads(text))
            except (OSError, websockets.WebSocketException, TimeoutError, ValueError):
                pass
            self.socket = None
            self.ready.clear()
            await asyncio.sleep(0.5)

    async def subscribe(self):
        since = int(time.time()) - 5
        await self.socket.send(json.dumps(["REQ", "rpc", {"kinds": [KIND], "#p": [self.client.pubkey], "since": since}]))

    async def take(self, message: list):
        match message:
            case ["EVENT", _, event]:
                self.client.take(event)
            case ["EOSE", _]:
                self.ready.set()
            case ["OK", event_id, accepted, text]:
                future = self.oks.pop(event_id, None)
                if future and not future.done():
                    future.set_result((accepted, text))
            case ["CLOSED", *_]:
                self.ready.clear()
                await asyncio.sleep(0.5)
                await self.subscribe()
            case ["AUTH", challenge]:
                tags = [["relay", self.url], ["challenge", challenge]]
                auth = {"kind": 22242, "pubkey": self.client.pubkey, "created_at": int(time.time()), "tags": tags}
                await self.socket.send(json.dumps(["AUTH", sign(self.client.secret, auth | {"content": ""})]))
                await self.subscribe()
            case other:
                self.notices.append(other)

    async def send(self, event: dict) -> asyncio.Future:
        future = self.oks[event["id"]] = asyncio.get_running_loop().create_future()
        await self.socket.send('["EVENT",' + wire(event) + "]")
        return future


class Client:
    """One key that talks to one service over all its relays."""

    def __init__(self, secret: bytes, pairing: Pairing, version: int = 2, relays: list[str] | None = None):
        self.secret, self.pairing, self.version = secret, pairing, version
        self.pubkey = public_key(secret)
        self.relays = [Relay(url, self) for url in (relays or pairing.relays)]
        self.seen: dict[str, None] = {}
        self.joiner = Joiner()
        self.refused: list[str] = []
        self.replies: dict[str, list[Received]] = {}
        self.pushes: asyncio.Queue[Received] = asyncio.Queue()
        self.arrived = asyncio.Condition()
        self.tasks: set[asyncio.Task] = set()

    async def __aenter__(self):
        for relay in self.relays:
            self.spawn(relay.run())
        await self.connected()
        return self

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def spawn(self, coroutine):
        task = asyncio.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def connected(self, deadline: float = 20):
        """At least one relay is there, and passes events on to us."""
        waits = [asyncio.create_task(relay.ready.wait()) for relay in self.relays]
        done, rest = await asyncio.wait(waits, timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
        for wait in rest:
            wait.cancel()
        if not done:
            raise NoAnswer("no relay can be reached")

    # - what comes

    def take(self, event: dict):
        try:
            message = self.open(event)
        except NotOurs:
            return
        except (Bad, KeyError, TypeError, ValueError) as error:
            self.refused.append(f"{event.get('id') if isinstance(event, dict) else '?'}: {error}")
            return
        if message is not None:
            self.spawn(self.deliver(message))

    def open(self, event: dict) -> Received | None:
        """Only what is proven to be the service's, and only once."""
        if event["kind"] != KIND or event["pubkey"] != self.pairing.service:
            raise NotOurs("not from the service")
        if next((tag[1] for tag in event["tags"] if tag[0] == "p"), None) != self.pubkey:
            raise NotOurs("not for us")
        if len(wire(event).encode()) > MAX_EVENT:
            raise Bad("too large")
        verify_event(event)
        if event["id"] in self.seen:
            return None
        self.seen[event["id"]] = None
        version, text = decrypt(self.secret, self.pairing.service, event["content"])
        message = json.loads(text)
        if not isinstance(message, dict):
            raise Bad("not an object")
        whole = self.joiner.put(message)
        return whole and Received(whole, version)

    async def deliver(self, received: Received):
        request_id = received.message.get("requestId")
        if request_id == PUSH:
            self.pushes.put_nowait(received)
        async with self.arrived:
            self.replies.setdefault(request_id, []).append(received)
            self.arrived.notify_all()

    # - what goes

    def request(self, method: str, body: dict | None = None, request_id: str | None = None, spelling: str = "body"):
        request_id = request_id or secrets.token_hex(16)
        message = {"rpcName": method, "authIdentifier": self.pubkey, "requestId": request_id}
        if body is not None:
            message[spelling] = body
        return request_id, message

    def events(self, message: dict, created_at: int | None = None) -> list[dict]:
        """The message as signed events: one, or the pieces of a long one."""
        # A base64 of a padded text with escapes stays below 60,000 bytes.
        pieces = shards(json.dumps(message, ensure_ascii=False), 10_000)
        return [self.event(piece, created_at) for piece in pieces]

    def event(self, plaintext: str, created_at: int | None = None) -> dict:
        content = encrypt(self.version, self.secret, self.pairing.service, plaintext)
        event = make_event(self.secret, self.pairing.service, content, created_at)
        if len(wire(event).encode()) > MAX_EVENT:
            raise Bad("too large for an event")
        return event

    async def publish(self, event: dict) -> list[asyncio.Future]:
        """To all relays that are there. What they say to it comes in the futures, if they say something."""
        sent = []
        for relay in self.relays:
            if relay.socket is not None:
                with contextlib.suppress(websockets.ConnectionClosed):
                    sent.append(await relay.send(event))
        return sent

    async def reply(self, request_id: str, deadline: float) -> Received | None:
        """The reply to a request, or None when none came."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline), self.arrived:
                await self.arrived.wait_for(lambda: request_id in self.replies)
        replies = self.replies.get(request_id)
        return replies[0] if replies else None

    async def call(self, method: str, body: dict | None = None, *, spelling: str = "body", deadline: float = 60,
                   again_after: float = 10, request_id: str | None = None) -> dict:
        """Calls a method. Asks again, with a new event and the same requestId, while no answer comes."""
        return self.result(await self.ask(method, body, spelling=spelling, deadline=deadline,
                                          again_after=again_after, request_id=request_id))

    async def ask(self, method: str, body: dict | None, *, spelling: str = "body", deadline: float = 60,
                  again_after: float = 10, request_id: str | None = None) -> Received:
        request_id, message = self.request(method, body, request_id, spelling)
        until = time.monotonic() + deadline
        while (left := until - time.monotonic()) > 0:
            for event in self.events(message):
                await self.publish(event)
            if received := await self.reply(request_id, min(left, again_after)):
                return received
        raise NoAnswer(f"{method} got no answer within {deadline} s")

    @staticmethod
    def result(received: Received) -> dict:
        message = received.message
        if message.get("status") == "OK":
            return message
        raise RpcError(message.get("code"), message.get("reason"), message)


async def main(pairing: str, method: str, body: str | None = None):
    secret = bytes.fromhex(os.environ["NOSTR_SECRET"])
    async with Client(secret, Pairing.parse(pairing)) as client:
        print(json.dumps(await client.call(method, json.loads(body) if body else None), indent=2))


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:]))
