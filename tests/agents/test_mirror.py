"""The mirror on a ring of its own: each event once, whole batches, the newest of a new ring."""

import asyncio

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mirroring import DIM, SPEC, Event, Log, enriched, floats, mirroring, vector_of

from streamapp.agents import feed
from streamapp.core.batch import vector_column
from streamapp.core.errors import Refuse
from streamapp.core.metrics import Metrics
from streamapp.ring import Column, RingReader, RingSpec, RingWriter, RowFlag

RECORDS = [enriched(0, 0, 3), enriched(1, 3, 5), enriched(2, 5, 6)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "test.ring"


async def test_records_that_come_again_after_a_seek_back_are_skipped(path):
    zero, one, two = RECORDS
    async with mirroring(path, Log()) as mirror:
        await mirror.feed(Event(zero, one), Event(zero), Event(one, two))
        assert await mirror.positions() == [3]
        assert mirror.offsets() == list(range(6))


async def test_a_restart_goes_on_where_the_ring_stands(path):
    log = Log()
    async with mirroring(path, log) as mirror:
        await mirror.feed(Event(RECORDS[0]))
    overlapping = enriched(1, 2, 5, ingest_ms=3)
    log.add(0, RECORDS[0], overlapping)
    async with mirroring(path, log) as mirror:
        assert await mirror.positions() == [1], "the log's end was not asked: the ring knows"
        await mirror.feed(Event(overlapping))
        assert mirror.offsets() == [0, 1, 2, 3, 4]


async def test_every_frame_has_its_source_and_its_vector(path, engine):
    async with mirroring(path, Log(), partitions=(0, 3), engine=engine) as mirror:
        await mirror.feed(Event(*RECORDS), Event(enriched(7, 40, 44, partition=3), partition=3))
        assert mirror.offsets(0) == [0, 1, 2, 3, 4, 5]
        assert mirror.offsets(3) == [40, 41, 42, 43]
        frames = mirror.frames()
        expected = np.stack([vector_of(o) for o in mirror.offsets()])
        np.testing.assert_array_equal(frames.semantic, expected)
        assert (frames.flags == RowFlag.EMBEDDED).all()
        assert sorted(await mirror.positions(0, 3)) == [3, 8]


async def test_a_slice_is_one_commit(path):
    async with mirroring(path, Log()) as mirror:
        await mirror.until(mirror.agent.positions, "the partition to be known")
        with RingReader.open(path) as reader:
            wakes = int(reader._map.header["wake"])
            await mirror.feed(Event(*(enriched(i, 3 * i, 3 * i + 3) for i in range(10))))
            assert reader.stat()["frames"] == 30
            beats = 2  # a heartbeat or two may fall into it
            assert int(reader._map.header["wake"]) - wakes <= 1 + beats


@given(sizes=st.lists(st.integers(0, 70), min_size=1, max_size=6), limit=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
async def test_no_slice_is_too_large_for_the_ring(sizes, limit, tmp_path_factory):
    path = tmp_path_factory.mktemp("ring") / "r"
    firsts = np.cumsum([0, *sizes]).tolist()
    records = [enriched(i, firsts[i], firsts[i] + n) for i, n in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "COMMIT_ROWS_MAX", limit)
        async with mirroring(path, Log()) as mirror:
            with RingReader.open(path) as reader:
                await mirror.feed(Event(*records))
                assert reader.stat()["frames"] == sum(sizes)
                [source] = reader.stat()["sources"]
            assert source[2:] == (sum(sizes), len(sizes))
            assert mirror.offsets() == list(range(max(0, sum(sizes) - 64), sum(sizes)))


async def test_what_the_log_dropped_meanwhile_is_counted_and_no_gap_for_ever(path):
    metrics = Metrics()
    async with mirroring(path, Log(), metrics=metrics) as mirror:
        await mirror.feed(Event(RECORDS[0]), Event(enriched(5, 20, 22)), Event(enriched(6, 22, 23)))
        assert mirror.offsets() == [0, 1, 2, 20, 21, 22]
        with RingReader.open(path) as reader:
            assert reader.stat()["sources"][0][2:] == (23, 7)
    assert b"streamapp_lost_events_total 17.0" in metrics.text()


async def test_vectors_of_the_workflow_are_columns(path):
    spec = RingSpec(DIM, 64, extra=(Column("scores", 2), Column("half", 3, "<f2")))
    some = vector_column(np.array([[1, 2], [np.nan, 0]], np.float32))
    half = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6, dtype=np.float16)), 3)
    with_all = enriched(0, 0, 2, columns={"scores": some, "half": half})
    without = enriched(1, 2, 3)
    other_model = enriched(2, 3, 4, dim=DIM + 1)
    other_type = enriched(3, 4, 5, columns={"scores": floats([9.0])})
    async with mirroring(path, Log(), spec=spec) as mirror:
        await mirror.feed(Event(with_all, without, other_model, other_type))
        frames = mirror.frames()
    nan = np.nan
    np.testing.assert_array_equal(frames.scores, [[1, 2]] + [[nan, nan]] * 4)
    np.testing.assert_array_equal(frames.half, [[0, 1, 2], [3, 4, 5]] + [[nan] * 3] * 3)
    assert (frames.flags & RowFlag.EMBEDDED).tolist() == [1, 1, 1, 0, 1]
    assert frames.semantic[3].tolist() == [0] * DIM


