"""Keywords of texts: RAKE, or YAKE where it is installed."""

import re
from collections.abc import Callable, Container, Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streamapp.plugin import Refuse
from streamapp.plugin.memo import Memo
from streamapp.plugin.words import Tokens, tokens_of
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


#: Some texts, of no more than about ``tokens.CHARS_MAX`` together, and their tokens, where they are
#: known, to ``KEYWORDS``.
Extract = Callable[[Sequence[str], Tokens | None], pa.ListArray]
_Ints = npt.NDArray[np.int64]


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
    return lambda texts, tokens: rake(texts, keywords_max, words_max, tokens)


def rake(
    texts: Sequence[str], keywords_max: int, words_max: int, tokens: Tokens | None = None
) -> pa.ListArray:
    """Rapid Automatic Keyword Extraction (Rose, Engel, Cramer & Cowley 2010).

    A phrase is what stands between stop words and marks; a word weighs as much as the mean length
    of its phrases, and a phrase as much as its words.

    Args:
        texts: as of an ``Extract``.
        keywords_max: of one text.
        words_max: of one keyword; longer phrases only weigh.
        tokens: of these texts, where they are known.
    """
    parted = [_EMPTY_LINE.sub(" . ", text) if "\n" in text else text for text in texts]
    if tokens is None or parted != texts:
        tokens = tokens_of(parted)
    phrases = _phrases(tokens)
    (which,) = np.nonzero(phrases.lengths <= words_max)
    scores, short = _scores(phrases)[which], phrases.only(which)
    said = short.said().dictionary_encode()
    # The first of each phrase of a text; then the best of each text, of which the first come first.
    named = short.texts * len(said.dictionary) + said.indices.to_numpy()
    first = np.sort(np.unique(named, return_index=True)[1])
    order = first[np.lexsort((-scores[first], short.texts[first]))]
    counts = np.bincount(short.texts[order], minlength=len(texts))
    ranks = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    best = order[ranks < keywords_max]
    found = said.take(pa.array(best)).dictionary_decode()
    return _listed(found, scores[best], np.minimum(counts, keywords_max))


class _Phrases(NamedTuple):
    """Runs of words between stop words and marks, of all texts, in order.

    Attributes:
        texts: [phrases], the text that each is of.
        starts: [phrases], of the first word of each.
        lengths: [phrases], in words.
        words: [words], the place of each word in ``unique``.
        unique: each word once.
    """

    texts: _Ints
    starts: _Ints
    lengths: _Ints
    words: _Ints
    unique: pa.StringArray

    def only(self, which: _Ints) -> "_Phrases":
        """Some of the phrases."""
        lengths = self.lengths[which]
        words = self.words[_runs(self.starts[which], lengths)]
        starts = np.cumsum(lengths) - lengths
        return _Phrases(self.texts[which], starts, lengths, words, self.unique)

    def said(self) -> pa.StringArray:
        """[phrases]: the words with one space between."""
        ends = pa.array(np.append(self.starts, len(self.words)), pa.int32())
        words = self.unique.take(pa.array(self.words))
        return pc.binary_join(pa.ListArray.from_arrays(ends, words), " ")


def _phrases(tokens: Tokens) -> _Phrases:
    """A run of words with all its words; a run of digits alone is none."""
    said = pa.array(list(map(_said().__getitem__, tokens.unique)), pa.string())
    split = pc.split_pattern(said, " ")
    encoded = split.flatten().dictionary_encode()
    bounds = split.offsets.to_numpy().astype(np.int64)
    many = np.diff(bounds)[tokens.codes]
    pieces = encoded.indices.to_numpy()[_runs(bounds[tokens.codes], many)]
    texts = np.repeat(tokens.texts, many)
    (there,) = np.nonzero(pieces != pc.index(encoded.dictionary, _END).as_py())
    words, texts = pieces[there].astype(np.int64), texts[there]
    begins = np.ones(len(there), np.bool_)
    begins[1:] = (np.diff(there) > 1) | (np.diff(texts) > 0)
    (starts,) = np.nonzero(begins)
    lengths = np.diff(starts, append=len(words))
    found = _Phrases(texts[starts], starts, lengths, words, encoded.dictionary)
    numbers = pc.utf8_is_decimal(encoded.dictionary).to_numpy(zero_copy_only=False)
    if not numbers[words].any():
        return found
    (kept,) = np.nonzero(~np.logical_and.reduceat(numbers[words], starts))
    return found.only(kept)


def _scores(phrases: _Phrases) -> npt.NDArray[np.float64]:
    """[phrases]: the weights of its words, in their text."""
    texts = np.repeat(phrases.texts, phrases.lengths)
    _, words = np.unique(texts * len(phrases.unique) + phrases.words, return_inverse=True)
    lengths = np.bincount(words, np.repeat(phrases.lengths, phrases.lengths))
    weights = (lengths / np.bincount(words))[words]
    places = np.repeat(np.arange(len(phrases.lengths)), phrases.lengths)
    return np.bincount(places, weights).astype(np.float64)


def _runs(starts: _Ints, lengths: _Ints) -> _Ints:
    """Places of so many from each start on."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)


def _listed(
    said: pa.StringArray, scores: npt.NDArray[np.float64], counts: Sequence[int] | _Ints
) -> pa.ListArray:
    """Keywords of texts that have so many each."""
    kind = KEYWORDS.value_type
    values = pa.StructArray.from_arrays([said, pa.array(scores, pa.float32())], fields=list(kind))
    ends = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    return pa.ListArray.from_arrays(ends, values, KEYWORDS)


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

    def extract(texts: Sequence[str], _: Tokens | None) -> pa.ListArray:
        every = [found.extract_keywords(text) if text else [] for text in texts]
        said = pa.array([said.lower() for some in every for said, _ in some], pa.string())
        # YAKE's scores are the lower the better, from 0 on.
        scores = np.array([1 / (1 + score) for some in every for _, score in some])
        return _listed(said, scores, [len(some) for some in every])

    return extract
