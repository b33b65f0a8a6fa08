"""Texts as sets of words or shingles, and all pairs of them that are alike, exactly.

The Jaccard similarity of two sets is the share of what is in either that is in both.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"\w+")
#: Rows that are compared with all others at once, and pairs that are compared at once.
_BLOCK, _PAIRS = 256, 4096
#: Of a matrix; with more rows than its columns allow it has fewer columns.
_CELLS = 1 << 24
#: Terms in so many sets, at most so many of them, are counted by a product of matrices.
_FREQUENT_LEAST, _FREQUENT_MAX = 32, 1024

Integers = npt.NDArray[np.int64]


class Sets(NamedTuple):
    """Sets of term numbers: those of set i are ``terms[starts[i]:starts[i + 1]]``, ascending."""

    starts: Integers
    terms: Integers

    @property
    def sizes(self) -> Integers:
        """How many terms each set has, (n,)."""
        return np.diff(self.starts)


class Pairs(NamedTuple):
    """Pairs of rows, ``left`` before ``right``, and how alike they are; each (n,)."""

    left: Integers
    right: Integers
    similarity: npt.NDArray[np.float32]


def sets_of(texts: Sequence[str | None], shingle: int) -> Sets:
    """The set of each text's runs of ``shingle`` lower-case words; a shorter text is one run."""
    numbers: dict[str, int] = {}
    found: list[Integers] = []
    for text in texts:
        words = _WORD.findall(text.lower()) if text else []
        if shingle > 1 and words:
            last = max(len(words) - shingle, 0) + 1
            words = [" ".join(words[place : place + shingle]) for place in range(last)]
        terms = {numbers.setdefault(word, len(numbers)) for word in words}
        found.append(np.fromiter(sorted(terms), np.int64, len(terms)))
    starts = np.zeros(len(found) + 1, np.int64)
    np.cumsum([len(terms) for terms in found], out=starts[1:])
    return Sets(starts, np.concatenate([np.empty(0, np.int64), *found]))


def exact_pairs(sets: Sets, threshold: float, advance: Callable[[int], None]) -> Iterator[Pairs]:
    """Every pair that is at least so alike, in order of rows; empty sets are like none.

    It is the sparse product of the sets' matrix with itself, a block of rows at a time: frequent
    terms are counted by a dense product, others by the lists of the sets that they are in.
    """
    count = len(sets.sizes)
    frequent, dense = _dense(sets)
    order, bounds = _postings(sets, frequent)
    block = max(min(_BLOCK, _CELLS // max(count, 1)), 1)
    for first in range(0, count, block):
        last = min(first + block, count)
        shared = dense[first:last] @ dense[first:].T
        for row in range(first, last):
            terms = sets.terms[sets.starts[row] : sets.starts[row + 1]]
            lists = [order[bounds[term] : bounds[term + 1]] for term in terms]
            others = np.concatenate([np.empty(0, np.int64), *lists])
            others = others[others >= first] - first
            shared[row - first] += np.bincount(others, minlength=count - first)
        yield _alike(shared, sets.sizes, first, threshold)
        advance(last - first)


def similarities(sets: Sets, left: Integers, right: Integers) -> npt.NDArray[np.float32]:
    """How alike the sets of some pairs are, (n,)."""
    found = np.empty(len(left), np.float32)
    for first in range(0, len(left), _PAIRS):
        chosen = slice(first, first + _PAIRS)
        one, other = left[chosen], right[chosen]
        shared = _shared(sets, one, other)
        found[chosen] = shared / np.maximum(sets.sizes[one] + sets.sizes[other] - shared, 1)
    return found


def similarities_to(sets: Sets, row: int) -> npt.NDArray[np.float32]:
    """How alike all sets are to that of one row, (n,)."""
    every = np.arange(len(sets.sizes))
    return similarities(sets, np.full(len(every), row), every)


def _shared(sets: Sets, left: Integers, right: Integers) -> Integers:
    """How many terms the two of each pair share: such a term is there twice among the pair's."""
    rows = np.concatenate([left, right])
    sizes = sets.sizes[rows]
    begins = np.repeat(sets.starts[rows] - (np.cumsum(sizes) - sizes), sizes)
    terms = sets.terms[begins + np.arange(sizes.sum())]
    pair = np.repeat(np.tile(np.arange(len(left)), 2), sizes)
    keys = np.sort(pair * (int(sets.terms.max(initial=0)) + 1) + terms)
    twice = keys[1:][keys[1:] == keys[:-1]] // (int(sets.terms.max(initial=0)) + 1)
    return np.bincount(twice, minlength=len(left))


def _dense(sets: Sets) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Which terms are frequent, and which sets have them, (n, frequent)."""
    uses = np.bincount(sets.terms)
    most = min(_FREQUENT_MAX, _CELLS // max(len(sets.sizes), 1))
    chosen = np.argsort(-uses, kind="stable")[:most]
    chosen = chosen[uses[chosen] >= _FREQUENT_LEAST]
    frequent = np.zeros(len(uses), np.bool_)
    frequent[chosen] = True
    place = np.zeros(len(uses), np.int64)
    place[chosen] = np.arange(len(chosen))
    dense = np.zeros((len(sets.sizes), len(chosen)), np.float32)
    rows = np.repeat(np.arange(len(sets.sizes)), sets.sizes)
    here = frequent[sets.terms]
    dense[rows[here], place[sets.terms[here]]] = 1
    return frequent, dense


def _postings(sets: Sets, frequent: npt.NDArray[np.bool_]) -> tuple[Integers, Integers]:
    """For each term that is not frequent the sets that have it, ascending."""
    rows = np.repeat(np.arange(len(sets.sizes)), sets.sizes)
    rare = ~frequent[sets.terms]
    terms, rows = sets.terms[rare], rows[rare]
    bounds = np.zeros(len(frequent) + 1, np.int64)
    np.cumsum(np.bincount(terms, minlength=len(frequent)), out=bounds[1:])
    return rows[np.argsort(terms, kind="stable")], bounds


def _alike(shared: npt.NDArray[np.float32], sizes: Integers, first: int, threshold: float) -> Pairs:
    """The pairs of a block; its columns begin at its first row."""
    total = sizes[first : first + len(shared), None] + sizes[None, first:] - shared
    similarity = np.divide(shared, total, out=np.zeros_like(shared), where=shared > 0)
    later = np.arange(shared.shape[1])[None, :] > np.arange(len(shared))[:, None]
    left, right = np.nonzero((similarity >= np.float32(threshold)) & (shared > 0) & later)
    return Pairs(left + first, right + first, similarity[left, right])
