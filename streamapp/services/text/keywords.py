"""Keywords of one text: RAKE, or YAKE where it is installed."""

import re
from collections import Counter
from collections.abc import Callable, Container
from functools import cache
from typing import Literal, NamedTuple

import pyarrow as pa

from streamapp.plugin import Refuse
from streamapp.plugin.memo import Memo
from streamapp.services.text.words import words

Method = Literal["rake", "yake"]
#: ``score``: the higher, the more of a keyword, whatever the method.
KEYWORDS = pa.list_(pa.struct({"text": pa.string(), "score": pa.float32()}))

#: A word, or a mark, which ends a phrase; so does an empty line.
_PIECE = re.compile(r"\w[\w'\u2019-]*|[^\w\s]")
_EMPTY_LINE = re.compile(r"\n\s*\n")
#: Stands between phrases.
_END = "\n"


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
    phrases = _phrases(text)
    longer = {phrase: phrase.split() for phrase in phrases if " " in phrase}
    uses: dict[str, int] = {}
    lengths: dict[str, int] = {}
    for phrase, parts in longer.items():
        times = phrases[phrase]
        length = len(parts) * times
        for word in parts:
            alone = phrases.get(word, 0)
            uses[word] = uses.get(word, alone) + times
            lengths[word] = lengths.get(word, alone) + length
    weights = {word: lengths[word] / uses[word] for word in uses}
    scores = {phrase: weights.get(phrase, 1.0) for phrase in phrases}
    for phrase, parts in longer.items():
        if len(parts) <= words_max:
            scores[phrase] = sum([weights[word] for word in parts])
        else:
            del scores[phrase]
    best = sorted(scores, key=scores.__getitem__, reverse=True)[:keywords_max]
    return [Keyword(phrase, scores[phrase]) for phrase in best]


def _phrases(text: str) -> dict[str, int]:
    """How often each phrase is there, in their order; a run of digits alone is none.

    It is a run of words that are no stop words, with one space between.
    """
    if "\n" in text:
        text = _EMPTY_LINE.sub(" . ", text)
    said = " ".join(map(_said().__getitem__, text.split()))
    found = Counter(map(str.strip, said.split(_END)))
    return {
        phrase: times
        for phrase, times in found.items()
        if phrase and not (phrase[0].isdecimal() and phrase.replace(" ", "").isdecimal())
    }


@cache
def _said() -> Memo[str]:
    """What stands between spaces, as words with spaces between, and ends of phrases."""
    stopwords = words("stopwords")

    def said(token: str) -> str:
        lower = token.lower()
        pieces = [lower] if lower.isalpha() else _PIECE.findall(lower)
        return " ".join([_END if _ends(piece, stopwords) else piece for piece in pieces])

    return Memo(said)


def _ends(piece: str, stopwords: Container[str]) -> bool:
    return piece in stopwords or not (piece[0].isalnum() or piece[0] == "_")


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
