import os

import numpy as np
import pytest
import ring_content

from streamapp.core.errors import Halt, Refuse
from streamapp.core.ranges import OffsetRange
from streamapp.ring import (
    Ring,
    RingReader,
    RingSpec,
    RingWriter,
    SourcePosition,
    new_records,
    pack_source,
)

DIM = 3


def write(writer, n, at=0):
    keys = np.arange(at, at + n)
    return writer.write(ring_content.records(keys), ring_content.vectors(keys, writer.spec.dim))


def drain(reader, rows_max=256):
    parts = []
    while reader.lag:
        parts.append(reader.read(rows_max))
    return np.concatenate([part.frame_id for part in parts]) if parts else np.empty(0, np.uint64)


@pytest.mark.parametrize("capacity", [1, 2, 8, 64])
def test_every_count_around_the_capacity(shm, engine, capacity):
    for n in {0, 1, capacity - 1, capacity, capacity + 1, 3 * capacity + 2}:
        path = shm / f"ring-{n}"
        with RingWriter.open(path, RingSpec(DIM, capacity), engine=engine) as writer:
            reader = RingReader.open(path, engine=engine)
            assert len(reader.read()) == 0
            assert write(writer, n) == 0
            ids = drain(reader)
            assert ids.tolist() == list(range(max(0, n - capacity), n))
            assert reader.lost == n - len(ids)
            assert reader.void == 0
            frames = reader.latest(2 * capacity)
            assert frames.frame_id.tolist() == ids.tolist()
            assert ring_content.wrong_rows(frames) == 0


@pytest.mark.parametrize("step", [1, 3, 7, 8])
def test_batches_that_wrap_and_a_reader_that_keeps_up(shm, engine, step):
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine) as writer:
        reader = RingReader.open(shm / "ring", engine=engine)
        for start in range(0, 20 * step, step):
            assert write(writer, step, start) == start
            frames = reader.read()
            assert frames.frame_id.tolist() == list(range(start, start + step))
            assert ring_content.wrong_rows(frames) == 0
        assert (reader.lost, reader.void, reader.lag) == (0, 0, 0)


def test_a_slow_reader_lapped_many_times_knows_exactly_what_it_lost(shm, engine):
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine) as writer:
        reader = RingReader.open(shm / "ring", engine=engine)
        last, got = -1, 0
        for round_ in range(12):
            write(writer, 29, 29 * round_)
            frames = reader.read(5)
            assert (np.diff(frames.frame_id.astype(np.int64)) > 0).all()
            assert frames.frame_id[0] > last
            last, got = int(frames.frame_id[-1]), got + len(frames)
            assert got + reader.lost + reader.void == reader.position
        got += len(drain(reader))
        assert reader.lost == writer.next_frame_id - got - reader.void
        assert reader.lost > 3 * 16


def test_where_a_reader_starts(shm):
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16)) as writer:
        write(writer, 40)
        oldest = RingReader.open(shm / "ring")
        latest = RingReader.open(shm / "ring", start="latest")
        assert (oldest.position, latest.position, latest.lag) == (24, 40, 0)
        write(writer, 1, 40)
        assert latest.read().frame_id.tolist() == [40]
        assert oldest.read().frame_id.tolist() == list(range(25, 41))
        assert (oldest.lost, latest.lost) == (1, 0)


def test_follow_ends_when_nothing_comes(shm):
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16)) as writer:
        write(writer, 10)
        with RingReader.open(shm / "ring") as reader:
            ids = [frame.frame_id for frames in reader.follow(4, idle_s=0.01) for frame in frames]
    assert ids == list(range(10))


def test_a_second_writer_is_refused_and_a_closed_one_makes_room(shm, engine):
    writer = RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine)
    reader = RingReader.open(shm / "ring")
    assert reader.stat()["writer_alive"]
    with pytest.raises(Refuse, match=f"process {os.getpid()} .* writes the ring") as caught:
        RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine)
    assert caught.value.code == "ring.locked"
    writer.close()
    writer.close()
    assert not reader.stat()["writer_alive"]
    with pytest.raises(Halt, match="closed"):
        write(writer, 1)
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine):
        assert reader.stat()["epoch"] == 2


def test_what_does_not_fit_is_refused(shm, engine):
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine) as writer:
        for records, semantic in (
            (new_records(2), np.zeros((3, DIM))),
            (new_records(2), np.zeros((2, DIM + 1))),
            (np.zeros(2, "<u8"), np.zeros((2, DIM))),
        ):
            with pytest.raises(Refuse) as caught:
                writer.write(records, semantic)
            assert caught.value.code == "ring.rows"
        assert writer.next_frame_id == 0


# ---- positions ----


