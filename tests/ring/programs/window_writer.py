"""Writes rows of known content into a small ring, as fast as it can, until it is killed.

python window_writer.py PATH CAPACITY
"""

import itertools
import sys
from pathlib import Path

from ring_content import Table, say

from streamapp.ring import RingSpec, RingWriter

DIM, STEP = 64, 8

if __name__ == "__main__":
    table = Table(DIM)
    with RingWriter.open(Path(sys.argv[1]), RingSpec(DIM, int(sys.argv[2]))) as writer:
        for turn in itertools.count():
            writer.write(*table.rows(turn * STEP, STEP))
            if turn == 100:
                say("ready")
