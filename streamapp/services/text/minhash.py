"""Pairs of sets that are probably alike, without comparing all: MinHash and its bands.

Two sets have the same least hash with the probability of their Jaccard similarity (Broder 1997).
Signatures are cut into bands, and sets that agree in a whole band are looked at; a pair of
similarity s is found with probability 1 - (1 - s^rows)^bands (Leskovec, Rajaraman & Ullman, ch. 3).
"""

import numpy as np
import numpy.typing as npt

from streamapp.plugin import Refuse
from streamapp.services.text.sets import Integers, Pairs, Sets, similarities

#: Hashes of a signature.
HASHES = 128
_SEED = 0x5EED
_PRIME = np.uint64((1 << 31) - 1)
#: The share of pairs just as alike as asked for that is found, at least.
FOUND_LEAST = 0.95


def bands(threshold: float) -> tuple[int, int]:
    """How many bands of how many rows: the longest that find pairs of that similarity."""
    for rows in range(HASHES, 1, -1):
        count = HASHES // rows
        if 1 - (1 - threshold**rows) ** count >= FOUND_LEAST:
            return count, rows
    return HASHES, 1


def signatures(sets: Sets) -> npt.NDArray[np.uint32]:
    """(n, HASHES); those of empty sets are all ones and mean nothing."""
    random = np.random.default_rng(_SEED)
    count = int(sets.terms.max(initial=0)) + 1
    # A term's number says nothing: the hashes are of a random number for each.
    terms = random.integers(0, int(_PRIME), count, np.uint64)
    multipliers = random.integers(1, int(_PRIME), HASHES, np.uint64)
    offsets = random.integers(0, int(_PRIME), HASHES, np.uint64)
    found = np.full((len(sets.sizes), HASHES), np.iinfo(np.uint32).max, np.uint32)
    filled = np.flatnonzero(sets.sizes)
    if len(filled):
        starts = sets.starts[filled]
        for place in range(HASHES):
            hashed = ((multipliers[place] * terms + offsets[place]) % _PRIME).astype(np.uint32)
            found[filled, place] = np.minimum.reduceat(hashed[sets.terms], starts)
    return found


def candidates(sets: Sets, threshold: float, pairs_max: int) -> tuple[Integers, Integers]:
    """Pairs that agree in a band, each once, in order.

    Raises:
        Refuse: ``text.pairs``, there are more than ``pairs_max``.
    """
    signed, (count, rows) = signatures(sets), bands(threshold)
    filled = np.flatnonzero(sets.sizes)
    keys = np.empty(0, np.int64)
    for band in range(count):
        part = np.ascontiguousarray(signed[filled, band * rows : (band + 1) * rows])
        whole = part.view(np.dtype((np.void, part.dtype.itemsize * rows))).ravel()
        _, group = np.unique(whole, return_inverse=True)
        sizes = np.bincount(group)
        if (sizes * (sizes - 1) // 2).sum() <= pairs_max:  # else they would not fit into memory
            left, right = _within(filled[np.argsort(group, kind="stable")], sizes)
            keys = np.union1d(keys, left * len(sets.sizes) + right)
            if len(keys) <= pairs_max:
                continue
        raise Refuse(
            "text.pairs",
            f"more than {pairs_max:,} pairs have to be looked at for a threshold of {threshold:g}",
            "raise config.threshold, or compare longer runs: config.shingle",
        )
    return np.divmod(keys, max(len(sets.sizes), 1))


def likely_pairs(sets: Sets, threshold: float, pairs_max: int) -> Pairs:
    """The candidates that are as alike as asked for; their similarity is exact."""
    left, right = candidates(sets, threshold, pairs_max)
    found = similarities(sets, left, right)
    kept = found >= np.float32(threshold)
    return Pairs(left[kept], right[kept], found[kept])


def _within(members: Integers, sizes: Integers) -> tuple[Integers, Integers]:
    """All pairs within groups; ``members`` are the groups one after the other, each ascending."""
    ends = np.repeat(np.cumsum(sizes), sizes)
    later = ends - np.arange(len(members)) - 1
    left = np.repeat(np.arange(len(members)), later)
    begins = np.cumsum(later) - later
    right = left + 1 + np.arange(later.sum()) - np.repeat(begins, later)
    return members[left], members[right]
