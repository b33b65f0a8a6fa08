"""For each line `batch` on stdin: fork a writer that writes for ever, say its pid, await its end.

A writer goes on where the ring says that the source has got to, as a mirror does.
"""

import os
import sys

import ring_content

from streamapp.ring import RingSpec, RingWriter, SourcePosition


def write_for_ever(path, spec, batch, engine, table):
    writer = RingWriter.open(path, spec, engine=engine)
    writer.source_index("events.raw", 0)
    at = writer.covered().of("events.raw", 0).prefix_end(0)
    while True:
        records, vectors = table.rows(at, batch)
        at += batch
        writer.write(records, vectors, positions=[SourcePosition("events.raw", 0, at, at)])


def main():
    path, dim, capacity, engine = sys.argv[1:]
    table = ring_content.Table(int(dim))
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            spec = RingSpec(int(dim), int(capacity))
            write_for_ever(path, spec, int(line), engine, table)
        ring_content.say(pid)
        os.waitpid(pid, 0)
        ring_content.say("dead")


main()
