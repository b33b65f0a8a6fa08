"""Promise ring.never_torn: what a reader accepts is one row of one commit, however fast."""

import json
import logging
import time

import numpy as np
import pytest
import tear

from streamapp.ring import Ring, RingReader, RingWriter

LOG = logging.getLogger(__name__)
CAPACITIES = [1, 2, 64, 4096]
LONG = [pytest.mark.soak, pytest.mark.timeout(7200)]
#: Writer's engine, reader's engine, rows a call, frames of the short and of the long form.
#: The twin is slower by two orders of magnitude; ten million of its rows would take an hour each.
KINDS = {
    "batch": ("c", "c", 256, 30_000, 10_000_000),
    "single": ("c", "c", 1, 10_000, 10_000_000),
    "twin reads": ("c", "twin", 256, 20_000, 1_000_000),
    "twin writes": ("twin", "c", 256, 4_000, 1_000_000),
    "twin single": ("twin", "twin", 1, 2_000, 1_000_000),
}


def go(program):
    program.stdin.write("\n")
    program.stdin.flush()


def ready(program):
    assert program.stdout.readline() == "ready\n"
    return program


def watched_here(shm, start, capacity, writes, reads, step, frames):
    """The writer is another process, the reader this one."""
    path = shm / "ring"
    writer = ready(start("tear.py", "write", path, capacity, writes, frames, step))
    reader = RingReader.open(path, engine=reads)
    go(writer)
    return tear.watch(reader, capacity, frames)


def watched_there(shm, start, capacity, writes, reads, step, frames):
    """The reader is another process, the writer this one."""
    path = shm / "ring"
    with RingWriter.open(path, tear.spec(capacity), engine=writes) as writer:
        reader = ready(start("tear.py", "watch", path, capacity, reads, frames, step))
        tear.write(writer, frames, step)
        return json.loads(reader.stdout.readline())


def cases():
    """Every kind, capacity and direction; of the twins' only a part in the short form."""
    for name, (writes, reads, step, short, long) in KINDS.items():
        for capacity in CAPACITIES:
            for watched in (watched_here, watched_there):
                of = f"{name}, {capacity} slots, {watched.__name__}"
                given = watched, capacity, writes, reads, step
                yield pytest.param(*given, long, id=f"{of}, {long}", marks=LONG)
                if reads == writes == "c" or (watched is watched_here and capacity in {2, 64}):
                    yield pytest.param(*given, short, id=f"{of}, {short}")


@pytest.mark.parametrize(
    ("watched", "capacity", "writes", "reads", "step", "frames"), list(cases())
)
def test_no_torn_row_is_accepted(shm, start, watched, capacity, writes, reads, step, frames):
    found = watched(shm, start, capacity, writes, reads, step, frames)
    LOG.info("%s", found)
    assert found["torn"] == 0
    assert found["accepted"] > 0
    assert found["void"] == 0
    assert found["position"] >= frames
    assert found["accepted"] + found["lost"] == found["position"]


@pytest.mark.parametrize("capacity", CAPACITIES)
@pytest.mark.parametrize("writes", ["c", "twin"])
@pytest.mark.timeout(300)
def test_the_control_without_protection_is_torn(shm, start, writes, capacity):
    """The same flood read without stamps and claim has torn rows: the test above can see them."""
    writer = ready(start("tear.py", "write", shm / "ring", capacity, writes, 0, 256))
    ring = Ring.open(shm / "ring")
    column = tear.bits({"semantic": ring.semantic})["semantic"]
    steps = np.arange(column.shape[1], dtype=np.uint32)
    go(writer)
    end_s, found = time.monotonic() + 240, 0
    while ring.head() <= capacity:  # an empty slot would look torn, too
        time.sleep(0.001)
    while not found:
        assert time.monotonic() < end_s, (
            "nothing torn: this machine cannot show what the test is for"
        )
        for _ in range(1000):
            row = column[ring.head() % capacity].copy() - steps
            found += bool((row != row[0]).any())


def test_one_wrong_word_is_seen():
    """Wherever it is: in the record, in a column, or in another frame's place."""
    shape = tear.spec(8)
    for place in (
        "timestamp_us",
        "spin",
        "intent_id",
        "presence",
        "semantic",
        "scores",
        "frame_id",
    ):
        frames = tear_of(shape)
        assert tear.torn(frames) == 0
        whole = (
            frames.records[place] if place in frames.records.dtype.names else frames.columns[place]
        )
        whole.reshape(4, -1)[2, -1:] = 1
        assert tear.torn(frames) == 1, place


def tear_of(shape):
    """Four whole frames from id 3 on, as a reader hands them out."""
    rows = tear.Rows(shape, 4)
    rows.fill(3)
    rows.records["frame_id"] = np.arange(3, 7)
    rows.records["stamp"] = 2 * rows.records["frame_id"] + 2

    class Whole:
        records, columns = rows.records, rows.columns
        frame_id = rows.records["frame_id"]

    return Whole
