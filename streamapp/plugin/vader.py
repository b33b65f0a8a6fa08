"""VADER's numbers (Hutto & Gilbert, ICWSM 2014; PyPI vaderSentiment) in a small part of its time.

The lexicon and the constants are the package's.  Its rules are written anew, in the same arithmetic
in the same order, so that every bit is equal: what they ask of a word is asked once for each word
of the language, texts are first looked at as arrays of one byte a word, and the rules run only
where one of the five words around bears on them.
"""

import math
import string
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from vaderSentiment.vaderSentiment import (
    BOOSTER_DICT,
    C_INCR,
    N_SCALAR,
    NEGATE,
    SPECIAL_CASES,
    SentimentIntensityAnalyzer,
)

from streamapp.plugin.memo import Memo
from streamapp.plugin.words import Tokens, tokens_of

#: How far the rules look.
_BACK, _AHEAD = 3, 2
#: A token that is no longer without its punctuation is an emoticon.
_EMOTICON_CHARS = 2
#: What a booster counts for that is one, two or three words away.
_FADING = (1.0, 0.95, 0.9)
#: Words that change what follows them, beside boosters and negations; one that changes only what
#: follows it at once.
_TURNING, _LEADING = frozenset(("no", "least", "so", "never", "without")), "this"
_NEGATIONS = frozenset(NEGATE)
#: A phrase is only there if its longest word is.
_TELLING = frozenset(
    max(phrase.split(), key=len) for phrase in (*SPECIAL_CASES, *BOOSTER_DICT) if " " in phrase
)


class Scores(NamedTuple):
    """As the package has them: ``compound`` -1 to 1, the others are shares that sum to 1."""

    neg: float
    neu: float
    pos: float
    compound: float


#: A word as bits: the lexicon judges it; it turns what comes later, turns what comes next, may be
#: part of a phrase, is "but", is in capitals.
_JUDGED, _TURNS, _LEADS, _TELLS, _BUT, _UPPER = 1, 2, 4, 8, 16, 32
#: [words around, 1]: where they are, and which of their bits bear on the one in the middle.
_AROUND = np.arange(-_BACK, _AHEAD + 1)[:, None]
_BEARING = np.array(
    [_TURNS | _TELLS] * (_BACK - 1) + [_TURNS | _TELLS | _LEADS] + [_TELLS] * (1 + _AHEAD),
    np.uint8,
)[:, None]

_Marks = npt.NDArray[np.uint8]
_Places = npt.NDArray[np.intp]


class _Word(NamedTuple):
    """What the rules ask of a token."""

    lower: str
    #: In the lexicon, and what it is worth if it is judged at all.
    listed: bool
    valence: float | None
    #: What it adds to a later word.
    boost: float | None
    negates: bool
    upper: bool


