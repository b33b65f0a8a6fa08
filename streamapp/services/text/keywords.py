"""Keywords of one text: RAKE, or YAKE where it is installed."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, NamedTuple

import pyarrow as pa

from streamapp.plugin import Refuse
from streamapp.plugin.memo import Memo
from streamapp.services.text.words import words

Method = Literal["rake", "yake"]
#: ``score``: the higher, the more of a keyword, whatever the method.
KEYWORDS = pa.list_(pa.struct({"text": pa.string(), "score": pa.float32()}))

#: A word, or something that ends a phrase: a mark, or an empty line.
_PIECE = re.compile(r"\w[\w'\u2019-]*|[^\w\s]|\n\s*\n")


class Keyword(NamedTuple):
    """Lower-case words, one space between, and how much of a keyword they are."""

    text: str
    score: float


Extract = Callable[[str], list[Keyword]]


def extractor(method: Method, keywords_max: int, words_max: int) -> Extract:
    """Texts to their keywords, best first, the earlier first among equals.

    Args:
        method: ``rake`` or ``yake``.
        keywords_max: of one text.
        words_max: of one keyword.

    Raises:
        Refuse: ``text.yake``, it is not installed.
    """
    if method == "yake":
        return _yake(keywords_max, words_max)
    return lambda text: rake(text, keywords_max, words_max)


def rake(text: str, keywords_max: int, words_max: int) -> list[Keyword]:
    """Rapid Automatic Keyword Extraction (Rose, Engel, Cramer & Cowley 2010).

    A phrase is what stands between stop words and marks; a word weighs as much as the mean length
    of its phrases, and a phrase as much as its words.
    """
    phrases = _phrases(_PIECE.findall(text.lower()))
    count: dict[str, int] = {}
    degree: dict[str, int] = {}
    for phrase in phrases:
        size = len(phrase)
        for word in phrase:
            count[word] = count.get(word, 0) + 1
            degree[word] = degree.get(word, 0) + size
    scores = {
        phrase: sum([degree[word] / count[word] for word in phrase])
        for phrase in dict.fromkeys(phrases)
        if len(phrase) <= words_max
    }
    best = sorted(scores, key=scores.__getitem__, reverse=True)[:keywords_max]
    return [Keyword(" ".join(phrase), scores[phrase]) for phrase in best]


def _phrases(pieces: Sequence[str]) -> list[tuple[str, ...]]:
    """Runs of words that are no stop words; a run of digits alone is none."""
    phrases: list[tuple[str, ...]] = []
    first = 0
    ends = [place for place, ends in enumerate(map(_ends().__getitem__, pieces)) if ends]
    for place in (*ends, len(pieces)):
        if place > first:
            phrases.append(tuple(pieces[first:place]))
        first = place + 1
    return [
        phrase for phrase in phrases if not (phrase[0].isdecimal() and "".join(phrase).isdecimal())
    ]


@cache
def _ends() -> Memo[bool]:
    """Whether a piece ends a phrase."""
    stopwords = words("stopwords")
    return Memo(lambda piece: piece in stopwords or not (piece[0].isalnum() or piece[0] == "_"))


def _yake(keywords_max: int, words_max: int) -> Extract:
    try:
        import yake
    except ImportError:
        raise Refuse(
            "text.yake",
            "keyword_method: YAKE is not installed",
            "run: pip install 'streamapp[yake]', or take rake",
        ) from None
    found = yake.KeywordExtractor(lan="en", n=words_max, top=keywords_max)

    def extract(text: str) -> list[Keyword]:
        # YAKE's scores are the lower the better, from 0 on.
        return [
            Keyword(said.lower(), 1 / (1 + score)) for said, score in found.extract_keywords(text)
        ]

    return extract
