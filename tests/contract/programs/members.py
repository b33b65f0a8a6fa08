"""Tells every record and who had it in which generation, while members come and go."""

import asyncio

from programs.common import OURS, bytes_topic, make_app, say, topic_name

from streamapp import transport

app = make_app(topic_partitions=4)


@app.agent(bytes_topic(app, "load"))
async def tell(stream):
    async for event in stream.events():
        told("RECORD", event.message, [event.message.offset], [event.value])
        await asyncio.sleep(0.001)


def told(word, message, offsets, values):
    say(
        word,
        generation=message.generation_id,
        partition=message.partition,
        offsets=offsets,
        values=list(map(int, values)),
    )


if OURS:
    transport.configure(app, coalesce={topic_name("raw")}, batch_events_max=20)

    @app.agent(transport.slice_topic(app, topic_name("raw")))
    async def take(stream):
        async for event in stream.noack().events():
            records = event.value.records
            offsets = [record.offset for record in records]
            told("SLICE", event.message, offsets, [record.value for record in records])
            await asyncio.sleep(0.01)
            event.ack()