class Vader:
    """Texts to scores; may be called from several threads at once."""

    def __init__(self) -> None:
        rules = SentimentIntensityAnalyzer()
        self._lexicon: dict[str, float] = rules.lexicon
        self._emojis = {one: said for one, said in rules.emojis.items() if len(one) == 1}
        self._words = Memo(self._word)
        self._marked = _marked(self._lexicon)
        self._marks = Memo(self._mark)

    def judge(self, texts: Sequence[str], tokens: Tokens | None = None) -> list[Scores]:
        """The scores of some texts, of no more than about ``tokens.CHARS_MAX`` together.

        Args:
            texts: of any length; time goes with it.
            tokens: of these texts, where they are known.
        """
        said = [text if text.isascii() else self._spelled(text) for text in texts]
        if tokens is None or said != texts:
            tokens = tokens_of(said)
        counts = np.diff(tokens.starts).tolist()
        found = self._valences(tokens)
        return [_scores(*one) for one in zip(found, counts, said, strict=True)]

    def _mark(self, token: str) -> int:
        """All that is to be known of most words."""
        word = _bare(token)
        lower = word.lower()
        mark = self._marked.get(lower) or (_TURNS if "n't" in lower else 0)
        return mark | _UPPER if word.isupper() else mark

    def _word(self, token: str) -> _Word:
        word = _bare(token)
        lower = word.lower()
        boost = BOOSTER_DICT.get(lower)
        valence = None if boost is not None else self._lexicon.get(lower)
        negates = lower in _NEGATIONS or "n't" in lower
        return _Word(lower, lower in self._lexicon, valence, boost, negates, word.isupper())

    def _valences(self, tokens: Tokens) -> list[list[float]]:
        """Of each text what the words add that add anything."""
        known = np.frombuffer(bytes(map(self._marks.__getitem__, tokens.unique)), np.uint8)
        marks = known[tokens.codes]
        (places,) = (marks & _JUDGED).nonzero()
        if not len(places):
            return [[] for _ in tokens.starts[1:]]
        values = self._listed(tokens, known)[tokens.codes[places]]
        self._weigh(tokens, marks, places, values)
        adds = values != 0
        places, values = places[adds], values[adds]
        bounds, judged = places.searchsorted(tokens.starts).tolist(), values.tolist()
        found = [judged[first:end] for first, end in pairwise(bounds)]
        (turns,) = (marks & _BUT).nonzero()
        if len(turns):
            for text, which in zip(*np.unique(tokens.texts[turns], return_index=True), strict=True):
                before = int(places.searchsorted(turns[which])) - bounds[text]
                found[text] = _after_but(found[text], before)
        return found

    def _listed(self, tokens: Tokens, known: _Marks) -> npt.NDArray[np.float64]:
        """[unique tokens]: what those that are judged are worth alone."""
        values = np.zeros(len(known))
        for place in (known & _JUDGED).nonzero()[0].tolist():
            values[place] = self._words[tokens.unique[place]].valence
        return values

    def _weigh(
        self, tokens: Tokens, marks: _Marks, places: _Places, values: npt.NDArray[np.float64]
    ) -> None:
        """Correct the values of words that are not worth what they are worth alone."""
        texts, starts = tokens.texts, tokens.starts
        upper = marks & _UPPER != 0
        shouting = _shouting(upper, texts, len(starts) - 1)
        bearing = _bearing(marks, texts, places)
        louder = shouting[texts[places]] & upper[places]
        (others,) = (louder | (bearing != 0)).nonzero()
        if not len(others):
            return
        at, of = places[others], texts[places[others]]
        firsts = np.maximum(at - _BACK, starts[of])
        ends = np.minimum(at + 1 + _AHEAD, starts[of + 1])
        phrased = bearing[others] & _TELLS != 0
        windows = zip(
            firsts.tolist(), ends.tolist(), (at - firsts).tolist(),
            shouting[of].tolist(), phrased.tolist(), strict=True,
        )  # fmt: skip
        values[others] = [
            _valence(self._near(tokens, first, end), *rest) for first, end, *rest in windows
        ]

    def _near(self, tokens: Tokens, first: int, end: int) -> list[_Word]:
        return [self._words[tokens.unique[code]] for code in tokens.codes[first:end].tolist()]

    def _spelled(self, text: str) -> str:
        """Emojis as the words that stand for them."""
        if self._emojis.keys().isdisjoint(set(text)):
            return text
        parts, spaced = [], True
        for one in text:
            if (said := self._emojis.get(one)) is None:
                parts.append(one)
                spaced = one == " "
            else:
                parts.append(said if spaced else f" {said}")
                spaced = False
        return "".join(parts)


def _bare(token: str) -> str:
    bare = token.strip(string.punctuation)
    return bare if len(bare) > _EMOTICON_CHARS else token


def _marked(lexicon: Mapping[str, float]) -> dict[str, int]:
    """The bits of words that have any."""
    turns = {*BOOSTER_DICT, *NEGATE, *_TURNING}
    found = {**dict.fromkeys(turns, _TURNS), **dict.fromkeys(_TELLING, _TURNS | _TELLS)}
    judged = lexicon.keys() - BOOSTER_DICT.keys()
    both = _JUDGED | _TURNS | _TELLS
    found |= {word: both if word in found or "n't" in word else _JUDGED for word in judged}
    return found | {_LEADING: _LEADS, "but": _BUT}


def _shouting(upper: npt.NDArray[np.bool_], texts: _Places, count: int) -> npt.NDArray[np.bool_]:
    """[texts]: whether some words of it are in capitals, and not all."""
    capitals = np.bincount(texts[upper], minlength=count)
    return (capitals > 0) & (capitals < np.bincount(texts, minlength=count))


def _bearing(marks: _Marks, texts: _Places, places: _Places) -> _Marks:
    """[places]: the bits of words around, and of that one, that bear on it; capitals aside."""
    # Texts stand so far from each other that no rule looks across.
    spaced = np.zeros(len(marks) + _BACK * (int(texts[-1]) + 2), np.uint8)
    spaced[np.arange(len(marks)) + _BACK * (texts + 1)] = marks
    at = places + _BACK * (texts[places] + 1)
    found: _Marks = np.bitwise_or.reduce(spaced[at + _AROUND] & _BEARING, axis=0)
    return found


