"""Tells every record it receives, and how often it asks for more when there is nothing."""

import asyncio
import hashlib
import time

from programs.common import OURS, bytes_topic, make_app, say, topic_name

from streamapp import transport

app = make_app()
polls = 0


def told(word, partition, record, timestamp_ms):
    value = record.value
    say(
        word,
        at=[partition, record.offset],
        key=None if record.key is None else record.key.decode(),
        value=None if value is None else hashlib.sha256(value).hexdigest(),
        headers=[[name, content.decode()] for name, content in record.headers or ()],
        timestamp_ms=timestamp_ms,
    )


@app.agent(bytes_topic(app, "records"))
async def tell(stream):
    async for event in stream.events():
        message = event.message
        told("RECORD", message.partition, message, round(message.timestamp * 1000))


if OURS:
    transport.configure(app, coalesce={topic_name("slices")})

    @app.agent(transport.slice_topic(app, topic_name("slices")))
    async def tell_slices(stream):
        async for event in stream.noack().events():
            for record in event.value.records:
                told("SLICED", event.message.partition, record, record.timestamp)
            event.ack()


@app.task
async def watch():
    fetch = app.consumer._getmany

    async def counted(*arguments, **options):
        global polls  # noqa: PLW0603
        polls += 1
        return await fetch(*arguments, **options)

    app.consumer._getmany = counted
    while True:
        started, busy, before = time.monotonic(), time.process_time(), polls
        await asyncio.sleep(0.2)
        elapsed = time.monotonic() - started
        say("PACE", polls=(polls - before) / elapsed, cpu=(time.process_time() - busy) / elapsed)
