"""A client of the gateway's REST consumer, as far as tests need one."""

import asyncio
from uuid import uuid4

from streamapp.transport.clients import Outgoing

V2 = "application/vnd.kafka.v2+json"

EARLIEST = {"auto.offset.reset": "earliest", "format": "json"}


class Consumer:
    """An instance, as its client sees it."""

    def __init__(self, rest, group, uri):
        self.rest, self.group, self.uri = rest, group, uri

    async def call(self, method, path="", body=None, status=None, **headers):
        kind = {"Content_Type": V2} if body is not None else {}
        got, answer = await self.rest.call(method, self.uri + path, body, **kind, **headers)
        if status is not None:
            assert got == status, answer
            return answer
        return got, answer

    async def subscribe(self, *topics):
        await self.call("POST", "/subscription", {"topics": topics}, 204)

    async def read(self, count, format_="json"):
        """So many records; asks until they are there."""
        found = []
        async with asyncio.timeout(60):
            while len(found) < count:
                accept = f"application/vnd.kafka.{format_}.v2+json"
                found += await self.call("GET", "/records?timeout=2000", status=200, Accept=accept)
        return found

    async def committed(self, topic, partition=0):
        wanted = {"partitions": [{"topic": topic, "partition": partition}]}
        offsets = (await self.call("GET", "/offsets", wanted, 200))["offsets"]
        return offsets[0]["offset"] if offsets else None


async def create(rest, config=EARLIEST, group=None):
    group = group or f"g-{uuid4().hex[:8]}"
    status, answer = await rest.call("POST", f"/consumers/{group}", config, Content_Type=V2)
    assert status == 200, answer
    return Consumer(rest, group, answer["base_uri"])


async def fill(rest, topic, *values, partition=0):
    await rest.producer.send(topic, [Outgoing(b"%d" % v, partition=partition) for v in values])
