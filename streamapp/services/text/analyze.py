"""``text.analyze``: what a text is like, in columns behind those that it came with."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from msgspec import Meta

from streamapp.plugin import BaseOperation, Config, Sources, Work
from streamapp.plugin.operation import Parallel, Scope
from streamapp.services.text.analyzer import Analyzer, Wanted, types_of
from streamapp.services.text.columns import added, fitting, text_field
from streamapp.services.text.keywords import Method

#: Rows between two reports of progress.
_ROWS = 1024


class AnalyzeConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to find out; each answer is a column, or a few."""

    #: Of the input, with the texts.
    column: str = "text"
    #: Before the name of every new column.
    prefix: str = ""
    #: ``words``, ``sentences``, ``characters`` (that are no white space), ``syllables``.
    count_words: bool = True
    #: ``readability``: flesch, flesch_kincaid, gunning_fog, smog, coleman_liau, ari.
    measure_readability: bool = True
    #: ``sentiment`` (-1 to 1), ``sentiment_label`` (negative, neutral, positive) and
    #: ``sentiment_shares`` of the text.
    analyze_sentiment: bool = False
    #: ``keywords``, best first, each with its score.
    extract_keywords: bool = False
    keyword_method: Method = "rake"
    keywords_max: Annotated[int, Meta(ge=1, le=1000)] = 10
    keyword_words_max: Annotated[int, Meta(ge=1, le=20)] = 4
    #: ``language`` (ISO 639-1) and ``language_confidence``; what only makes sense of English
    #: (sentiment, readability, syllables, keywords) is then null for texts of other languages.
    detect_language: bool = False
    #: The languages to choose from; none: all.
    languages: Annotated[tuple[str, ...], Meta(max_length=200)] = ()

    @property
    def wanted(self) -> Wanted:
        return Wanted(
            counts=self.count_words,
            readability=self.measure_readability,
            sentiment=self.analyze_sentiment,
            keywords=self.extract_keywords,
            language=self.detect_language,
            languages=self.languages,
            keyword_method=self.keyword_method,
            keywords_max=self.keywords_max,
            keyword_words_max=self.keyword_words_max,
        )


class Analyze(BaseOperation):
    """Counts, readability, sentiment, keywords and language of each row's text.

    A row whose text is null keeps its place, with nulls; one whose text is too long is set aside.
    """

    Config: ClassVar[type[Config]] = AnalyzeConfig
    scope: ClassVar[Scope] = "row"
    parallel: ClassVar[Parallel] = "processes"

    config: AnalyzeConfig
    work: Work
    _analyzer: Analyzer

    def schema(
        self,
        inputs: Mapping[str, pa.Schema],
        sources: Sources,  # noqa: ARG002  # the contract's
    ) -> pa.Schema:
        """The input's columns and the new ones."""
        text_field(inputs, self.config.column)
        origin, schema = next(iter(inputs.items()))
        return added(schema, self._types(), origin)

    def open(self, work: Work) -> None:
        """Load lexicon and languages, where they are asked for."""
        self.work = work
        self._analyzer = Analyzer(self.config.wanted)

    def run(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        """The rows, with the new columns."""
        table = fitting(next(iter(inputs.values())), self.config.column, self.work)
        parts: dict[str, list[Any]] = {name: [] for name in self._types()}
        for first in range(0, table.num_rows, _ROWS):
            texts = table[self.config.column].slice(first, _ROWS).to_pylist()
            for name, found in self._analyzer.columns(texts).items():
                parts[self.config.prefix + name].append(found)
            self.work.advance(len(texts))
        for name, kind in self._types().items():
            table = table.append_column(pa.field(name, kind), pa.chunked_array(parts[name], kind))
        return table

    def _types(self) -> dict[str, pa.DataType]:
        return {
            self.config.prefix + name: kind for name, kind in types_of(self.config.wanted).items()
        }
