"""Exports on Apache Kafka: two exporters share the partitions, and one takes over from the other."""

import asyncio
from uuid import uuid4

import pytest
from clients import member_log
from exporting import Source, export_of, specs

from streamapp.topics.catalogue import ENRICHED

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def log(kafka):
    """On the broker that tests share: others may write there, too."""
    async with member_log(kafka.url, specs()) as log:
        yield log


async def test_who_takes_over_posts_the_same_and_goes_on(log, receiver, exporting):
    mark = uuid4().hex
    export = export_of(
        receiver, f"x{mark[:8]}", begin="now", batch_size=2, where=f"conversation = '{mark}'"
    )
    let, held = asyncio.Event(), []

    async def once(request):
        held.append(request.headers["webhook-id"])
        await let.wait()
        return 500

    first = await exporting(export)
    async with asyncio.timeout(60):
        while len(await log.admin.committed(export.group)) < 4:
            await asyncio.sleep(0.05)
    receiver.answers.append(once)
    source, sent = Source(log), []
    sent += await source.send("a", "b", "c", conversation=[mark] * 3)
    await receiver.until(lambda: held)
    for run in first._runs:  # as when its process is killed: no commit, no farewell to the lanes
        for _, task in run.lanes._lanes.values():
            task.cancel()
        run.lanes._lanes = {}
    await first.stop(1)
    await exporting(export)
    for partition in range(4):
        sent += await source.send("d", partition=partition, conversation=[mark])
    await receiver.until(lambda: set(receiver.ids()) >= set(sent))
    let.set()
    assert len(receiver.ids()) == len(sent)
    assert held[0] in {identity for identity, _, _ in receiver.deliveries}
    done = await log.admin.committed(export.group)
    assert {topic for topic, _ in done} == {ENRICHED}
