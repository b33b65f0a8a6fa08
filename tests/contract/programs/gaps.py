"""Topics whose offsets have holes: acknowledges all but one record, as single ones and as Slices."""

import os

from programs.common import OURS, bytes_topic, make_app, say, topic_name

from streamapp import transport

HELD = int(os.environ["HELD"])

app = make_app(topic_partitions=1, stream_wait_empty=False)
held = []


@app.agent(bytes_topic(app, "plain"))
async def plain(stream):
    async for event in stream.events():
        say("PLAIN", offset=event.message.offset)


@app.agent(bytes_topic(app, "all-but-one"))
async def all_but_one(stream):
    async for event in stream.noack().events():
        offset = event.message.offset
        say("ONE", offset=offset)
        if offset == HELD:
            held.append(event)
        else:
            event.ack()


def slices_of(name):
    async def take(stream):
        async for event in stream.noack().events():
            piece = event.value
            offsets = [record.offset for record in piece.records]
            at = piece.range.first, piece.range.next
            say(name.upper(), at=at, partition=piece.range.partition, offsets=offsets)
            event.ack()

    app.agent(transport.slice_topic(app, topic_name(name)), name=name)(take)


if OURS:
    names = "transactions", "compacted"
    transport.configure(app, coalesce={topic_name(name) for name in names}, batch_events_max=4)
    for name in names:
        slices_of(name)
