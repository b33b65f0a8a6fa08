"""``text.similarity``: which documents are alike."""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
from msgspec import Meta

from streamapp.plugin import BaseOperation, Config, Embedder, Refuse, Sources, Work, column
from streamapp.services.text.columns import fitting, text_field
from streamapp.services.text.minhash import likely_pairs
from streamapp.services.text.sets import Pairs, exact_pairs, sets_of

Method = Literal["auto", "jaccard", "minhash", "cosine"]
#: Up to so many documents ``auto`` compares all of them.
EXACT_MAX = 10_000
#: More pairs say nothing to anybody.
PAIRS_MAX = 5_000_000
#: Rows that are compared with all others at once, and texts that are embedded at once.
_BLOCK, _TEXTS = 256, 512


class SimilarityConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to compare, and how."""

    #: With the texts.
    column: str = "text"
    #: That names a document.
    key: str = "document_id"
    #: ``jaccard``: the share of words that two texts have in common, all pairs, exact; ``minhash``:
    #: the same, but pairs that are just as alike as ``threshold`` are missed in one of twenty
    #: cases; ``cosine``: of a model's vectors; ``auto``: jaccard, or minhash for many documents.
    method: Method = "auto"
    threshold: Annotated[float, Meta(gt=0, le=1)] = 0.5
    #: Runs of so many words are compared, not words alone.
    shingle: Annotated[int, Meta(ge=1, le=50)] = 1
    #: For each document only the so many most alike, and each pair from both sides.
    nearest_max: Annotated[int, Meta(ge=1, le=1000)] | None = None
    #: An embedder's name, for ``cosine``; none: the default one.
    model: str | None = None


class Similarity(BaseOperation):
    """Pairs of documents that are alike: ``KEY``, ``similar_KEY``, ``similarity`` (0 to 1).

    Each pair is there once, in the order of documents; texts that are null or empty are like none.
    """

    Config: ClassVar[type[Config]] = SimilarityConfig

    config: SimilarityConfig
    work: Work
    _embedder: Embedder

    def schema(
        self,
        inputs: Mapping[str, pa.Schema],
        sources: Sources,  # noqa: ARG002  # the contract's
    ) -> pa.Schema:
        """Three columns; the first two are of the key's type."""
        text_field(inputs, self.config.column)
        origin, schema = next(iter(inputs.items()))
        return self._schema(column(schema, self.config.key, origin, "config.key").type)

    def open(self, work: Work) -> None:
        """Load the model, where one is asked for."""
        self.work = work
        if self.config.method == "cosine":
            self._embedder = work.models.embedder(self.config.model)

    def run(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        """The pairs.

        Raises:
            Refuse: ``text.pairs``, there are too many.
        """
        table = fitting(next(iter(inputs.values())), self.config.column, self.work)
        found: list[Pairs] = []
        for pairs in self._pairs(table[self.config.column].to_pylist()):
            found.append(pairs)
            self._check(sum(len(one.left) for one in found))
        joined = Pairs(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
        if self.config.nearest_max is not None:
            joined = nearest(joined, self.config.nearest_max)
        keys = table[self.config.key]
        schema = self._schema(keys.type)
        columns = [keys.take(joined.left), keys.take(joined.right), pa.array(joined.similarity)]
        return pa.table(columns, schema=schema)

    def _pairs(self, texts: list[str | None]) -> Iterator[Pairs]:
        method, threshold = self.config.method, self.config.threshold
        none = np.empty(0, np.int64)
        yield Pairs(none, none, np.empty(0, np.float32))
        if method == "cosine":
            yield from self._near(texts)
            return
        sets = sets_of(texts, self.config.shingle)
        if method == "minhash" or (method == "auto" and len(texts) > EXACT_MAX):
            yield likely_pairs(sets, threshold, PAIRS_MAX)
            self.work.advance(len(texts))
        else:
            yield from exact_pairs(sets, threshold, self.work.advance)

    def _near(self, texts: list[str | None]) -> Iterator[Pairs]:
        """Pairs of near vectors; those of the model are of unit length."""
        said = [text or None for text in texts]
        parts = [
            self._embedder.embed(said[first : first + _TEXTS], "passage")[0]
            for first in range(0, len(said), _TEXTS)
        ]
        vectors = np.concatenate([np.empty((0, self._embedder.dim), np.float32), *parts])
        vectors = np.nan_to_num(vectors, copy=False)
        for first in range(0, len(vectors), _BLOCK):
            block = vectors[first : first + _BLOCK]
            near = np.triu(block @ vectors[first:].T, 1)
            left, right = np.nonzero(near >= np.float32(self.config.threshold))
            yield Pairs(left + first, right + first, np.minimum(near[left, right], 1))
            self.work.advance(len(block))

    def _check(self, pairs: int) -> None:
        if pairs > PAIRS_MAX:
            raise Refuse(
                "text.pairs",
                f"more than {PAIRS_MAX:,} pairs are at least {self.config.threshold:g} alike",
                "raise config.threshold, or compare longer runs: config.shingle",
            )

    def _schema(self, key: pa.DataType) -> pa.Schema:
        name = self.config.key
        return pa.schema({name: key, f"similar_{name}": key, "similarity": pa.float32()}.items())


def nearest(pairs: Pairs, most: int) -> Pairs:
    """Each pair from both sides; for each row the most alike, the earlier first among equals."""
    left = np.concatenate([pairs.left, pairs.right])
    right = np.concatenate([pairs.right, pairs.left])
    similarity = np.concatenate([pairs.similarity, pairs.similarity])
    order = np.lexsort((right, -similarity, left))
    left, right, similarity = left[order], right[order], similarity[order]
    first = np.searchsorted(left, left)
    kept = np.arange(len(left)) - first < most
    return Pairs(left[kept], right[kept], similarity[kept])
