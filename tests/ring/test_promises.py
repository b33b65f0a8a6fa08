"""What is promised whatever anybody does: exact counts, a writer that nobody stops, files that change."""

import json
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
import ring_content
import tear
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machine import stop

from streamapp.ring import Column, Ring, RingReader, RingSpec, RingWriter

SHM_BYTES = 800 << 20
GIVEN = st.integers(0, 40)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), GIVEN),
        st.tuples(st.just("commit"), GIVEN, st.integers(0, 1 << 16)),
        st.tuples(st.just("abandon"), GIVEN),
        st.tuples(st.just("read"), st.integers(1, 40)),
    ),
    max_size=40,
)


class Counted:
    """A ring, one reader of it, and which rows of all that were written are void."""

    def __init__(self, folder, capacity, engine):
        self.writer = RingWriter.open(folder / "ring", RingSpec(3, capacity), engine=engine)
        self.reader = RingReader.open(folder / "ring", engine=engine)
        self.whole = []  # of each frame id: is it valid?
        self.ids = []

    def write(self, n):
        assert self.writer.write(*self.rows(n)) == len(self.whole)
        self.whole += [True] * n

    def rows(self, n):
        keys = np.arange(len(self.whole), len(self.whole) + n)
        return ring_content.records(keys), ring_content.vectors(keys, 3)

    def reserved(self, n):
        return self.writer.reserve(max(1, min(n, self.writer.spec.commit_rows_max)))

    def commit(self, n, bits):
        with self.reserved(n) as rows:
            records, rows.semantic[:] = self.rows(len(rows))
            keep = [bool(bits >> at % 16 & 1) for at in range(len(rows))]
            assert rows.commit(records, keep=np.array(keep)) == len(self.whole)
        self.whole += keep

    def abandon(self, n):
        with self.reserved(n) as rows:
            assert rows.first == len(self.whole)
        self.whole += [False] * len(rows)

    def read(self, n):
        before = self.reader.position
        frames = self.reader.read(n)
        assert ring_content.wrong_rows(frames) == 0
        self.ids += frames.frame_id.tolist()
        oldest = max(before, len(self.whole) - self.writer.spec.capacity)
        end = min(len(self.whole), oldest + n)
        there = [at for at in range(oldest, end) if self.whole[at]]
        assert frames.frame_id.tolist() == there
        assert (frames.lost, frames.void) == (oldest - before, end - oldest - len(there))
        assert self.reader.position == end


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=operations, capacity=st.sampled_from([1, 2, 4, 16]), engine=st.sampled_from(["c", "twin"])
)
def test_every_frame_is_read_lost_or_void_exactly_once(steps, capacity, engine):
    """Nothing, one, a full ring more or less one, and rows that wrap: a reader knows what it has not."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        counted = Counted(Path(folder), capacity, engine)
        for operation, *arguments in steps:
            getattr(counted, operation)(*arguments)
        while counted.reader.lag:
            counted.read(40)
        counted.writer.close()
        assert counted.ids == sorted(set(counted.ids))
        read, reader = len(counted.ids), counted.reader
        assert reader.lost == len(counted.whole) - read - reader.void
        assert reader.position == len(counted.whole)


def test_a_stopped_reader_does_not_hold_up_the_writer(shm, start):
    """Twenty laps while it is stopped; afterwards it goes on and knows what it lost."""
    capacity, frames = 64, 20 * 64
    with RingWriter.open(shm / "ring", tear.spec(capacity)) as writer:
        reader = start("tear.py", "watch", shm / "ring", capacity, "c", frames + 256, 1)
        assert reader.stdout.readline() == "ready\n"
        stop(reader.pid)
        tear.write(writer, frames, 1)
        assert writer.next_frame_id == frames
        assert reader.poll() is None
        reader.send_signal(signal.SIGCONT)
        rows = tear.Rows(writer.spec, 256)
        rows.fill(frames)
        records, semantic, extra = rows.piece(slice(0, 256))
        writer.write(records, semantic, extra=extra)
        found = json.loads(reader.stdout.readline())
    assert (found["torn"], found["void"]) == (0, 0)
    assert found["lost"] >= frames - capacity
    assert found["accepted"] + found["lost"] == frames + 256


def test_a_reader_in_another_process_follows_through_every_shape(shm, start):
    """Dim, capacity and columns change while it is mapped: no SIGBUS, ids go on, nothing unseen."""
    shapes = [
        RingSpec(256, 64, extra=(Column("scores", 24, "<f2"),)),
        RingSpec(8, 16),
        RingSpec(8, 16, extra=(Column("scores", 24, "<f2"), Column("more", 3, "<f4"))),
        RingSpec(8, 16, "<f2", extra=(Column("more", 3, "<f4"),)),
        RingSpec(512, 256),
    ]
    reader, first = None, 0
    for shape in shapes * 3:
        with RingWriter.open(shm / "ring", shape) as writer:
            assert writer.next_frame_id == first
            if reader is None:
                end = 15 * 8
                reader = start("tear.py", "watch", shm / "ring", 0, "c", end, 1)
                assert reader.stdout.readline() == "ready\n"
            rows = tear.Rows(shape, 8)
            rows.fill(first)
            records, semantic, extra = rows.piece(slice(0, 8))
            writer.write(records, semantic, extra=extra)
            first += 8
    found = json.loads(reader.stdout.readline())
    assert (found["torn"], found["void"], found["position"]) == (0, 0, end)
    assert found["accepted"] + found["lost"] == end
    assert found["accepted"] >= 8, "at least the last shape's"


def test_a_window_over_the_wrap_is_the_two_pieces(shm):
    spec = RingSpec(256, 64, extra=(Column("scores", 32, "<f2"),))
    with RingWriter.open(shm / "ring", spec) as writer:
        tear.write(writer, 256, 32)
        rows = tear.Rows(spec, 40)
        rows.fill(256)
        with writer.reserve(24) as reserved:
            for name, array in reserved.columns.items():
                array[:] = rows.columns[name][:24]
            reserved.commit(rows.records[:24])
        with Ring.open(shm / "ring") as ring:
            window = ring.window(256 - 20, 44)
            assert tear.torn(window) == 0
            assert window.valid().all()
            for name, array in window.columns.items():
                whole = ring.columns[name]
                two = np.concatenate([whole[64 - 20 :], whole[:24]])
                assert array.tobytes() == two.tobytes()
                assert not array.flags.owndata
                assert array.flags.c_contiguous


def test_a_follower_is_mapped_read_only(shm):
    with RingWriter.open(shm / "ring", RingSpec(1, 4)), RingReader.open(shm / "ring") as reader:
        assert len(reader.read(timeout=0.001)) == 0
        maps = [
            line.split()[1]
            for line in Path("/proc/self/maps").read_text(encoding="ascii").splitlines()
            if line.endswith(str(shm / "ring"))
        ]
    assert sorted(maps) == ["r--s", "rw-s"], "the reader's and the writer's"


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_large_ring_for_a_long_time(shm, start):
    """131,072 frames of dim 1024: every word of what three readers accept, over eight laps."""
    if shutil.disk_usage(shm).free < SHM_BYTES:
        pytest.skip(
            f"a ring of 131,072 frames of dim 1024: /dev/shm has not {SHM_BYTES >> 20} MB free"
        )
    capacity, frames = 131_072, 8 * 131_072
    with RingWriter.open(shm / "ring", tear.spec(capacity, 1024)) as writer:
        engines = ("c", "c", "twin")
        readers = [start("tear.py", "watch", shm / "ring", capacity, e, frames, 1) for e in engines]
        for reader in readers:
            assert reader.stdout.readline() == "ready\n"
        tear.write(writer, frames, 256)
        for reader in readers:
            found = json.loads(reader.stdout.readline())
            assert (found["torn"], found["void"]) == (0, 0)
            assert found["accepted"] > capacity
            assert found["accepted"] + found["lost"] == found["position"] == frames
