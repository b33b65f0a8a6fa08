"""VADER's numbers (Hutto & Gilbert, ICWSM 2014; PyPI vaderSentiment) in about a fifth of its time.

Its rules and lexicon are asked as they are, but only about words of the lexicon, and with the words
that a rule looks at: three back and two ahead.  The package asks about every word, and each rule
lowers the whole text again.
"""

import string
from typing import NamedTuple

from vaderSentiment.vaderSentiment import BOOSTER_DICT, SentimentIntensityAnalyzer

#: How far the rules look.
_BACK, _AHEAD = 3, 2
#: A token that is no longer without its punctuation is an emoticon.
_EMOTICON_CHARS = 2


class Scores(NamedTuple):
    """As the package has them: ``compound`` -1 to 1, the others are shares that sum to 1."""

    neg: float
    neu: float
    pos: float
    compound: float


class Vader:
    """Texts to scores; may be called from several threads at once."""

    def __init__(self) -> None:
        self._rules = SentimentIntensityAnalyzer()
        self._emojis = {one: said for one, said in self._rules.emojis.items() if len(one) == 1}

    def judge(self, text: str) -> Scores:
        """The scores of a text of any length; time goes with its length."""
        if not text.isascii() and not self._emojis.keys().isdisjoint(text):
            text = self._spelled(text)
        words = [_bare(token) for token in text.split()]
        found = self._valences(words, [word.lower() for word in words])
        return Scores(**self._rules.score_valence(found, text))

    def _valences(self, words: list[str], lower: list[str]) -> list[float]:
        """What each word adds."""
        lexicon = self._rules.lexicon
        capitals = sum(map(str.isupper, words))
        window = _Window(0 < capitals < len(words))
        found: list[float] = [0] * len(words)
        for place, word in enumerate(lower):
            if word not in lexicon or word in BOOSTER_DICT:
                continue
            if word == "kind" and lower[place + 1 : place + 2] == ["of"]:
                continue
            first = max(place - _BACK, 0)
            window.words_and_emoticons = words[first : place + _AHEAD + 1]
            said = self._rules.sentiment_valence(0, window, words[place], place - first, [])
            found[place] = said[0]
        return _after_but(found, lower) if "but" in lower else found

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


class _Window:
    """A few words, as the package's rules want them (its ``SentiText``)."""

    def __init__(self, is_cap_diff: bool) -> None:
        self.is_cap_diff = is_cap_diff
        self.words_and_emoticons: list[str] = []


def _bare(token: str) -> str:
    bare = token.strip(string.punctuation)
    return bare if len(bare) > _EMOTICON_CHARS else token


def _after_but(found: list[float], lower: list[str]) -> list[float]:
    """Half of what was said before the first "but", and half again of what comes after it.

    The package changes the first word of an equal value, whichever word's turn it is; so does this.
    """
    but = lower.index("but")
    said = [place for place, value in enumerate(found) if value]
    for place in said:
        first = next(other for other in said if found[other] == found[place])
        if first != but:
            found[first] *= 0.5 if first < but else 1.5
    return found
