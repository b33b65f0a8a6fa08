"""Which language a text is in, by byte n-grams (PyPI package py3langid)."""

import copy
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import pyarrow as pa

from streamapp.plugin import BaseStage, Batch, Columns, Models, Refuse, float32, string

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

#: The beginning of a text tells its language; the rest would only cost time.
CHARS_MAX = 2000


class Language(BaseStage):
    """The likeliest language.

    Writes ``language`` (ISO 639-1) and ``language_confidence`` (probability, 0 to 1); null without
    text.  Option ``languages`` restricts the answer to a set of codes: short messages are then told
    apart well.
    """

    name = "language"
    reads = ("text",)
    writes: Mapping[str, pa.DataType] = {"language": string, "language_confidence": float32}
    accepts: Mapping[str, type] = {"languages": list}

    _identifier: "LanguageIdentifier"

    def open(self, models: Models) -> None:  # noqa: ARG002  # the contract's
        self._identifier = copy.copy(_model())  # with languages of its own
        languages = self.options.get("languages")
        if not languages:
            return
        unknown = [code for code in languages if code not in self._identifier.labels]
        if unknown:
            raise Refuse(
                "stage.option",
                f"stage 'language': {unknown[0]!r} is no language it knows",
                f"use codes such as {', '.join(self._identifier.labels[:12])}",
            )
        self._identifier.set_languages(languages)

    def enrich(self, batch: Batch) -> Columns:
        found = [
            self._identifier.classify(text[:CHARS_MAX]) if text and text.strip() else (None, None)
            for text in batch.strings("text")
        ]
        return {
            "language": pa.array([code for code, _ in found], string),
            "language_confidence": pa.array([sure for _, sure in found], float32),
        }


@cache
def _model() -> "LanguageIdentifier":
    """For all stages of a process: it is 68 MB, and half a second to unpack."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
