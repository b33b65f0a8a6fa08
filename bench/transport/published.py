"""Contenders that read, decode, add one column and publish: plain Faust, Faust's ``take(256)``, ours.

They run until they are ended: whoever started them watches what arrives on the log.
"""

import asyncio
from typing import Any, ClassVar

import msgspec
import numpy as np
import pyarrow as pa
from transport.meter import EVENT_BYTES_MAX, Task, run
from transport.received import faust_app, start

import streamapp
from streamapp import transport
from streamapp.core.config import Settings
from streamapp.core.event import Event
from streamapp.core.slice import Record
from streamapp.plugin import BaseStage, Batch, Columns, int32
from streamapp.topics.wire import decode_record

_encode = msgspec.json.Encoder().encode


class Mark(BaseStage):
    """The least that a stage can do."""

    name = "mark"
    reads = ("text",)
    writes: ClassVar = {"mark": int32}

    def enrich(self, batch: Batch) -> Columns:
        return {"mark": pa.array(np.zeros(len(batch), np.int32))}


class Marked(Event, frozen=True, kw_only=True):
    """What Faust's contenders publish: the event's fields and one more."""

    mark: int = 0


def enriched_json(value: bytes) -> tuple[bytes, bytes]:
    """Key and value of one enriched event as JSON."""
    event = decode_record(Record(0, 0, None, value), event_bytes_max=EVENT_BYTES_MAX)
    marked = Marked(**{name: getattr(event, name) for name in Event.__struct_fields__})
    return (event.conversation or "").encode(), _encode(marked)


def topics_of(app: Any, task: Task) -> tuple[Any, Any]:
    """Source and destination as bytes: no codec of Faust's is in the way."""
    raw = {
        "value_type": bytes,
        "value_serializer": "raw",
        "key_type": bytes,
        "key_serializer": "raw",
    }
    return app.topic(task.topic, **raw), app.topic(task.out, **raw)


def faust_take(task: Task) -> None:
    """``take(256)``; a batch is acknowledged when the log has all its records."""
    app = faust_app(task, "kafka")
    source, out = topics_of(app, task)

    @app.agent(source)
    async def enrich(stream: Any) -> None:
        async for values in stream.take(256, within=1.0):
            pairs = [enriched_json(value) for value in values]
            await asyncio.gather(*[await out.send(key=key, value=value) for key, value in pairs])

    start(app)


def faust_event(task: Task) -> None:
    """Plain Faust: read one, publish one; the producer gathers, nobody waits for the log."""
    app = faust_app(task, "kafka")
    source, out = topics_of(app, task)

    @app.agent(source)
    async def enrich(stream: Any) -> None:
        async for value in stream:
            key, enriched = enriched_json(value)
            await out.send(key=key, value=enriched)

    start(app)


def ours(task: Task) -> None:
    """The enrich agent with a stage that does nothing, as a guest in a Faust app."""
    app = faust_app(task, "kafka+batch")
    limits = {"batch_events_max": task.batch_events_max, "batch_bytes_max": task.batch_bytes_max}
    transport.configure(app, **limits)
    streamapp.install(
        app,
        source=task.topic,
        stages=[Mark],
        enriched=task.out,
        dead=f"{task.out}.dead",
        settings=Settings(**limits),
    )
    start(app)


if __name__ == "__main__":
    run({f.__name__: f for f in (faust_take, faust_event, ours)})