def test_positions_are_stored_with_their_rows_and_alone(shm, engine):
    nothing = new_records(0), np.zeros((0, DIM))
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine) as writer:
        assert writer.sources() == []
        first, second = (
            SourcePosition("events.raw", 0, 10, 2),
            SourcePosition("events.raw", 7, 5, 1),
        )
        assert writer.write(*nothing, positions=[first, second]) == 0
        assert writer.sources() == [first, second]
        assert writer.source_index("events.raw", 7) == 1
        keys = np.arange(5, 30)
        moved = SourcePosition("events.raw", 7, 30, 2)
        writer.write(
            ring_content.records(keys, 1), ring_content.vectors(keys, DIM), positions=[moved]
        )
        with pytest.raises(Halt, match="made anew") as caught:
            writer.write(*nothing, positions=[first._replace(next_enriched_offset=1)])
        assert caught.value.code == "ring.position"
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine) as writer:
        assert writer.sources() == [first, moved]
        assert RingReader.open(shm / "ring").stat()["sources"] == [first, moved]


def test_the_sources_page_has_64_places_for_short_names(shm):
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16)) as writer:
        assert [writer.source_index("t" * 40, partition) for partition in range(64)] == list(
            range(64)
        )
        for topic, partition in (("t" * 40, 64), ("t" * 41, 0), ("", 0)):
            with pytest.raises(Refuse) as caught:
                writer.source_index(topic, partition)
            assert caught.value.code == "ring.sources"


@pytest.mark.parametrize(
    ("topic", "partition"), [("t\0", 0), ("\ud800", 0), ("t", -1), ("t", 1 << 32)]
)
def test_a_source_that_the_file_cannot_name_is_refused(shm, topic, partition):
    """A name that ends in NUL would be read back as another."""
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16)) as writer:
        with pytest.raises(Refuse) as caught:
            writer.source_index(topic, partition)
        assert caught.value.code == "ring.sources"
        assert writer.sources() == []


def leave_unfinished(writer, keys, done, source=0):
    """The bytes of a commit that was killed when `done` of its stamps were complete."""
    mapping = writer._map
    first, capacity = mapping.word("head"), writer.spec.capacity
    seqs = np.arange(first, first + len(keys), dtype=np.uint64)
    records = ring_content.records(keys, source)
    records["stamp"], records["frame_id"] = 2 * seqs + 1, seqs
    records["stamp"][:done] += 1
    mapping.header["claim"] = first + len(keys)
    mapping.records[seqs % capacity] = records
    mapping.semantic[seqs % capacity] = ring_content.vectors(keys, writer.spec.dim)
    writer.close()


def test_a_restart_keeps_finished_rows_voids_the_others_and_goes_on(shm, engine):
    spec = RingSpec(DIM, 16)
    writer = RingWriter.open(shm / "ring", spec, engine=engine)
    reader = RingReader.open(shm / "ring", engine=engine)
    write(writer, 12)
    writer.write(
        new_records(0), np.zeros((0, DIM)), positions=[SourcePosition("events.raw", 0, 12, 3)]
    )
    leave_unfinished(writer, np.arange(12, 18), done=4)
    assert reader.lag == 12, "an unfinished commit is not to be seen"
    with RingWriter.open(shm / "ring", spec, engine=engine) as writer:
        assert writer.next_frame_id == 18, "claim never goes back"
        assert writer.sources() == [SourcePosition("events.raw", 0, 16, 3)]
        frames = reader.read()
        assert frames.frame_id.tolist() == list(range(2, 16))
        assert (frames.lost, frames.void) == (2, 2)
        assert ring_content.wrong_rows(frames) == 0
        assert write(writer, 1, 16) == 18
        stat = reader.stat()
        counts = {k: stat[k] for k in ("epoch", "recoveries", "frames", "void_frames", "head")}
    assert counts == {"epoch": 2, "recoveries": 1, "frames": 17, "void_frames": 2, "head": 19}


def test_a_position_never_jumps_over_a_hole(shm, engine):
    """Rows beyond a hole are covered by themselves; what may still fill the hole is not."""
    writer = RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine)
    writer.source_index("events.raw", 0)
    writer.source_index("events.raw", 1)
    leave_unfinished(writer, np.array([0, 1, 5, 6, 7]), done=4)
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine) as writer:
        assert writer.sources()[0].next_source_offset == 2
        assert list(writer.covered()) == [
            OffsetRange("events.raw", 0, 0, 2),
            OffsetRange("events.raw", 0, 5, 7),
        ]
        rows = new_records(2)
        rows["source_offset"] = pack_source(1, [3, 4])
        writer.write(rows, np.zeros((2, DIM)), positions=[SourcePosition("events.raw", 1, 2, 9)])
        assert list(writer.covered())[2:] == [
            OffsetRange("events.raw", 1, 0, 2),
            OffsetRange("events.raw", 1, 3, 5),
        ]


def test_damaged_counters_are_refused(shm, engine):
    writer = RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine)
    writer._map.header["claim"] = 9
    writer.close()
    with pytest.raises(Refuse, match="head 0, claim 9"):
        RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine)


# ---- another shape ----


