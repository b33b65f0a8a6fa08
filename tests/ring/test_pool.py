"""What a reader fills again is what nobody can see any more, whatever was done to it before."""

import sys
import weakref

import numpy as np
import pytest
import ring_content

from streamapp.ring import RingReader, RingSpec, RingWriter
from streamapp.ring.engine import Mapping
from streamapp.ring.opening import map_readable
from streamapp.ring.pool import Pool

DIM, N = 6, 4


@pytest.fixture
def writer(shm):
    with RingWriter.open(shm / "ring", RingSpec(DIM, 64)) as ring:
        yield ring


@pytest.fixture
def mapping(writer) -> Mapping:
    return map_readable(writer.path, "c")


def write(writer, at):
    keys = np.arange(at, at + N)
    writer.write(ring_content.records(keys), ring_content.vectors(keys, DIM))


def assert_reads_on(writer, reader):
    """Every later batch is whole and of the right shape."""
    for at in range(reader.position, reader.position + 5 * N, N):
        write(writer, at)
        frames = reader.read(N)
        keys = np.arange(at, at + N)
        assert frames.frame_id.tolist() == keys.tolist()
        assert frames.semantic.tolist() == ring_content.vectors(keys, DIM).tolist()


def protect(frames):
    frames.semantic.flags.writeable = False
    frames.records.flags.writeable = False


def reshape(frames):
    frames.semantic.shape = (N * DIM,)


def retype(frames):
    frames.semantic.dtype = np.int32


def filter_in_place(frames):
    frames.records = frames.records[:1]
    frames.arrays = tuple(array[:1] for array in frames.arrays)


def swap(frames):
    frames.semantic[...] = np.nan
    frames.records["frame_id"] = 7


@pytest.mark.parametrize("change", [protect, reshape, retype, filter_in_place, swap])
def test_what_the_caller_did_to_his_frames_stays_his(writer, change):
    with RingReader.open(writer.path) as reader:
        for at in (0, N, 2 * N):
            write(writer, at)
            change(reader.read(N))
        assert_reads_on(writer, reader)


def test_records_that_were_put_aside_are_held(writer):
    with RingReader.open(writer.path) as reader:
        write(writer, 0)
        frames = reader.read(N)
        aside, frames.records = frames.records, frames.records.copy()
        del frames
        assert_reads_on(writer, reader)
        assert aside["frame_id"].tolist() == [0, 1, 2, 3]


def test_a_weak_reference_never_sees_other_frames(writer):
    with RingReader.open(writer.path) as reader:
        write(writer, 0)
        frames = reader.read(N)
        weak = [weakref.ref(frames.semantic), weakref.ref(frames.records)]
        before = frames.semantic.tolist()
        del frames
        assert_reads_on(writer, reader)
        semantic, records = (ref() for ref in weak)
        assert semantic is None or semantic.tolist() == before
        assert records is None or records["frame_id"].tolist() == [0, 1, 2, 3]


def test_a_debugger_at_the_opening_changes_nothing(writer):
    """One that looks at locals holds them: a count that was taken then would be too high later."""

    def look(frame, _event, _arg):
        assert frame.f_locals is not None
        return look

    traced = sys.gettrace()
    sys.settrace(look)
    try:
        reader = RingReader.open(writer.path)
    finally:
        sys.settrace(traced)
    write(writer, 0)
    frames = reader.read(N)
    semantic, records = frames.semantic, frames.records
    before = semantic.tolist()
    del frames
    assert_reads_on(writer, reader)
    assert (semantic.tolist(), records["frame_id"].tolist()) == (before, [0, 1, 2, 3])


def test_what_nobody_holds_is_used_again(writer):
    """The point of the pool."""
    with RingReader.open(writer.path) as reader:
        places = set()
        for at in range(0, 8 * N, N):
            write(writer, at)
            frames = reader.read(N)
            places.add(frames.semantic.ctypes.data)
        assert len(places) == 2


def test_large_arrays_are_not_kept(mapping):
    pool = Pool(RingSpec(1024, 4096), mapping.ops.spare)
    kept = {}
    for n in (4096, 256):
        _, (semantic,) = pool.take(n)
        kept[n] = weakref.ref(semantic)
        del semantic
    assert kept[4096]() is None
    assert kept[256]() is not None
