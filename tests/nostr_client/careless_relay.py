"""A relay that checks nothing and forgets nothing it was asked to pass on: careless_relay.py PORT, on 127.0.0.1.

What honest relays hold back - wrong signatures, old events, the same event again - reaches the service through it.
"""

import asyncio
import json
import sys

import websockets

subscriptions: dict[object, dict[str, dict]] = {}


def matches(filter: dict, event: dict) -> bool:
    """Kinds and tags only; time is not looked at."""
    if "kinds" in filter and event.get("kind") not in filter["kinds"]:
        return False
    if "authors" in filter and event.get("pubkey") not in filter["authors"]:
        return False
    wanted = {name[1:]: values for name, values in filter.items() if name.startswith("#")}
    tags = event.get("tags", [])
    return all(any(tag[0] == name and tag[1] in values for tag in tags) for name, values in wanted.items())


async def serve(socket):
    mine = subscriptions[socket] = {}
    try:
        async for text in socket:
            match json.loads(text):
                case ["REQ", name, *filters]:
                    mine[name] = filters
                    await socket.send(json.dumps(["EOSE", name]))
                case ["CLOSE", name]:
                    mine.pop(name, None)
                case ["EVENT", event]:
                    for peer, theirs in list(subscriptions.items()):
                        for name, filters in theirs.items():
                            if any(matches(f, event) for f in filters):
                                await peer.send(json.dumps(["EVENT", name, event], ensure_ascii=False))
                    await socket.send(json.dumps(["OK", event["id"], True, ""]))
    except websockets.ConnectionClosed:
        pass
    finally:
        del subscriptions[socket]


async def main(port: int):
    async with websockets.serve(serve, "127.0.0.1", port, max_size=1 << 20):
        print(f"careless relay on ws://127.0.0.1:{port}", flush=True)
        await asyncio.Future()


asyncio.run(main(int(sys.argv[1])))
