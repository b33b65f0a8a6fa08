"""Writes planes without end, all of whose numbers say which write it was; to be killed."""

import sys
from itertools import count

import numpy as np

from streamapp.ring.control import Attractor, Control, ControlPlane


def plane_of(number, dim):
    """As many attractors as ``number`` says, all of its own making."""
    position = np.full(dim, number % 1000 + 1, np.float32)
    return Control(
        number % 1000, tuple(Attractor(f"{number}-{i}", i, position) for i in range(number % 65))
    )


if __name__ == "__main__":
    path, seed = sys.argv[1], int(sys.argv[2])
    with ControlPlane.open(path, writable=True) as plane:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for number in count(seed):
            plane.write(plane_of(number, plane.dim))
