"""Coalesced topics with small limits and a very patient wait, beside a plain one."""

from programs.common import bytes_topic, make_app, say, topic_name

from streamapp import transport

PATIENT_MS = 3_600_000

app = make_app(topic_partitions=1)
held = []
transport.configure(
    app,
    coalesce={topic_name(name) for name in ("many", "large", "grow")},
    batch_events_max=100,
    batch_bytes_max=250_000,
    batch_wait_ms_max=PATIENT_MS,
)


def slices_of(name):
    return app.agent(transport.slice_topic(app, topic_name(name)), name=name)


def told(name, piece):
    sizes = [len(record.value or b"") + len(record.key or b"") for record in piece.records]
    offsets = [record.offset for record in piece.records]
    at = piece.range.first, piece.range.next
    say(name.upper(), at=at, partition=piece.range.partition, offsets=offsets, sizes=sizes)


@slices_of("many")
async def many(stream):
    async for event in stream.noack().events():
        told("many", event.value)
        event.ack()


@slices_of("large")
async def large(stream):
    async for event in stream.noack().events():
        told("large", event.value)
        event.ack()


@slices_of("grow")
async def grow(stream):
    async for event in stream.noack().events():
        told("grow", event.value)
        held.append(event)


@app.agent(bytes_topic(app, "release"))
async def release(stream):
    async for event in stream.events():
        say("RELEASE", offset=event.message.offset, value=event.value.decode())
        while held:
            held.pop(0).ack()
