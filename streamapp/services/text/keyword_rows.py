"""``text.keywords``: a row for each keyword of each text."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Meta

from streamapp.plugin import BaseOperation, Config, Refuse, Sources, Work, column
from streamapp.plugin.operation import Parallel, Scope
from streamapp.plugin.words import groups
from streamapp.services.text.columns import added, fitting, text_field
from streamapp.services.text.keywords import KEYWORDS, Extract, Method, extractor

#: Rows between two reports of progress.
_ROWS = 1024
_NEW: dict[str, pa.DataType] = {
    "keyword": pa.string(),
    "score": pa.float32(),
    "rank": pa.int32(),
}


class KeywordsConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which keywords, and what of the text's row stands beside them."""

    #: With the texts.
    column: str = "text"
    #: Columns to keep; none: all but the texts.
    keep: Annotated[tuple[str, ...], Meta(max_length=1000)] | None = None
    #: Before the name of every new column.
    prefix: str = ""
    method: Method = "rake"
    keywords_max: Annotated[int, Meta(ge=1, le=1000)] = 10
    words_max: Annotated[int, Meta(ge=1, le=20)] = 4


class Keywords(BaseOperation):
    """``keyword``, ``score`` (the higher, the more of one) and ``rank`` (1 is the best).

    A text without keywords, or null, has no row.
    """

    Config: ClassVar[type[Config]] = KeywordsConfig
    scope: ClassVar[Scope] = "row"
    parallel: ClassVar[Parallel] = "processes"

    config: KeywordsConfig
    work: Work
    _extract: Extract

    def schema(
        self,
        inputs: Mapping[str, pa.Schema],
        sources: Sources,  # noqa: ARG002  # the contract's
    ) -> pa.Schema:
        """What is kept, and the new columns."""
        text_field(inputs, self.config.column)
        origin, schema = next(iter(inputs.items()))
        kept = [column(schema, name, origin, "config.keep") for name in self._kept(schema)]
        if len(set(self._kept(schema))) < len(kept):
            raise Refuse("text.twice", "config.keep names a column twice", "name each once")
        return added(pa.schema(kept), self._new(), origin)

    def open(self, work: Work) -> None:
        """Load what extracts."""
        self.work = work
        config = self.config
        self._extract = extractor(config.method, config.keywords_max, config.words_max)

    def run(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        """The keywords of all texts, in order."""
        table = fitting(next(iter(inputs.values())), self.config.column, self.work)
        found: list[pa.ListArray] = []
        for first in range(0, table.num_rows, _ROWS):
            part = table[self.config.column].slice(first, _ROWS).to_pylist()
            texts = [text or "" for text in part]
            found += [self._extract(texts[low:high], None) for low, high in groups(texts)]
            self.work.advance(len(part))
        lists = pa.chunked_array(found, KEYWORDS)
        keywords = pa.chunked_array([one.flatten() for one in found], KEYWORDS.value_type)
        counts = pc.list_value_length(lists).to_numpy().astype(np.int64)
        kept = table.select(self._kept(table.schema)).take(
            np.repeat(np.arange(len(counts)), counts)
        )
        firsts = np.repeat(np.cumsum(counts) - counts, counts)
        ranks = np.arange(1, len(firsts) + 1) - firsts
        values = [
            pc.struct_field(keywords, "text"),
            pc.struct_field(keywords, "score"),
            pa.chunked_array([pa.array(ranks, pa.int32())]),
        ]
        for (name, kind), value in zip(self._new().items(), values, strict=True):
            kept = kept.append_column(pa.field(name, kind), value)
        return kept

    def _kept(self, schema: pa.Schema) -> list[str]:
        if self.config.keep is not None:
            return list(self.config.keep)
        return [name for name in schema.names if name != self.config.column]

    def _new(self) -> dict[str, pa.DataType]:
        return {self.config.prefix + name: kind for name, kind in _NEW.items()}