def test_another_shape_is_another_file_and_readers_follow(shm, engine):
    position = SourcePosition("events.raw", 0, 20, 4)
    writer = RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine)
    reader = RingReader.open(shm / "ring", engine=engine)
    write(writer, 20)
    writer.write(new_records(0), np.zeros((0, DIM)), positions=[position])
    views = Ring.open(shm / "ring", engine=engine)
    leave_unfinished(writer, np.arange(20, 24), done=1)
    with RingWriter.open(shm / "ring", RingSpec(DIM + 2, 64), engine=engine) as writer:
        assert writer.sources() == [position._replace(next_source_offset=21)]
        assert write(writer, 5, 21) == 24, "frame ids go on"
        frames = reader.read()
        assert frames.frame_id.tolist() == list(range(8, 21)), "first what the old file still has"
        assert (frames.lost, frames.void) == (8, 3)
        assert frames.semantic.shape[1] == DIM
        frames = reader.read(timeout=5)
        assert frames.frame_id.tolist() == list(range(24, 29))
        assert (frames.lost, frames.void) == (0, 0)
        assert frames.semantic.shape[1] == DIM + 2
        assert ring_content.wrong_rows(frames) == 0
    assert views.records["frame_id"].max() == 23, "old views stay readable: no SIGBUS"
    assert np.isfinite(views.semantic).all()
    assert sorted(path.name for path in shm.iterdir()) == ["ring", "ring.lock"]


def test_a_reader_that_missed_a_whole_file_counts_its_rows(shm, engine):
    reader = None
    for turn, dim in enumerate((2, 3, 4)):
        with RingWriter.open(shm / "ring", RingSpec(dim, 16), engine=engine) as writer:
            reader = reader or RingReader.open(shm / "ring", engine=engine)
            write(writer, 10, 10 * turn)
    ids = [i for frames in reader.follow(idle_s=0.01) for i in frames.frame_id.tolist()]
    assert ids == [*range(10), *range(20, 30)]
    assert (reader.lost, reader.void, reader.position) == (10, 0, 30)


def test_a_ring_begun_anew_is_read_from_its_oldest(shm, engine):
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine) as writer:
        reader = RingReader.open(shm / "ring", engine=engine)
        write(writer, 3)
        assert len(reader.read()) == 3
    (shm / "ring").unlink()
    assert len(reader.read()) == 0, "removed: nothing comes, nothing breaks"
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine) as writer:
        write(writer, 5)
        assert reader.read(timeout=5).frame_id.tolist() == list(range(5))
        assert reader.lost == 0


def test_a_killed_reshape_leaves_nothing_in_the_way(shm, engine):
    (shm / "ring.new").write_bytes(b"half a file")
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine) as writer:
        assert write(writer, 1) == 0
    assert not (shm / "ring.new").exists()


def test_rows_from_before_a_reboot_are_not_trusted(shm, engine, monkeypatch):
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine) as writer:
        write(writer, 9)
        writer.write(
            new_records(0), np.zeros((0, DIM)), positions=[SourcePosition("events.raw", 0, 9, 1)]
        )
    monkeypatch.setattr("streamapp.ring.files.boot_id", lambda: b"another boot.id!")
    with pytest.raises(Refuse, match="last start") as caught:
        RingReader.open(shm / "ring", engine=engine)
    assert caught.value.code == "ring.stale"
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine) as writer:
        assert writer.sources() == []
        assert write(writer, 2) == 9, "only the ids go on"
        assert RingReader.open(shm / "ring").read().frame_id.tolist() == [9, 10]


def test_a_heartbeat_moves_time_and_nothing_else(shm, engine):
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine) as writer:
        reader = RingReader.open(shm / "ring", engine=engine)
        write(writer, 3)
        before = reader.stat()
        writer.heartbeat()
        after = reader.stat()
    assert after["heartbeat_mono_ns"] > before["heartbeat_mono_ns"]
    assert before | {"heartbeat_mono_ns": 0} == after | {"heartbeat_mono_ns": 0}


def test_a_kept_write_of_a_dropped_or_closed_writer_writes_nothing(shm, engine):
    kept = []
    for drop in (lambda writer: writer.close(), lambda _: None):
        writer = RingWriter.open(shm / "ring", engine=engine)
        records, vectors = new_records(1), np.ones((1, writer.spec.dim), "<f4")
        kept.append(writer.write)
        assert kept[-1](records, vectors) + 1 == writer.next_frame_id
        drop(writer)
        del writer
        with pytest.raises(Halt, match="closed|gone"):
            kept[-1](records, vectors)
    with RingWriter.open(shm / "ring", engine=engine) as writer:  # its lock went with it
        head = writer.next_frame_id
        for write in kept:
            with pytest.raises(Halt, match="closed|gone"):
                write(records, vectors)
        assert writer.next_frame_id == head


def test_write_says_what_it_takes_by_name_too(shm, engine):
    with RingWriter.open(shm / "ring", engine=engine) as writer:
        records, vectors = new_records(1), np.ones((1, writer.spec.dim), "<f4")
        assert writer.write(records=records, semantic=vectors) == 0
        assert writer.write(records, semantic=vectors, positions=[], extra={}) == 1
        for wrong in ({"vectors": vectors}, {}):
            with pytest.raises(TypeError):
                writer.write(records, **wrong)
