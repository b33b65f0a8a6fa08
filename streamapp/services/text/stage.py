"""The stage ``text``: what ``text.analyze`` says of documents, of events."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from streamapp.plugin import BaseStage, Batch, Columns, Models
from streamapp.services.text.analyzer import Analyzer, Wanted, types_of


class Text(BaseStage):
    """Counts, readability and keywords of an event's text.

    Writes ``words``, ``sentences``, ``characters``, ``syllables``, ``readability`` (flesch,
    flesch_kincaid, gunning_fog, smog, coleman_liau, ari) and ``keywords`` (text and score, best
    first).  Syllables, readability and keywords are of English, and null for any other language.

    Options: ``readability`` and ``keywords`` (false leaves the columns out), ``keywords_max`` (5),
    ``keyword_words_max`` (4).
    """

    name = "text"
    reads = ("text", "language")
    accepts: Mapping[str, type] = {
        "readability": bool,
        "keywords": bool,
        "keywords_max": int,
        "keyword_words_max": int,
    }

    _analyzer: Analyzer

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        self._wanted = Wanted(
            readability=self.options.get("readability", True),
            keywords=self.options.get("keywords", True),
            keywords_max=self.options.get("keywords_max", 5),
            keyword_words_max=self.options.get("keyword_words_max", 4),
        )
        self.writes: Mapping[str, pa.DataType] = types_of(self._wanted)

    def open(self, models: Models) -> None:  # noqa: ARG002  # the contract's
        self._analyzer = Analyzer(self._wanted)

    def enrich(self, batch: Batch) -> Columns:
        texts = [text or None for text in batch.strings("text")]
        return self._analyzer.columns(texts, list(batch.strings("language")))
