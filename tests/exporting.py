"""What tests of exports need: a receiver that verifies, and enriched records as a worker writes them."""

import asyncio
import base64
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from aiohttp import web
from standardwebhooks import Webhook

from streamapp.agents.exports.post import Pace
from streamapp.core.batch import EVENT_SCHEMA
from streamapp.core.exports import Export
from streamapp.core.signing import key_of
from streamapp.topics import catalogue
from streamapp.topics.catalogue import ENRICHED
from streamapp.topics.enriched import Cover, Enriched, encode
from streamapp.transport.clients import Outgoing, TopicSpec

SECRET = "whsec_" + base64.b64encode(b"a secret of the tests' own").decode()
COLUMNS = pa.schema(
    [("words", pa.int32()), ("intent", pa.string()), ("embedding", pa.list_(pa.float32(), 32))]
)
QUICK = Pace(0.01, 0.05)


@dataclass
class Receiver:
    """A webhook of somebody's: verifies each delivery with the public library, and keeps it."""

    url: str = ""
    #: Answers to give first: a status, or (status, headers), or a coroutine function.
    answers: list = field(default_factory=list)
    deliveries: list = field(default_factory=list)
    bad: list = field(default_factory=list)
    attempts: Counter = field(default_factory=Counter)
    paths: list[str] = field(default_factory=list)

    async def receive(self, request):
        body = await request.read()
        try:
            Webhook(SECRET).verify(body, dict(request.headers))
        except Exception as error:  # noqa: BLE001  # the test reads it
            self.bad.append(error)
            return web.Response(status=401)
        identity = request.headers["webhook-id"]
        self.attempts[identity] += 1
        self.paths.append(request.path)
        answer = self.answers.pop(0) if self.answers else 204
        if callable(answer):
            answer = await answer(request)
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        if 200 <= status < 300:
            self.deliveries.append((identity, request.headers["Content-Type"], body))
        return web.Response(status=status, headers=headers, text="" if status == 204 else "said")

    def events(self):
        """Every delivered event, in order of arrival."""
        return [
            event for _, _, body in self.deliveries for event in json.loads(body)["data"]["events"]
        ]

    def ids(self):
        return [event["id"] for event in self.events()]

    async def until(self, condition, what="deliveries"):
        async with asyncio.timeout(30):
            while not condition():
                assert not self.bad, self.bad
                await asyncio.sleep(0.005)


def specs():
    return [TopicSpec(*topic.log_spec()) for topic in catalogue.load(None, catalogue.EXPORTS)]


@dataclass
class Source:
    """Writes enriched records as a worker does."""

    log: Any
    next: Counter = field(default_factory=Counter)

    async def send(self, *texts, partition=0, kinds=("event",), **columns):
        """One record with a row for each text; its rows' ids."""
        record, ids = enriched(texts, partition, self.next[partition], kinds, columns)
        self.next[partition] += len(texts)
        await self.log.producer.send(ENRICHED, [record])
        return ids


def enriched(texts, partition, first, kinds=("event",), columns=None):
    rows = [
        {
            "source_offset": first + n,
            "id": f"e{partition}-{first + n}",
            "type": kinds[n % len(kinds)],
            "source": "/tests",
            "conversation": "c",
            "actor": None,
            "time": 1_760_000_000_000_000 + first + n,
            "ingest_time": 1_760_000_001_000_000 + first + n,
            "text": text,
            "duration_ms": 0.0,
            "payload": json.dumps({"n": first + n}),
            "attachments": None,
            "words": len(text.split()),
            "intent": "cancel" if "cancel" in text else None,
            "embedding": [0.5] * 32,
            **{name: values[n] for name, values in (columns or {}).items()},
        }
        for n, text in enumerate(texts)
    ]
    batch = pa.RecordBatch.from_pylist(rows, schema=pa.schema([*EVENT_SCHEMA, *COLUMNS]))
    cover = Cover(
        topic="events.raw",
        partition=partition,
        first=first,
        next=first + len(texts),
        rows=len(rows),
    )
    value, headers = encode(Enriched(cover, batch))
    return Outgoing(value, headers=headers, partition=partition), [row["id"] for row in rows]


def export_of(receiver, name="default", **options):
    values = {"begin": "beginning", "interval_ms": 0, "webhook_url": receiver.url} | options
    return Export(name=name, keys=(key_of(SECRET),), **values)
