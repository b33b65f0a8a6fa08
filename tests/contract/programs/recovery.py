"""A table with its changelog, a held topic and, on our transports, a coalesced one, in one app."""

import os

from programs.common import OURS, bytes_topic, make_app, say, topic_name

from streamapp import transport

app = make_app(stream_wait_empty=False)
counts = app.Table("counts", default=int)


@app.agent(app.topic(topic_name("words"), key_type=str, value_type=int))
async def count(stream):
    async for key, value in stream.items():
        counts[key] += 1
        say("COUNT", key=key, count=counts[key], value=value)


@app.agent(bytes_topic(app, "held"))
async def hold(stream):
    held = []
    async for event in stream.noack().events():
        say("HELD", offset=event.message.offset)
        if event.message.offset < int(os.environ["ACK_BELOW"]):
            event.ack()
        else:
            held.append(event)


if OURS:
    transport.configure(app, coalesce={topic_name("raw")}, batch_events_max=100)

    @app.agent(transport.slice_topic(app, topic_name("raw")))
    async def take(stream):
        held = []
        async for event in stream.noack().events():
            piece = event.value
            say("SLICE", range=list(piece.range)[1:], offsets=[r.offset for r in piece.records])
            if piece.range.next <= int(os.environ["ACK_BELOW"]) * 100:
                event.ack()
            else:
                held.append(event)