async def test_a_new_ring_gets_the_newest_frames_of_all_partitions(path):
    log = Log()
    log.add(0, *(enriched(i, 10 * i, 10 * i + 10, ingest_ms=1000 * i) for i in range(100)))
    newer = (enriched(i, 10 * i, 10 * i + 10, partition=1, ingest_ms=97_500 + i) for i in range(3))
    log.add(1, *newer)
    spec = RingSpec(DIM, 32)
    async with mirroring(path, log, partitions=(0, 1, 2), spec=spec) as mirror:
        assert await mirror.positions(0, 1, 2) == [100, 3, 0]
        await mirror.until(lambda: len(mirror.offsets()) == 32, "32 frames")
        # Newest by ingest time: 98 s and 99 s of partition 0, then those of 97.5 s.
        assert mirror.offsets(0) == list(range(980, 1000))
        assert mirror.offsets(1) == list(range(18, 30))
        with RingReader.open(path) as reader:
            assert reader.stat()["frames"] == 32, "no more than were wanted"
            assert sorted(source[1:] for source in reader.stat()["sources"]) == [
                (0, 1000, 100),
                (1, 30, 3),
                (2, 0, 0),
            ]
        assert mirror.offsets() == [*range(18, 30), *range(980, 1000)], "in order of time"
    assert min(offset for partition, offset in log.reads if partition == 0) > 80


async def test_what_comes_while_a_new_ring_is_filled_is_not_lost(path):
    log = Log(*(enriched(i, i, i + 1) for i in range(200)))

    class Torrent(Log):
        async def read(self, topic, partition, offset, **limits):
            slice_ = await log.read(topic, partition, offset, **limits)
            at = len(log.of[topic, partition])
            log.add(partition, enriched(at, at, at + 1))
            return slice_

    torrent = Torrent()
    torrent.of = log.of
    async with mirroring(path, torrent) as mirror:
        [start] = await mirror.positions()
        assert start == 200
        await mirror.until(mirror.agent.positions, "the fill to begin")
        records = log.of["events.enriched", 0][start:]
        assert records, "the torrent"
        log.add(0, *(enriched(i, i, i + 1) for i in range(start + len(records), start + 9)))
        await mirror.feed(*(Event(record) for record in log.of["events.enriched", 0][start:]))
        assert mirror.offsets() == list(range(145, 209))
        with RingReader.open(path) as reader:
            assert reader.stat()["frames"] == 64 + 9


async def test_a_log_that_lost_its_beginning_or_has_nothing(path):
    log = Log(*(enriched(i, i, i + 1) for i in range(50, 60)))
    log.begin = {0: 50, 1: 7}
    async with mirroring(path, log, partitions=(0, 1)) as mirror:
        assert await mirror.positions(0, 1) == [60, 7]
        await mirror.until(lambda: len(mirror.offsets()) == 10, "what is kept")
        await mirror.feed(Event(enriched(7, 4, 5, partition=1), partition=1))
        assert mirror.offsets(1) == [4]


