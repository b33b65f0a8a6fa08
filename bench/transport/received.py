"""Contenders that read a topic of events and decode them: bare aiokafka, Faust in two ways, ours."""

import asyncio
import logging
import os
import tempfile
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from transport.meter import EVENT_BYTES_MAX, Meter, Task, decode, run

from streamapp import transport
from streamapp.core.slice import Record, Slice
from streamapp.topics.wire import decode_record, decode_slice

FETCH_BYTES = 8 << 20


def getmany(task: Task) -> None:
    """``aiokafka.getmany`` and nothing else: no group, no acknowledgement, no commits."""
    asyncio.run(_getmany(task))


async def _getmany(task: Task) -> None:
    meter = Meter(task.events)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=task.bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    await consumer.start()
    consumer.assign([TopicPartition(task.topic, n) for n in range(task.partitions)])
    while True:
        fetched = await consumer.getmany(timeout_ms=1000, max_records=task.batch_events_max)
        for tp, records in fetched.items():
            if task.decode:
                decode(tp.topic, tp.partition, records)
            meter.add(len(records))


def faust_app(task: Task, scheme: str) -> Any:
    """A Faust app with nothing on that costs; compiled as it comes from PyPI."""
    return faust.App(
        f"bench-{os.getpid()}",
        broker=f"{scheme}://{task.bootstrap}",
        datadir=tempfile.mkdtemp(prefix="bench-faust-"),
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=FETCH_BYTES,
        broker_max_poll_records=4096,
        stream_buffer_maxsize=16_384,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        producer_linger=0.01,
        producer_max_batch_size=1 << 20,
    )


def start(app: Any) -> None:
    """Run the worker in this process until it ends; its debug messages cost even when unseen."""
    logging.disable(logging.WARNING)
    faust.Worker(
        app, loglevel="ERROR", quiet=True, redirect_stdouts=False
    ).execute_from_commandline()


def faust_event(task: Task) -> None:
    """Plain Faust: one event after the other, each decoded as it comes."""
    app, meter = faust_app(task, "kafka"), Meter(task.events)

    @app.agent(app.topic(task.topic, value_type=bytes, value_serializer="raw"))
    async def take(stream: Any) -> None:
        async for event in stream.events():
            if task.decode:
                decode_record(raw_record(event), event_bytes_max=EVENT_BYTES_MAX)
            meter.add(1)

    start(app)


def raw_record(event: Any) -> Record:
    """The Kafka record of a Faust event; Faust counts time in seconds."""
    message = event.message
    return Record(message.offset, int(message.timestamp * 1000), message.key, event.value)


def faust_take(task: Task) -> None:
    """What Faust has against one await per event: ``take(256)``, decoded as one batch."""
    app, meter = faust_app(task, "kafka"), Meter(task.events)

    @app.agent(app.topic(task.topic, value_type=bytes, value_serializer="raw"))
    async def take(stream: Any) -> None:
        async for values in stream.take(256, within=1.0):
            if task.decode:
                records = [Record(n, 0, None, value) for n, value in enumerate(values)]
                decode(task.topic, 0, records)
            meter.add(len(values))

    start(app)


def ours(task: Task) -> None:
    """Faust on ``kafka+batch://``: each Slice decoded and then acknowledged."""
    app, meter = faust_app(task, "kafka+batch"), Meter(task.events)
    transport.configure(
        app,
        coalesce={task.topic},
        batch_events_max=task.batch_events_max,
        batch_bytes_max=task.batch_bytes_max,
    )

    @app.agent(transport.slice_topic(app, task.topic))
    async def take(stream: Any) -> None:
        async for event in stream.noack().events():
            slice_: Slice = event.value
            if task.decode:
                decode_slice(slice_, event_bytes_max=EVENT_BYTES_MAX)
            event.ack()
            meter.add(len(slice_))

    start(app)


if __name__ == "__main__":
    run({f.__name__: f for f in (getmany, faust_event, faust_take, ours)})
