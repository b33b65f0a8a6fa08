"""What two texts' likeness is at most, by their letters: much cheaper than to compare them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

#: Few enough that their bits, 8 bytes a letter, stay in memory that is used again.
_TEXTS_AT_ONCE = 16_384
#: A bit for each letter, digit and the space; the last one for all else, which is not told apart.
_KNOWN = "abcdefghijklmnopqrstuvwxyz0123456789 "
_OTHER = np.uint64(1 << 63)
_BITS = np.full(256, _OTHER)
_BITS[list(_KNOWN.encode())] = np.uint64(1) << np.arange(len(_KNOWN), dtype=np.uint64)

Shares = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Letters:
    """Of texts: a bit for each letter that one has, (n,), and how many it has, (n,); 0 of null."""

    bits: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.uint32]

    def at(self, places: npt.NDArray[np.uint32]) -> "Letters":
        """Of the texts at these places."""
        return Letters(self.bits[places], self.lengths[places])


def letters_of(texts: pl.Series) -> Letters:
    """The letters of texts in lower case."""
    known = texts.fill_null("")
    pieces = [
        _bits(known[first : first + _TEXTS_AT_ONCE])
        for first in range(0, len(known), _TEXTS_AT_ONCE)
    ]
    bits = np.concatenate(pieces) if pieces else np.empty(0, np.uint64)
    return Letters(bits, known.str.len_chars().to_numpy())


def _bits(texts: pl.Series) -> npt.NDArray[np.uint64]:
    given = texts.to_arrow()
    _, ends, data = given.buffers()
    ends = np.frombuffer(ends, np.int64, len(given) + 1, given.offset * 8)
    there = np.flatnonzero(np.diff(ends))
    found = np.zeros(len(given), np.uint64)
    if len(there):
        bits = _BITS.take(np.frombuffer(data, np.uint8))
        found[there] = np.bitwise_or.reduceat(bits[: ends[-1]], ends[there])
    return found


def _jaro_winkler(common: Shares, left: Shares, right: Shares) -> Shares:
    # none of the common letters out of order, and all four of the prefix equal
    return 0.4 + 0.6 * (common / left + common / right + 1) / 3


def _levenshtein(common: Shares, left: Shares, right: Shares) -> Shares:
    return common / np.maximum(left, right)


#: By scorer; of how many letters two texts have in common at most, and of their lengths.
BOUNDS: Mapping[str, Callable[[Shares, Shares, Shares], Shares]] = {
    "jaro_winkler": _jaro_winkler,
    "levenshtein": _levenshtein,
}


def bound(by: str, left: Letters, right: Letters) -> Shares:
    """What the likeness of pairs is at most, (n,); NaN where one of the texts is null.

    Args:
        by: a key of ``BOUNDS``.
        left: of each pair's one text.
        right: of its other.
    """
    told = (left.bits | right.bits) < _OTHER
    lengths = [one.lengths.astype(np.float32) for one in (left, right)]
    # a letter that the other text has not is in nothing that they have in common
    alone = [
        np.bitwise_count(one.bits & ~other.bits) * told
        for one, other in ((left, right), (right, left))
    ]
    common = np.minimum(lengths[0] - alone[0], lengths[1] - alone[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        found = BOUNDS[by](common, *lengths)
    return np.where((lengths[0] > 0) & (lengths[1] > 0), found, np.float32("nan"))