async def test_a_partition_of_rejects_only_is_no_endless_search(path):
    log = Log(*(enriched(i, i, i) for i in range(9000)))
    async with mirroring(path, log, spec=RingSpec(DIM, 16)) as mirror:
        await mirror.until(mirror.agent.positions, "the partition to be known")
        assert await mirror.positions() == [9000]
    assert min(offset for _, offset in log.reads) > 6000


async def test_a_ring_that_is_removed_is_built_anew_and_filled(path):
    log = Log(*(enriched(i, 3 * i, 3 * i + 3) for i in range(8)))
    async with mirroring(path, log) as mirror:
        await mirror.until(lambda: len(mirror.offsets()) == 24, "the ring to be filled")
        with RingReader.open(path) as reader:
            assert len(reader.read(24)) == 24
            path.unlink()
            await mirror.until(lambda: path.exists() and len(mirror.offsets()) == 24, "a new ring")
            assert len(reader.read(24, timeout=5)) == 24, "readers follow to the new file"
        await mirror.feed(Event(enriched(8, 24, 26)))
        assert mirror.offsets() == list(range(26))


async def test_a_ring_that_is_replaced_by_an_older_copy_goes_on_without_a_gap(path):
    log = Log(*(enriched(i, 3 * i, 3 * i + 3) for i in range(4)))
    async with mirroring(path, log) as mirror:
        await mirror.until(lambda: len(mirror.offsets()) == 12, "the ring to be filled")
        older = path.read_bytes()
        log.add(0, enriched(4, 12, 15))
        await mirror.feed(Event(enriched(4, 12, 15)))
        copy = path.with_name("copy")
        copy.write_bytes(older)
        copy.chmod(0o640)
        copy.rename(path)
        await mirror.until(lambda: mirror.offsets() == list(range(15)), "the same frames")


async def test_an_idle_ring_shows_that_its_writer_lives(path):
    async with mirroring(path, Log()) as mirror:
        with RingReader.open(path) as reader:
            first = reader.stat()["heartbeat_mono_ns"]
            await mirror.until(lambda: reader.stat()["heartbeat_mono_ns"] > first, "a heartbeat")
            await mirror.until(
                lambda: reader.stat()["heartbeat_mono_ns"] > first + 1_500_000_000, "another"
            )
            assert reader.stat()["last_commit_unix_us"] == 0, "a heartbeat is no commit"


async def test_another_log_s_ring_is_started_anew(path):
    first = Log(*RECORDS)
    async with mirroring(path, first) as mirror:
        await mirror.until(lambda: len(mirror.offsets()) == 6, "the first log's frames")
    other = Log(*(enriched(i, 3 * i, 3 * i + 3, ingest_ms=9_000) for i in range(4)))
    async with mirroring(path, other) as mirror:
        await mirror.until(lambda: len(mirror.offsets()) == 12, "the other log's frames")
        assert (mirror.frames().ingest_us >= 9_000_000).all()
        assert SPEC.capacity == 64


async def test_assignments_and_a_removed_ring_at_once(path):
    """Both open the ring and read the log; one waits for the other."""
    log = Log(*(enriched(i, 3 * i, 3 * i + 3) for i in range(8)))
    async with mirroring(path, log) as mirror:
        await mirror.until(lambda: len(mirror.offsets()) == 24, "the ring to be filled")
        before = path.stat().st_ino
        path.unlink()
        while not path.exists() or path.stat().st_ino == before:
            assert await mirror.positions() == [8]
            await asyncio.sleep(0)
        await mirror.until(lambda: len(mirror.offsets()) == 24, "a new ring")
        await mirror.feed(Event(enriched(7, 21, 24)), Event(enriched(8, 24, 26)))
        assert mirror.offsets() == list(range(26))


def test_a_ring_out_of_sight_is_not_there(tmp_path):
    """Its folder was replaced, by a link that leads nowhere: said by who opens it anew."""
    folder = tmp_path / "folder"
    with RingWriter.open(folder / "x.ring", SPEC) as ring:
        writing = feed.Feed(ring, Metrics())
        assert writing.beat()
        folder.rename(tmp_path / "away")
        folder.symlink_to(folder)
        assert not writing.beat()
        writing.close()
        with pytest.raises(Refuse, match="is no folder"):
            RingWriter.open(folder / "x.ring", SPEC)
