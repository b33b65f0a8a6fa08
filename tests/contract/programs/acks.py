"""Acknowledges out of order, seeks back while it runs, and holds half a batch until it is ended."""

import asyncio
import os

from faust.types import TP
from programs.common import GROUP, OURS, bytes_topic, make_app, say, topic_name

from streamapp.transport import open_admin

COUNT = 10
app = make_app(topic_partitions=1, stream_wait_empty=False)


async def committed(name):
    await app.consumer.commit()  # may only wait for one that began before
    await app.consumer.commit()
    admin = open_admin(os.environ["CLIENT"])
    await admin.start()
    positions = await admin.committed(GROUP)
    await admin.stop()
    return positions.get((topic_name(name), 0), 0)


@app.agent(bytes_topic(app, "disorder"))
async def acknowledge_out_of_order(stream):
    held = []
    async for event in stream.noack().events():
        held.append(event)
        if len(held) < COUNT:
            continue
        for number in (9, 5, 6, 1, 0, 2, 3, 8, 7, 4):
            held[number].ack()
            say("COMMITTED", acked=number, committed=await committed("disorder"))


@app.agent(bytes_topic(app, "again"))
async def read_again(stream):
    sought = False
    async for event in stream.events():
        offset = event.message.offset
        say("READ", offset=offset)
        if offset == COUNT - 1 and not sought:
            sought = True
            if OURS:  # seek.within
                await go_back("again")
            else:
                app.loop.call_later(0.5, lambda: app.add_future(go_back("again")))


async def go_back(name):
    await app.consumer.seek(TP(topic_name(name), 0), 3)


@app.agent(bytes_topic(app, "back"))
async def acknowledge_one_again(stream):
    before = None
    async for event in stream.noack().events():
        offset = event.message.offset
        if before is None:
            event.ack()
            if offset == COUNT - 1:
                before = await committed("back")
                app.loop.call_later(0.5, lambda: app.add_future(go_back("back")))
        elif offset == 3:
            event.ack()
            say("BACK", before=before, after=await committed("back"))


@app.agent(bytes_topic(app, "half"))
async def acknowledge_half(stream):
    held = []
    async for event in stream.noack().events():
        held.append(event)
        say("HALF", offset=event.message.offset)
        if event.message.offset < 4:
            event.ack()
        if event.message.offset == COUNT - 1:
            await asyncio.Event().wait()  # in work until the process ends
