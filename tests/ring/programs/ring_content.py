"""Rows whose every word follows from their source offset, so that any mixture of two rows shows.

Content repeats after PERIOD rows, more than any ring of these tests holds.
"""

import sys

import numpy as np

from streamapp.ring import RECORD_DTYPE, new_records, pack_source, unpack_source

PERIOD = 8192
OWN = {"stamp", "frame_id", "epoch", "source_offset"}  # the ring's words, and the key
FIELDS = [name for name in RECORD_DTYPE.names if name not in OWN]


def say(line):
    """Tell the test that started this program."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def vectors(keys, dim):
    """(n, dim) float32, exact integers below 2^22."""
    columns = np.arange(dim, dtype=np.int64) * 7919
    rows = np.asarray(keys, np.int64)[:, None] % PERIOD
    return ((rows * 104_729 + columns) % (1 << 22)).astype("<f4")


def records(keys, source=0):
    """(n,) records with every field set."""
    rows = new_records(len(keys))
    rows["source_offset"] = pack_source(source, keys)
    for place, name in enumerate(FIELDS):
        column = rows[name]
        width = 8 * column.dtype.itemsize if column.dtype.kind != "f" else 22
        values = np.asarray(keys, np.int64) % PERIOD * (2 * place + 3) + place
        values %= 1 << min(width - 1, 31)
        column[...] = values[:, None] if column.ndim == 2 else values
    return rows


class Table:
    """One period of rows, made once: a writer spends its time in the ring and not in here."""

    def __init__(self, dim):
        keys = np.arange(2 * PERIOD)
        self._records, self._vectors = records(keys), vectors(keys, dim)

    def rows(self, first, n):
        """Records and vectors of the keys [first, first + n)."""
        piece = slice(first % PERIOD, first % PERIOD + n)
        rows = self._records[piece].copy()
        rows["source_offset"] = pack_source(0, np.arange(first, first + n))
        return rows, self._vectors[piece]


def wrong_rows(frames):
    """How many of these rows have any word that is not what their source offset says."""
    source, keys = unpack_source(frames.source_offset)
    expected = records(keys)
    bad = (source != 0) | (frames.stamp != 2 * frames.frame_id + 2)
    for name in FIELDS:
        differs = frames.records[name] != expected[name]
        bad |= differs.any(axis=1) if differs.ndim == 2 else differs
    bad |= (frames.semantic != vectors(keys, frames.semantic.shape[1])).any(axis=1)
    return int(bad.sum())
