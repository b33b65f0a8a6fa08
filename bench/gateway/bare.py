"""Contenders on aiohttp: a handler that only parses, and one that also sends by aiokafka.

python -m gateway.bare parses
python -m gateway.bare aiokafka BOOTSTRAP TOPIC

Both are what aiohttp does best: no access log, no middleware, msgspec for JSON, and a collector that
leaves alone what the start made.  The URL is the first line on stdout.
"""

import asyncio
import gc
import sys
from typing import Any

import msgspec
from aiohttp import web
from aiokafka import AIOKafkaProducer

_JSON = {"Content-Type": "application/json"}
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


async def parses(request: web.Request) -> web.Response:
    """The event is parsed, nothing becomes of it."""
    event = _decode(await request.read())
    return _received(event.get("type", "event"), -1, -1)


class Sends:
    """The event is parsed and appended, acks=all, and the answer says where it is."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    async def __call__(self, request: web.Request) -> web.Response:
        body = await request.read()
        event = _decode(body)
        key = event["conversation_id"].encode()
        found = await self._producer.send_and_wait(self._topic, body, key)
        return _received(event.get("type", "event"), found.partition, found.offset)


def _received(kind: str, partition: int, offset: int) -> web.Response:
    said: dict[str, Any] = {
        "status": "received",
        "event_type": kind,
        "partition": partition,
        "offset": offset,
    }
    return web.Response(body=_encode(said), headers=_JSON)


async def serve(name: str, *target: str) -> None:
    """Until somebody ends the process."""
    app = web.Application()
    if name == "parses":
        app.router.add_post("/ingest", parses)
    else:
        bootstrap, topic = target
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
        await producer.start()
        app.router.add_post("/ingest", Sends(producer, topic).__call__)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(f"http://{host}:{port}", flush=True)
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
