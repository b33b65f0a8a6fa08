"""Texts to columns: what the operation, the stage, the Python API and the command line share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from streamapp.plugin.vader import Scores, Vader
from streamapp.services.text.keywords import KEYWORDS, Method, extractor
from streamapp.services.text.language import Languages
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

#: A text, and whether it is English, to the values of a group's columns.
_Work = Callable[[str, bool], Sequence[Any]]


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
        self._then: list[_Work] = []
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
        told = None if languages is None else iter(languages)
        rows = [self._row(text, next(told) if told else ENGLISH) for text in texts]
        values = zip(*rows, strict=True) if rows else ([] for _ in self._types)
        return {
            name: pa.array(column, kind)
            for (name, kind), column in zip(self._types.items(), values, strict=True)
        }

    def _row(self, text: str | None, language: str | None) -> list[Any]:
        if text is None:
            return [None] * len(self._types)
        told: Sequence[Any] = ()
        if self._languages is not None:
            told = self._languages.tell(text)
            language = told[0]
        english = language == ENGLISH
        first = [value for work in self._first for value in work(text, english)]
        return [*first, *told, *(value for work in self._then for value in work(text, english))]


def _measuring(wanted: Wanted) -> _Work:
    measures = Measures()

    def measure(text: str, english: bool) -> list[Any]:
        counts = measures.count(text)
        heard = counts.syllables if english else None
        values: list[Any] = []
        if wanted.counts:
            values += [counts.words, counts.sentences, counts.characters, heard]
        if wanted.readability:
            found = readability(counts) if english else None
            values.append(found and found._asdict())
        return values

    return measure


def _judging(vader: Vader) -> _Work:
    def judge(text: str, english: bool) -> list[Any]:
        if not english:
            return [None, None, None]
        scores = vader.judge(text)
        shares = {"negative": scores.neg, "neutral": scores.neu, "positive": scores.pos}
        return [scores.compound, mood(scores), shares]

    return judge


def mood(scores: Scores) -> str:
    """``positive``, ``neutral`` or ``negative``."""
    if scores.compound >= MOOD:
        return "positive"
    return "negative" if scores.compound <= -MOOD else "neutral"


def _extracting(wanted: Wanted) -> _Work:
    extract = extractor(wanted.keyword_method, wanted.keywords_max, wanted.keyword_words_max)

    def keywords(text: str, english: bool) -> list[Any]:
        return [[one._asdict() for one in extract(text)] if english else None]

    return keywords
