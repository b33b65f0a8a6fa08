"""Answer each row of ring `there` with a row of ring `back`, `rounds` times."""

import sys

import numpy as np
from ring_content import say

from streamapp.ring import RingReader, RingSpec, RingWriter, new_records


def main():
    there, back, rounds = sys.argv[1:]
    vector = np.zeros((1, 1), np.float32)
    with RingWriter.open(back, RingSpec(1, 16)) as writer:
        say("ready")
        with RingReader.open(there) as reader:
            for _ in range(int(rounds)):
                while not len(reader.read(1, timeout=5.0)):
                    pass
                writer.write(new_records(1), vector)


main()
