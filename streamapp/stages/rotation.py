"""Directions of vectors in three dimensions, and the quaternion that turns one into the next.

The projection must never change, or stored spins would lose their meaning; so it is made of SHA-256
and plain arithmetic and not of a library's random numbers, whose streams may change between
versions.
"""

import hashlib
import math
import struct
from functools import cache

import numpy as np
import numpy.typing as npt

Direction = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]

IDENTITY: Quaternion = (1.0, 0.0, 0.0, 0.0)
_SEED = b"streamapp.spin/1"
#: Below this norm of (1 + d0.d1, d0 x d1) two directions are opposite.
_OPPOSITE = 1e-9


@cache
def projection(dim: int) -> npt.NDArray[np.float64]:
    """Three orthonormal rows, the same for ever; shape (3, dim), dim at least 3."""
    rows: list[list[float]] = []
    for axis in range(3):
        row = [_uniform(axis, place) for place in range(dim)]
        for other in rows:
            along = math.fsum(a * b for a, b in zip(row, other, strict=True))
            row = [a - along * b for a, b in zip(row, other, strict=True)]
        length = math.sqrt(math.fsum(a * a for a in row))
        rows.append([a / length for a in row])
    return np.array(rows)


def _uniform(axis: int, place: int) -> float:
    """A number in [-1, 1) out of a hash of its address."""
    digest = hashlib.sha256(_SEED + struct.pack("<II", axis, place)).digest()
    return float((int.from_bytes(digest[:8], "little") >> 11) / 2**52 - 1)


def directions(vectors: npt.NDArray[np.float32]) -> list[Direction | None]:
    """Directions of rows (n, dim): unit length; None for NaN, or where the projection is 0.

    Sums run along each row, never through a matrix product: BLAS may add in another order for
    another number of rows, and a row's bits must not depend on its neighbours.
    """
    rows = np.ascontiguousarray(vectors, np.float64)
    axes = projection(rows.shape[1])
    spots = np.stack([(rows * axis).sum(axis=1) for axis in axes], axis=1).tolist()
    return [_normalised(*spot) for spot in spots]


def _normalised(x: float, y: float, z: float) -> Direction | None:
    length = math.sqrt(x * x + y * y + z * z)
    return (x / length, y / length, z / length) if length > 0 else None  # NaN > 0 is False


def turn(before: Direction, after: Direction) -> Quaternion:
    """The shortest rotation (w, x, y, z) from one unit vector to another.

    For opposite ones, where every axis is as short: half a turn about the axis orthogonal to
    ``before`` that crosses its smallest component.
    """
    (a, b, c), (x, y, z) = before, after
    w = 1.0 + a * x + b * y + c * z
    i, j, k = b * z - c * y, c * x - a * z, a * y - b * x
    length = math.sqrt(w * w + i * i + j * j + k * k)
    if length > _OPPOSITE:
        return w / length, i / length, j / length, k / length
    smallest = min(range(3), key=lambda place: abs(before[place]))
    p, q, r = (float(place == smallest) for place in range(3))
    axis = _normalised(b * r - c * q, c * p - a * r, a * q - b * p)
    assert axis is not None  # noqa: S101  # before is no unit axis of its smallest component
    return 0.0, *axis
