"""Where a new ring begins, through the readers of real logs; and which rows are the newest."""

import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mirroring import Log, enriched

from streamapp.agents.backfill import _newest_rows, newest, replay
from streamapp.topics.catalogue import ENRICHED, RAW
from streamapp.topics.enriched import decode
from streamapp.transport import Outgoing, TopicSpec, open_admin, open_producer, open_reader


@pytest.fixture(params=["local", "kafka"])
def url(request, tmp_path):
    if request.param == "local":
        return f"local://{tmp_path / 'log'}"
    return f"kafka+batch://{request.getfixturevalue('kafka').bootstrap}"


async def filled(url, records_by_partition):
    """A new topic with these records; its name."""
    name = f"enriched-{uuid.uuid4().hex}"
    admin, producer = open_admin(url), open_producer(url)
    await admin.start()
    await admin.create(TopicSpec(name, len(records_by_partition), 1 << 20))
    await admin.stop()
    await producer.start()
    for partition, records in enumerate(records_by_partition):
        out = [
            Outgoing(r.value, None, r.headers, partition, timestamp_ms=r.timestamp) for r in records
        ]
        for at in range(0, len(out), 100):
            await producer.send(name, out[at : at + 100])
    await producer.stop()
    return name


async def test_the_newest_of_all_partitions_come_in_order_of_time(url):
    old = [enriched(i, 2 * i, 2 * i + 2, ingest_ms=1000 + 10 * i) for i in range(400)]
    new = [enriched(i, i, i + 1, partition=1, ingest_ms=4905 + 10 * i) for i in range(8)]
    name = await filled(url, [old, new, []])
    reader = open_reader(url)
    await reader.start()
    try:
        ends = {p: (await reader.bounds(name, p))[1] for p in range(3)}
        begin = await newest(reader, name, RAW, ends, 27)
        starts = {p.partition: p.next_enriched_offset for p in begin}
        batches = [batch async for batch in replay(reader, name, starts, ends)]
    finally:
        await reader.stop()
    # All 8 of partition 1, from 4905 ms on, and 19 of partition 0, two in each record to 4991 ms.
    assert [p[1:] for p in begin] == [(0, 781, 390), (1, 0, 0), (2, 0, 0)]
    came = [record for batch in batches for record in batch]
    assert len(came) == 10 + 8
    assert [r.timestamp for r in came] == sorted(r.timestamp for r in came)
    rows = [decode(record).rows.num_rows for record in came]
    assert sum(rows) == 28, "of the first record one row is too old"


times = st.lists(st.lists(st.integers(0, 20), max_size=12), max_size=4)


@given(times, st.integers(1, 30))
def test_the_newest_rows_are_the_ends_of_their_partitions(partitions, frames):
    by_partition = {p: np.sort(np.array(t, np.int64)) for p, t in enumerate(partitions)}
    chosen = _newest_rows(by_partition, frames)
    everything = sorted(t for times in by_partition.values() for t in times.tolist())
    kept = [t for p, n in chosen.items() for t in by_partition[p][len(by_partition[p]) - n :]]
    assert sorted(kept) == everything[-frames:]


async def test_what_a_zombie_wrote_again_is_not_among_the_newest():
    """A worker that slept past its session publishes late what its successor has done long ago."""
    log = Log(enriched(0, 0, 10), enriched(1, 10, 20, ingest_ms=20), enriched(2, 0, 10))
    [begin] = await newest(log, ENRICHED, RAW, {0: 3}, 5)
    assert begin == (RAW, 0, 15, 1)
    [begin] = await newest(log, ENRICHED, RAW, {0: 3}, 12)
    assert begin == (RAW, 0, 8, 0)
