"""Write rows 0, 1, 2, ..., row r all r; stop after `frames` rows or more (0: when killed)."""

import itertools
import sys

import numpy as np
from ring_content import say

from streamapp.ring import RingSpec, RingWriter, new_records

BLOCK = 256


def main():
    path, dim, capacity, engine, frames = sys.argv[1:]
    writer = RingWriter.open(path, RingSpec(int(dim), int(capacity)), engine=engine)
    records, semantic = new_records(BLOCK), np.empty((BLOCK, int(dim)), np.float32)
    say("ready")
    sys.stdin.readline()
    for start in itertools.count(0, BLOCK):
        if int(frames) and start >= int(frames):
            break
        keys = np.arange(start, start + BLOCK)
        records["ingest_us"] = keys
        semantic[:] = keys[:, None]
        writer.write(records, semantic)


main()