def _valence(words: Sequence[_Word], place: int, shouts: bool, phrased: bool) -> float:
    """What a word of the lexicon is worth among its neighbours, of which one may tell a phrase."""
    word, before, ahead = words[place], words[:place][::-1], words[place + 1 :]
    if word.lower == "kind" and ahead and ahead[0].lower == "of":
        return 0.0
    listed: float = word.valence or 0.0
    value = 0.0 if word.lower == "no" and ahead and ahead[0].listed else listed
    if _denied(before):
        value = listed * N_SCALAR
    if word.upper and shouts:
        value += C_INCR if value > 0 else -C_INCR
    for back, other in enumerate(before):
        if other.listed:
            continue
        if other.boost is not None:
            value += _boost(other.boost, value, other.upper and shouts) * _FADING[back]
        if other.negates or back == _BACK - 1:
            value = _negated(value, before, back)
        if phrased and back == _BACK - 1:
            value = _idiom(value, [one.lower for one in (*before[::-1], word, *ahead)])
    if before and before[0].lower == "least" and not before[0].listed:
        kept = len(before) > 1 and before[1].lower in ("at", "very")
        value = value if kept else value * N_SCALAR
    return value


def _denied(before: Sequence[_Word]) -> bool:
    """A "no" stands where it denies the word."""
    said = [word.lower for word in before]
    return "no" in said[:2] or (said[2:] == ["no"] and said[0] in ("or", "nor"))


def _boost(boost: float, value: float, louder: bool) -> float:
    boost = -boost if value < 0 else boost
    if louder:
        boost += C_INCR if value > 0 else -C_INCR
    return boost


def _negated(value: float, before: Sequence[_Word], back: int) -> float:
    """The value after the word so far back has had its say."""
    said, between = before[back].lower, [word.lower for word in before[:back]]
    intensifies = said == "never" and bool(between) and between[-1] in ("so", "this")
    if back == _BACK - 1:
        intensifies = intensifies or between[0] in ("so", "this")
    if intensifies:
        return value * 1.25
    if said == "without" and "doubt" in between:
        return value
    return value * N_SCALAR if before[back].negates else value


def _idiom(value: float, said: Sequence[str]) -> float:
    """The value of a phrase in place of its word's; ``said`` is three back, the word, two ahead."""
    three, two, one, word = said[:4]
    cases, boosters = SPECIAL_CASES, BOOSTER_DICT
    longest = f"{three} {two} {one}"
    ending = (
        f"{one} {word}", f"{two} {one} {word}", f"{two} {one}", longest, f"{three} {two}",
    )  # fmt: skip
    value = next((cases[phrase] for phrase in ending if phrase in cases), value)
    for last in range(5, len(said) + 1):
        value = cases.get(" ".join(said[3:last]), value)
    for phrase in (longest, f"{three} {two}", f"{two} {one}"):
        value += boosters.get(phrase, 0.0)
    return value


def _after_but(values: list[float], before: int) -> list[float]:
    """Half of what was said before the first "but", and half again of what comes after it.

    The package changes the first word of an equal value, whichever word's turn it is; so does this.
    That is another word only if a changed value equals one that is still to be changed.

    Args:
        values: of the words that add anything, in order.
        before: how many of them stand before the "but"; it is none of them.
    """
    found: list[float] = []
    changed: set[float] = set()
    for place, value in enumerate(values):
        if value in changed:
            return _first_of_equals(values, before)
        found.append(value * (0.5 if place < before else 1.5))
        changed.add(found[-1])
    return found


def _first_of_equals(values: list[float], before: int) -> list[float]:
    """As ``_after_but``, of any values."""
    found = list(values)
    places: dict[float, list[int]] = {}  # of each value, a heap
    for place, value in enumerate(found):
        places.setdefault(value, []).append(place)
    for place in range(len(found)):
        first = heappop(places[found[place]])
        found[first] *= 0.5 if first < before else 1.5
        heappush(places.setdefault(found[first], []), first)
    return found


def _scores(found: Sequence[float], words: int, text: str) -> Scores:
    """The package's sums; words that add nothing only count."""
    if not words:
        return Scores(0.0, 0.0, 0.0, 0.0)
    asks = text.count("?")
    emphasis = min(text.count("!"), 4) * 0.292
    emphasis += 0 if asks <= 1 else asks * 0.18 if asks <= 3 else 0.96
    total = float(sum(found))
    if total:
        total += emphasis if total > 0 else -emphasis
    positive = negative = 0.0
    for value in found:
        if value > 0:
            positive += value + 1
        else:
            negative += value - 1
    if positive > -negative:
        positive += emphasis
    elif positive < -negative:
        negative -= emphasis
    weight = positive - negative + (words - len(found))
    compound = max(-1.0, min(1.0, total / math.sqrt(total * total + 15)))
    return Scores(
        round(abs(negative / weight), 3),
        round(abs((words - len(found)) / weight), 3),
        round(abs(positive / weight), 3),
        round(compound, 4),
    )
