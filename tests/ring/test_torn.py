"""Promise ring.never_torn: what a reader accepts is one row of one commit, however fast."""

import time

import numpy as np
import pytest

from streamapp.ring import RingReader

DIM = 1024


def flood(start, path, capacity, frames, engine="c"):
    writer = start("flood.py", path, DIM, capacity, engine, frames)
    assert writer.stdout.readline() == "ready\n"
    return writer


def go(writer):
    writer.stdin.write("\n")
    writer.stdin.flush()


def accepted_and_torn(frames):
    """Row r is all r; the record says r too."""
    keys = frames.ingest_us.astype(np.float32)[:, None]
    torn = (frames.semantic != keys).any(axis=1) | (frames.frame_id != frames.ingest_us)
    return len(frames), int(torn.sum())


@pytest.mark.parametrize(
    "count",
    [100_000, pytest.param(10_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])],
)
@pytest.mark.parametrize("capacity", [2, 64])
def test_no_torn_row_is_accepted(shm, start, engine, capacity, count):
    """Both engines read what the C engine writes as fast as it can."""
    path = shm / "ring"
    writer = flood(start, path, capacity, count)
    reader = RingReader.open(path, engine=engine)
    go(writer)
    accepted = torn = 0
    while reader.position < count:
        frames = reader.read(64, timeout_s=10)
        got, bad = accepted_and_torn(frames)
        accepted, torn = accepted + got, torn + bad
    assert torn == 0
    assert reader.void == 0
    assert accepted > 0
    assert accepted + reader.lost == reader.position


@pytest.mark.timeout(300)
def test_the_control_without_protection_is_torn(shm, start):
    """The same flood read without stamps and claim has torn rows: the test above can see them."""
    path = shm / "ring"
    writer = flood(start, path, 2, 0)
    column = RingReader.open(path).views().semantic
    go(writer)
    end_s, torn = time.monotonic() + 240, 0
    while not torn and time.monotonic() < end_s:
        for _ in range(1000):
            row = column[0].copy()
            torn += row[0] != row[-1]
    assert torn


@pytest.mark.parametrize("capacity", [2, 64])
def test_no_torn_row_of_the_twin_is_accepted(shm, start, capacity):
    count = 30_208
    writer = flood(start, shm / "ring", capacity, count, "twin")
    reader = RingReader.open(shm / "ring")
    go(writer)
    torn = 0
    while reader.position < count:
        torn += accepted_and_torn(reader.read(64, timeout_s=10))[1]
    assert (torn, reader.void) == (0, 0)
