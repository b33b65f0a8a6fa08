"""Where vectors gather: k-means on the unit sphere, small and the same in every run."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

ROUNDS_MAX = 50
_SEED = 0


def centroids(vectors: Floats, k: int) -> tuple[Floats, Floats]:
    """At most ``k`` directions round which the vectors lie, and which share of them lies there.

    Spherical k-means (Dhillon and Modha 2001) from k-means++ seeds (Arthur and Vassilvitskii 2007)
    of a fixed generator.  There are fewer than k when fewer of the vectors differ.

    Args:
        vectors: (n, dim); only directions count, what has none is left out.
        k: 1 or more.

    Returns:
        Unit vectors (c, dim) and shares (c,) that add up to 1, the largest first; c is 0 for no
        vectors.
    """
    units = unit_vectors(vectors)
    centres = _seeds(units, k)
    if not len(centres):
        return centres, np.empty(0, np.float32)
    owner = np.full(len(units), -1)
    for _ in range(ROUNDS_MAX):
        before, owner = owner, np.argmax(units @ centres.T, axis=1)
        if np.array_equal(before, owner):
            break
        centres = _means(units, owner, centres)
    shares = np.bincount(owner, minlength=len(centres)) / len(units)
    order = [int(i) for i in np.argsort(-shares, kind="stable") if shares[i] > 0]
    return centres[order], shares[order].astype(np.float32)


def unit_vectors(vectors: npt.NDArray[Any]) -> Floats:
    """The directions (c, dim) of those of the vectors (n, dim) that have one.

    One of length 0, or with a value that is no finite number, has none.
    """
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    known = np.isfinite(lengths) & (lengths > 0)
    units: Floats = (vectors[known] / lengths[known, None]).astype(np.float32)
    return units


def _seeds(units: Floats, k: int) -> Floats:
    """Some of the vectors, each far from those before: chosen in proportion to squared distance."""
    if not len(units):
        return units
    generator = np.random.default_rng(_SEED)
    chosen = [int(generator.integers(len(units)))]
    farness = np.full(len(units), np.inf)
    while len(chosen) < k:
        # The squared chord; what rounding leaves between equal vectors is no distance.
        farness = np.minimum(farness, 2 - 2 * (units @ units[chosen[-1]]).astype(np.float64))
        weights = np.where(farness > 1e-6, farness, 0)
        if not weights.sum():
            break
        chosen.append(int(generator.choice(len(units), p=weights / weights.sum())))
    return units[chosen]


def _means(units: Floats, owner: npt.NDArray[np.int_], centres: Floats) -> Floats:
    """The direction of each centre's vectors together; one without any, or with none, stays."""
    sums = np.zeros(centres.shape, np.float64)
    np.add.at(sums, owner, units)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(lengths > 0, sums / np.where(lengths > 0, lengths, 1), centres).astype(
        np.float32
    )
