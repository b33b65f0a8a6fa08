"""Rows whose every word follows from their frame id, written and read as fast as it goes.

As a program: ``tear.py write|watch PATH CAPACITY ENGINE FRAMES STEP``.
"""

import itertools
import json
import sys

import numpy as np
from ring_content import say

from streamapp.ring import Column, RingReader, RingSpec, RingWriter, new_records

FACTOR = 2_654_435_761  # odd: ids below 2^32 have different words
#: Words of a record that the caller fills: time to intent_id; then 32 bits of presence.
WORDS = slice(2, 15)
#: Rows are made so many at a time, and the batches that are written divide it.
BLOCK = 256


def spec(capacity, dim=256):
    """Two columns, so that a row lies in three places."""
    return RingSpec(dim, capacity, extra=(Column("scores", 24, "<f2"),))


def bits(columns):
    """The same memory as integers: any pattern may be a float."""
    return {name: array.view(f"<u{array.dtype.itemsize}") for name, array in columns.items()}


def words(ids, like):
    """What the words of these frames are, in the type and width of an array of words."""
    keys = np.asarray(ids, np.uint64)[:, None] * np.uint64(FACTOR)
    return (keys + np.arange(like.shape[1], dtype=np.uint64)).astype(like.dtype)


class Rows:
    """Room for a batch, filled again and again."""

    def __init__(self, shape, n):
        self.records = new_records(n)
        self.columns = {c.name: np.zeros((n, c.dim), c.dtype) for c in shape.columns}
        self._record_words = self.records.view("<u8").reshape(n, 16)[:, WORDS]
        self._bits = bits(self.columns)

    def piece(self, rows):
        """Records, semantic and the other columns of some of the rows."""
        columns = {name: array[rows] for name, array in self.columns.items()}
        return self.records[rows], columns.pop("semantic"), columns

    def fill(self, first):
        ids = np.arange(first, first + len(self.records))
        self._record_words[:] = words(ids, self._record_words)
        self.records["presence"] = words(ids, self.records["presence"][:, None])[:, 0]
        for array in self._bits.values():
            array[:] = words(ids, array)


def torn(frames):
    """How many of these rows have a word that is not their own."""
    ids = frames.frame_id
    there = frames.records.view("<u8").reshape(len(ids), 16)[:, WORDS]
    bad = (there != words(ids, there)).any(axis=1)
    bad |= frames.records["presence"] != words(ids, frames.records["presence"][:, None])[:, 0]
    bad |= frames.records["stamp"] != 2 * ids + 2
    for array in bits(frames.columns).values():
        bad |= (array != words(ids, array)).any(axis=1)
    return int(bad.sum())


def write(writer, frames, step):
    """Frames [0, frames), so many a call; for ever when frames is 0."""
    rows = Rows(writer.spec, BLOCK)
    pieces = [rows.piece(slice(at, at + step)) for at in range(0, BLOCK, step)]
    for first in itertools.count(0, BLOCK):
        if frames and first >= frames:
            return
        rows.fill(first)
        for records, semantic, extra in pieces:
            writer.write(records, semantic, extra=extra)


def watch(reader, capacity, frames):
    """Read until so many frames were written; what was accepted, and what of it was wrong.

    Every other time it waits until the writer is about to overwrite what it reads; with capacity 0
    it never does.
    """
    found, turn = {"accepted": 0, "torn": 0}, 0
    while reader.position < frames:
        turn += 1
        while turn % 2 and reader.lag < capacity and reader.position + reader.lag < frames:
            pass
        got = reader.read(64, timeout=10)
        found["accepted"] += len(got)
        found["torn"] += torn(got)
    return found | {"lost": reader.lost, "void": reader.void, "position": reader.position}


def main():
    what, path, capacity, engine, frames, step = sys.argv[1:]
    if what == "write":
        writer = RingWriter.open(path, spec(int(capacity)), engine=engine)
        say("ready")
        sys.stdin.readline()
        write(writer, int(frames), int(step))
    else:
        reader = RingReader.open(path, engine=engine)
        say("ready")
        say(json.dumps(watch(reader, int(capacity), int(frames))))


if __name__ == "__main__":
    main()
