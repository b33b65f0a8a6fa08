"""Counts of a text, and six measures of how readable it is.

What a word, a letter and a sentence is follows PyPI textstat 0.7, so that its numbers are ours.
"""

import re
from typing import NamedTuple

from streamapp.plugin.memo import Memo
from streamapp.services.text.syllables import syllables
from streamapp.services.text.words import words

#: A stretch up to its stops; one of two words or fewer is no sentence (an abbreviation, a heading).
_SENTENCE = re.compile(r"\b[^.!?]+[.!?]*")
_SHORT = 2
_QUOTE = re.compile(r"'(?![tsd]|ve|ll|re)")
_PUNCTUATION = re.compile(r"[^\w\s']")
#: Words of so many syllables are hard ones.
_HARD = 3
#: Each count of a token has its own bits of one number: a sum of tokens is all sums at once.
_LANE = 32
_MASK = (1 << _LANE) - 1


class Counts(NamedTuple):
    """Of one text.  ``characters`` are those that are no white space."""

    characters: int
    letters: int
    tokens: int
    words: int
    syllables: int
    #: Words of three syllables or more, and those of them that are not familiar ones.
    long_words: int
    hard_words: int
    sentences: int


class Readability(NamedTuple):
    """Six measures; all but the first are school grades of the United States."""

    #: 0 (hard) to 100 (easy); Flesch 1948.
    flesch: float
    #: Kincaid et al. 1975.
    flesch_kincaid: float
    #: Gunning 1952.
    gunning_fog: float
    #: McLaughlin 1969; made for thirty sentences or more.
    smog: float
    #: Coleman & Liau 1975.
    coleman_liau: float
    #: The Automated Readability Index; Senter & Smith 1967.
    ari: float


class Measures:
    """Texts to counts; may be called from several threads at once."""

    def __init__(self) -> None:
        self._tokens = Memo(_packed)

    def count(self, text: str) -> Counts:
        """Time goes with the text's length."""
        ask = self._tokens.__getitem__
        total = sum(map(ask, text.split()))
        lanes = [total >> (_LANE * lane) & _MASK for lane in range(7)]
        sentences = 0
        for stretch in _SENTENCE.findall(text):
            said = stretch.split()
            if len(said) > _SHORT and (sum(map(ask, said)) >> (_LANE * 3) & _MASK) > _SHORT:
                sentences += 1
        return Counts._make([*lanes, max(sentences, 1) if text else 0])


def readability(counts: Counts) -> Readability | None:
    """The measures; None for a text without a word."""
    words, sentences = counts.words, counts.sentences
    if not words:
        return None
    length, weight = words / sentences, counts.syllables / words
    letters, shares = counts.letters / words * 100, sentences / words * 100
    return Readability(
        flesch=206.835 - 1.015 * length - 84.6 * weight,
        flesch_kincaid=(0.39 * length) + (11.8 * weight) - 15.59,
        gunning_fog=0.4 * (length + 100 * counts.hard_words / words),
        smog=(1.043 * (30 * (counts.long_words / sentences)) ** 0.5) + 3.1291,
        coleman_liau=(0.058 * letters) - (0.296 * shares) - 15.8,
        ari=(4.71 * (counts.characters / counts.tokens)) + (0.5 * length) - 21.43,
    )


def _packed(token: str) -> int:
    """The counts of a token, each in its bits."""
    word = _PUNCTUATION.sub("", _QUOTE.sub("", token))
    letters = len(word.replace("'", ""))
    lower = word.lower()
    heard = syllables(lower) if word else 0
    is_long = heard >= _HARD
    is_hard = is_long and lower not in words("familiar")
    lanes = (len(token), letters, 1, bool(word), heard, is_long, is_hard)
    return sum(int(value) << (_LANE * lane) for lane, value in enumerate(lanes))
