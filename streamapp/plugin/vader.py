"""VADER's numbers (Hutto & Gilbert, ICWSM 2014; PyPI vaderSentiment) in a small part of its time.

The lexicon and the constants are the package's.  Its rules are written anew, in the same arithmetic
in the same order, so that every bit is equal: what they ask of a word is asked once for each word
of the language, a text is first looked at as a string of one letter a word, and the rules run only
where one of the five words around bears on them.
"""

import math
import re
import string
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from vaderSentiment.vaderSentiment import (
    BOOSTER_DICT,
    C_INCR,
    N_SCALAR,
    NEGATE,
    SPECIAL_CASES,
    SentimentIntensityAnalyzer,
)

from streamapp.plugin.memo import Memo

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


#: A word as a letter, a capital if the word is in capitals: told are words that are in the lexicon,
#: and set told ones that bear on others, or are part of a phrase.
_PLAIN, _TOLD, _SET, _TURNS, _LEADS, _PHRASED, _BUT = "otsrlpb"
_JUDGED = re.compile(f"[{_TOLD}{_SET}]", re.IGNORECASE)
_EDGE = " " * _BACK


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
        self._letters = Memo(self._letter)
        self._alone = Memo(_alone)

    def judge(self, text: str) -> Scores:
        """The scores of a text of any length; time goes with its length."""
        if not text.isascii() and not self._emojis.keys().isdisjoint(text):
            text = self._spelled(text)
        tokens = text.split()
        return _scores(self._valences(tokens), len(tokens), text)

    def _letter(self, token: str) -> str:
        """All that is to be known of most words."""
        word = _bare(token)
        lower = word.lower()
        letter = self._marked.get(lower) or (_TURNS if "n't" in lower else _PLAIN)
        return letter.upper() if word.isupper() else letter

    def _word(self, token: str) -> _Word:
        word = _bare(token)
        lower = word.lower()
        boost = BOOSTER_DICT.get(lower)
        valence = None if boost is not None else self._lexicon.get(lower)
        negates = lower in _NEGATIONS or "n't" in lower
        return _Word(lower, lower in self._lexicon, valence, boost, negates, word.isupper())

    def _valences(self, tokens: Sequence[str]) -> list[float]:
        """What the words add that add anything."""
        letters = _EDGE + "".join(map(self._letters.__getitem__, tokens))
        shouts = not (letters.islower() or letters.isupper())
        found: dict[int, float] = {}
        for match in _JUDGED.finditer(letters):
            place = match.start() - _BACK
            window = letters[place : place + _BACK + 1 + _AHEAD]
            if self._alone[window] and not (shouts and window[_BACK].isupper()):
                value = self._words[tokens[place]].valence
            else:
                first = max(place - _BACK, 0)
                near = [self._words[one] for one in tokens[first : place + 1 + _AHEAD]]
                value = _valence(near, place - first, shouts)
            if value:
                found[place] = value
        but = letters.lower().find(_BUT) - _BACK
        return list((found if but < 0 else _after_but(found, but)).values())

    def _spelled(self, text: str) -> str:
        """Emojis as the words that stand for them."""
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


def _marked(lexicon: Mapping[str, float]) -> dict[str, str]:
    """The letters of words that are not plain."""
    turns = {*BOOSTER_DICT, *NEGATE, *_TURNING}
    found = {**dict.fromkeys(turns, _TURNS), **dict.fromkeys(_TELLING, _PHRASED)}
    judged = lexicon.keys() - BOOSTER_DICT.keys()
    found |= {word: _SET if word in found or "n't" in word else _TOLD for word in judged}
    return found | {_LEADING: _LEADS, "but": _BUT}


def _alone(window: str) -> bool:
    """Whether none of the words around the middle one bears on it; capitals aside."""
    before, word, ahead = window[:_BACK].lower(), window[_BACK].lower(), window[_BACK + 1 :].lower()
    turned = not {_TURNS, _PHRASED, _SET}.isdisjoint(before) or before[-1] == _LEADS
    return not (turned or word == _SET or not {_PHRASED, _SET}.isdisjoint(ahead))


def _valence(words: Sequence[_Word], place: int, shouts: bool) -> float:
    """What a word of the lexicon is worth among its neighbours."""
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
        value = value + _boost(other, value, shouts) * _FADING[back]
        value = _negated(value, before, back)
        if back == _BACK - 1:
            value = _idiom(value, [one.lower for one in (*before[::-1], word, *ahead)])
    if before and before[0].lower == "least" and not before[0].listed:
        kept = len(before) > 1 and before[1].lower in ("at", "very")
        value = value if kept else value * N_SCALAR
    return value


def _denied(before: Sequence[_Word]) -> bool:
    """A "no" stands where it denies the word."""
    said = [word.lower for word in before]
    return "no" in said[:2] or (said[2:] == ["no"] and said[0] in ("or", "nor"))


def _boost(word: _Word, value: float, shouts: bool) -> float:
    if word.boost is None:
        return 0.0
    boost = -word.boost if value < 0 else word.boost
    if word.upper and shouts:
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


def _after_but(found: dict[int, float], but: int) -> dict[int, float]:
    """Half of what was said before the first "but", and half again of what comes after it.

    The package changes the first word of an equal value, whichever word's turn it is; so does this.
    """
    places: dict[float, list[int]] = {}  # of each value, a heap
    for place, value in found.items():
        places.setdefault(value, []).append(place)
    for value in found.values():
        first = heappop(places[value])
        found[first] *= 0.5 if first < but else 1.5
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
