"""Whose frames a ring holds, seen from a real log that may be another one by now."""

import numpy as np
import pytest

from streamapp.agents.kinship import holds_this_log
from streamapp.ring import RingSpec, RingWriter, SourcePosition, new_records, pack_source
from streamapp.topics.catalogue import ENRICHED, RAW
from streamapp.transport import TopicSpec, open_admin, open_reader

ONE = np.ones((1, 4), np.float32)


@pytest.fixture
def ring(tmp_path):
    with RingWriter.open(tmp_path / "x.ring", RingSpec(4, 16)) as writer:
        yield writer


@pytest.fixture
async def reader(tmp_path):
    """Of a log with two partitions."""
    url = f"local://{tmp_path / 'log'}"
    admin, reader = open_admin(url), open_reader(url)
    await admin.start()
    for name in (RAW, ENRICHED):
        await admin.create(TopicSpec(name, 2, 1 << 20))
    await admin.stop()
    await reader.start()
    yield reader
    await reader.stop()


def write(ring, topic, partition):
    records = new_records(1)
    records["source_offset"] = pack_source(ring.source_index(topic, partition), [0])
    ring.write(records, ONE, positions=[SourcePosition(topic, partition, 0, 0)])


async def test_an_empty_ring_may_be_any_log_s(ring, reader):
    assert await holds_this_log(ring, reader, ENRICHED)


async def test_a_source_that_the_log_has_not_is_another_log_s(ring, reader):
    write(ring, "of.somebody.else", 0)
    assert not await holds_this_log(ring, reader, ENRICHED)


async def test_a_partition_that_the_log_has_not_is_another_log_s(ring, reader):
    """A home was removed and its topics made anew with fewer partitions; the ring is in memory."""
    write(ring, RAW, 2)
    assert not await holds_this_log(ring, reader, ENRICHED)


async def test_frames_of_no_source_are_no_log_s(ring, reader):
    ring.write(new_records(1), ONE)
    assert not await holds_this_log(ring, reader, ENRICHED)
