"""From GLiNER's logits to spans of words: what is above the threshold, and what may stay together.

Spans are (first word, last word, label's place, score), both words included.  Choice is greedy, the
surest first, as the reference does it (https://github.com/urchade/GLiNER, ``decoding/decoder.py``);
what is taken is kept in arrays over the words, so that a candidate costs its width and not the
number of spans before it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.intp]
#: First words, last words, labels and scores of several spans.
Columns = tuple[Places, Places, Places, Floats]

#: Candidates of one text beyond this many are too many to be anything; the surest stay.
CANDIDATES_MAX = 1 << 16


class Span(NamedTuple):
    """Words ``first`` to ``last``, included; ``label`` is its place in the prompt."""

    first: int
    last: int
    label: int
    score: float


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + e^-x), which cannot overflow."""
    half = np.float32(0.5)
    return np.asarray(half * np.tanh(half * logits) + half, np.float32)


def of_spans(logits: Floats, words: int, thresholds: Floats) -> list[Span]:
    """Candidates of a span model's logits (words or more, widths, labels), in their order.

    A score counts when it is above its label's threshold, (labels,).
    """
    probabilities = sigmoid(logits[:words])
    first, width, label = np.nonzero(probabilities > thresholds)
    inside = first + width < words
    first, width, label = first[inside], width[inside], label[inside]
    return _surest(first, first + width, label, probabilities[first, width, label])


def of_tokens(logits: Floats, words: int, thresholds: Floats) -> list[Span]:
    """Candidates of a token model's logits (words or more, labels, 3: start, end, inside).

    A span begins at a start, ends at an end of the same label, and every word of it is inside.  Its
    score is the smallest of all of these.
    """
    found = [
        part
        for label, threshold in enumerate(thresholds)
        for part in _of_label(sigmoid(logits[:words, label]), threshold, label)
    ]
    if not found:
        return []
    first, last, labels, scores = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((last, labels, first))  # as the reference goes through them
    return _surest(first[order], last[order], labels[order], scores[order])


def _of_label(probabilities: Floats, threshold: np.float32, label: int) -> Iterator[Columns]:
    """The candidates of one label that begin at the same word, for each such word."""
    start, end, inside = probabilities.T
    ends = np.flatnonzero(end > threshold)
    outside = np.append(np.flatnonzero(inside < threshold), len(inside))
    for first in np.flatnonzero(start > threshold):
        stop = outside[np.searchsorted(outside, first)]
        last = ends[np.searchsorted(ends, first) : np.searchsorted(ends, stop)]
        lowest = np.minimum.accumulate(inside[first:stop])
        scores = np.minimum(np.minimum(lowest[last - first], end[last]), start[first])
        yield np.full_like(last, first), last, np.full_like(last, label), scores


def choose(candidates: Iterable[Span], words: int, *, flat: bool, multi_label: bool) -> list[Span]:
    """The spans that stay, by first word; among those of equal first word the surest is first.

    Args:
        candidates: in the order that decides between equal scores.
        words: of the text.
        flat: no two spans share a word; else one may lie inside another, but not cross it.
        multi_label: the same words may have several labels.
    """
    taken: _Flat | _Nested = _Flat(words) if flat else _Nested(words)
    seen: set[tuple[int, int]] = set()
    chosen = []
    for span in sorted(candidates, key=lambda one: -one.score):
        words_of = (span.first, span.last)
        if words_of in seen:
            if multi_label:
                chosen.append(span)
        elif taken.takes(*words_of):
            seen.add(words_of)
            chosen.append(span)
    return sorted(chosen, key=lambda one: one.first)


@dataclass(slots=True)
class _Flat:
    """Which words are taken."""

    words: int
    _busy: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self._busy = np.zeros(self.words, np.bool_)

    def takes(self, first: int, last: int) -> bool:
        place = self._busy[first : last + 1]
        if place.any():
            return False
        place[:] = True
        return True


@dataclass(slots=True)
class _Nested:
    """For each word how far right the spans reach that begin there, and how far left that end."""

    words: int
    _last_of: npt.NDArray[np.int64] = field(init=False)
    _first_of: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self._last_of = np.full(self.words, -1, np.int64)
        self._first_of = np.full(self.words, self.words, np.int64)

    def takes(self, first: int, last: int) -> bool:
        begins_within = self._last_of[first + 1 : last + 1]
        ends_within = self._first_of[first:last]
        if (begins_within > last).any() or (ends_within < first).any():
            return False
        self._last_of[first] = max(self._last_of[first], last)
        self._first_of[last] = min(self._first_of[last], first)
        return True


def _surest(first: Places, last: Places, label: Places, scores: Floats) -> list[Span]:
    """At most CANDIDATES_MAX spans, in their order."""
    if len(scores) > CANDIDATES_MAX:
        kept = np.sort(np.argsort(-scores, kind="stable")[:CANDIDATES_MAX])
        first, last, label, scores = first[kept], last[kept], label[kept], scores[kept]
    columns = (one.tolist() for one in (first, last, label, scores))
    return [Span(*one) for one in zip(*columns, strict=True)]
