"""For each line `batch way` on stdin: fork a writer that writes for ever, say its pid, await its end.

A writer goes on where the ring says that the source has got to, as a mirror does.  Its way is
`write`, or `reserve`: rows are filled in place, and of four reservations one is committed whole, one
in part, one is given up by `abandon` and one by leaving its block.
"""

import itertools
import os
import sys

import numpy as np
import ring_content

from streamapp.ring import RingSpec, RingWriter, SourcePosition


def write(writer, table, at, batch):
    for _ in itertools.count():
        records, vectors = table.rows(at, batch)
        at += batch
        writer.write(records, vectors, positions=[SourcePosition("events.raw", 0, at, at)])


def reserve(writer, table, at, batch):
    for turn in itertools.count():
        with writer.reserve(batch) as rows:
            records, rows.semantic[:] = table.rows(at, batch)
            if turn % 4 == 2:
                rows.abandon()
            elif turn % 4 != 3:
                keep = np.ones(batch, bool)
                keep[-(batch // 2) :] = turn % 4 == 0 or batch == 1
                at += int(keep.sum())  # the others come again
                rows.commit(records, keep=keep, positions=[SourcePosition("events.raw", 0, at, at)])


def main():
    path, dim, capacity, engine = sys.argv[1:]
    table = ring_content.Table(int(dim))
    for line in sys.stdin:
        batch, way = line.split()
        pid = os.fork()
        if pid == 0:
            writer = RingWriter.open(path, RingSpec(int(dim), int(capacity)), engine=engine)
            writer.source_index("events.raw", 0)
            at = writer.covered().of("events.raw", 0).prefix_end(0)
            (write if way == "write" else reserve)(writer, table, at, int(batch))
        ring_content.say(pid)
        os.waitpid(pid, 0)
        ring_content.say("dead")


main()
