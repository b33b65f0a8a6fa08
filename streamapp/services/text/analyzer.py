"""Texts to columns: what the operation, the stage, the Python API and the command line share."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from streamapp.plugin.vader import Scores, Vader
from streamapp.plugin.words import Tokens, groups, tokens_of
from streamapp.services.text.keywords import KEYWORDS, Method, extractor
from streamapp.services.text.language import NOTHING, Languages
from streamapp.services.text.measures import Measures, Readability, readability

#: The language of the lexicon, of the stop words and of the measures of readability.
ENGLISH = "en"
#: From here on a text is positive, and below its opposite negative (Hutto & Gilbert).
MOOD = 0.05

COUNTS = {name: pa.int32() for name in ("words", "sentences", "characters", "syllables")}
READABILITY = {
    "readability": pa.struct({name: pa.float64() for name in Readability._fields}),
}
SENTIMENT = {
    "sentiment": pa.float64(),
    "sentiment_label": pa.string(),
    "sentiment_shares": pa.struct(
        {name: pa.float64() for name in ("negative", "neutral", "positive")}
    ),
}
LANGUAGE = {"language": pa.string(), "language_confidence": pa.float32()}

#: Texts, and the same without those that are not English, to a group's columns.
_Texts = Sequence[str | None]
_Work = Callable[[_Texts, _Texts], Sequence[pa.Array]]
#: English texts and their tokens to a group's columns.
_Reading = Callable[[Sequence[str], Tokens], Sequence[pa.Array]]


class Wanted(NamedTuple):
    """What to find out about a text; the keys of ``text.analyze``."""

    counts: bool = True
    readability: bool = True
    sentiment: bool = False
    keywords: bool = False
    language: bool = False
    languages: Sequence[str] = ()
    keyword_method: Method = "rake"
    keywords_max: int = 10
    keyword_words_max: int = 4


def types_of(wanted: Wanted) -> dict[str, pa.DataType]:
    """The columns that an Analyzer of this will give, in order."""
    groups: list[tuple[bool, Mapping[str, pa.DataType]]] = [
        (wanted.counts, COUNTS),
        (wanted.readability, READABILITY),
        (wanted.language, LANGUAGE),
        (wanted.sentiment, SENTIMENT),
        (wanted.keywords, {"keywords": KEYWORDS}),
    ]
    return {name: kind for asked, group in groups if asked for name, kind in group.items()}


class Analyzer:
    """Texts to columns; may be called from several threads at once.

    Raises:
        Refuse: what is asked for is not installed, or not known.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._types = types_of(wanted)
        self._languages = Languages(wanted.languages) if wanted.language else None
        #: Groups of columns before and behind that of the language.
        self._first: list[_Work] = []
        self._then: list[_Reading] = []
        if wanted.counts or wanted.readability:
            self._first.append(_measuring(wanted))
        if wanted.sentiment:
            self._then.append(_judging(Vader()))
        if wanted.keywords:
            self._then.append(_extracting(wanted))

    def columns(
        self, texts: Sequence[str | None], languages: Sequence[str | None] | None = None
    ) -> dict[str, pa.Array]:
        """A column for each name of ``types_of``, as long as ``texts``.

        What only makes sense of English is null for a text of another language, and all is null
        for a text that is None.

        Args:
            texts: of any length.
            languages: of the texts, where they are known; else all are English, or as they are
                told to be where that was asked for.
        """
        parts = [
            self._columns(texts[first:end], languages and languages[first:end])
            for first, end in groups(texts)
        ]
        return {name: pa.concat_arrays([part[name] for part in parts]) for name in self._types}

    def _columns(
        self, texts: _Texts, languages: Sequence[str | None] | None
    ) -> dict[str, pa.Array]:
        told: Sequence[pa.Array] = ()
        if self._languages is not None:
            tell = self._languages.tell
            found = [NOTHING if text is None else tell(text) for text in texts]
            languages = [one.language for one in found]
            told = _arrays(found, LANGUAGE.values())
        english = texts
        if languages is not None:
            english = [
                text if language == ENGLISH else None
                for text, language in zip(texts, languages, strict=True)
            ]
        first = [column for work in self._first for column in work(texts, english)]
        return dict(zip(self._types, [*first, *told, *self._read(english)], strict=True))

    def _read(self, english: _Texts) -> list[pa.Array]:
        """The columns behind that of the language; texts are cut into words once for all."""
        if not self._then:
            return []
        texts = [text for text in english if text is not None]
        tokens = tokens_of(texts)
        found = [column for work in self._then for column in work(texts, tokens)]
        if len(texts) == len(english):
            return found
        there = np.array([text is not None for text in english], np.bool_)
        places = pa.array(np.cumsum(there) - 1, mask=~there)
        return [column.take(places) for column in found]


def _arrays(rows: Sequence[Sequence[Any] | None], kinds: Collection[pa.DataType]) -> list[pa.Array]:
    """An array for each value of the rows; a row that is None has nulls."""
    nulls = (None,) * len(kinds)
    columns = zip(*(row or nulls for row in rows), strict=True) if rows else [()] * len(kinds)
    return [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]


def _structs(rows: Sequence[Sequence[Any] | None], kind: pa.StructType) -> pa.StructArray:
    """The rows as one column."""
    values = _arrays(rows, [field.type for field in kind])
    missing = pa.array([row is None for row in rows], pa.bool_())
    return pa.StructArray.from_arrays(values, fields=list(kind), mask=missing)


def _measuring(wanted: Wanted) -> _Work:
    measures = Measures()

    def measure(texts: _Texts, english: _Texts) -> list[pa.Array]:
        counts = [None if text is None else measures.count(text) for text in texts]
        heard = [
            one if text is not None else None for one, text in zip(counts, english, strict=True)
        ]
        columns: list[pa.Array] = []
        if wanted.counts:
            rows = [one and (one.words, one.sentences, one.characters) for one in counts]
            columns += _arrays(rows, list(COUNTS.values())[:3])
            columns.append(pa.array([one and one.syllables for one in heard], COUNTS["syllables"]))
        if wanted.readability:
            found = [one and readability(one) for one in heard]
            columns.append(_structs(found, READABILITY["readability"]))
        return columns

    return measure


def _judging(vader: Vader) -> _Reading:
    def judge(texts: Sequence[str], tokens: Tokens) -> list[pa.Array]:
        scores = vader.judge(texts, tokens)
        numbers = [one.compound for one in scores]
        labels = [mood(one) for one in scores]
        shares = [(one.neg, one.neu, one.pos) for one in scores]
        return [
            pa.array(numbers, SENTIMENT["sentiment"]),
            pa.array(labels, SENTIMENT["sentiment_label"]),
            _structs(shares, SENTIMENT["sentiment_shares"]),
        ]

    return judge


def mood(scores: Scores) -> str:
    """``positive``, ``neutral`` or ``negative``."""
    if scores.compound >= MOOD:
        return "positive"
    return "negative" if scores.compound <= -MOOD else "neutral"


def _extracting(wanted: Wanted) -> _Reading:
    extract = extractor(wanted.keyword_method, wanted.keywords_max, wanted.keyword_words_max)
    return lambda texts, tokens: [extract(texts, tokens)]
