"""``integrate.match``: which records are of one thing, without merging them."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import polars as pl
import pyarrow as pa

from streamapp.plugin import BaseOperation, Sources, Work
from streamapp.services.integrate.clustering import Clustering, Clusters
from streamapp.services.integrate.config import Gathered
from streamapp.services.integrate.fields import ROW, SOURCE, as_arrow
from streamapp.services.integrate.gather import all_records
from streamapp.services.integrate.layout import Layout, layout_of
from streamapp.services.integrate.operation import declared_schemas, declared_tables, schemas
from streamapp.services.integrate.pace import Pace
from streamapp.services.integrate.ranking import ENTITY
from streamapp.services.integrate.survive import named

_PAIR = [
    ("left_source", pa.string()), ("left_row", pa.int64()),
    ("right_source", pa.string()), ("right_row", pa.int64()),
    ("score", pa.float32()),
]  # fmt: skip


class Matches(Gathered, frozen=True):
    """The ``config`` of ``integrate.match``.

    ``result``: ``records`` are all records with the number of their thing in ``_entity``;
    ``pairs`` are the links, whose ``score`` is null where keys are equal.
    """

    result: Literal["records", "pairs"] = "records"


class Match(BaseOperation):
    """Finds out which records are of one thing."""

    Config = Matches
    inputs: ClassVar[tuple[int, int | None]] = (1, None)

    def schema(self, inputs: Mapping[str, pa.Schema], sources: Sources) -> pa.Schema:
        """The common columns, ``_source``, ``_row`` and ``_entity``; or those of pairs."""
        layout = layout_of(self.config, inputs, declared_schemas(self.config, sources), 1)
        Clustering(self.config, layout)
        return self._result(layout)

    def open(self, work: Work) -> None:
        """Read the declared sources."""
        super().open(work)
        self._declared = declared_tables(self.config, work)

    def run(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        """The records in source order, or the pairs by their first records."""
        pace = Pace(self.work, None)
        layout = layout_of(self.config, schemas(inputs), schemas(self._declared), 1)
        records = all_records({**inputs, **self._declared}, layout, self.work, pace)
        found = Clustering(self.config, layout).clusters(records, self.work, pace)
        if self.config.result == "pairs":
            return as_arrow(_pairs(records, found, layout), self._result(layout), pace)
        told = records.with_columns(named(SOURCE, layout.names), found.entities)
        return as_arrow(told, self._result(layout), pace)

    def _result(self, layout: Layout) -> pa.Schema:
        if self.config.result == "pairs":
            return pa.schema(_PAIR)
        added = [(SOURCE, pa.string()), (ROW, pa.int64()), (ENTITY, pa.int64())]
        return pa.schema([*layout.common, *(pa.field(*column) for column in added)])


def _pairs(records: pl.DataFrame, found: Clusters, layout: Layout) -> pl.DataFrame:
    links = found.links.sort("left", "right")
    columns = {"score": links["score"]}
    for side in ("left", "right"):
        ends = records.select(named(SOURCE, layout.names), ROW)[links[side]]
        columns |= {f"{side}_source": ends[SOURCE], f"{side}_row": ends[ROW]}
    return pl.DataFrame(columns)
