"""Full outer join, intersection and union: records of all sources, one row for each thing."""

from collections.abc import Mapping

import polars as pl
import pyarrow as pa

from streamapp.plugin import Refuse, Work
from streamapp.services.integrate.clustering import Clustering
from streamapp.services.integrate.config import Conflict, Integration, Matching
from streamapp.services.integrate.fields import ROW, SOURCE, as_arrow
from streamapp.services.integrate.gather import all_records
from streamapp.services.integrate.layout import Layout, rules_of, survivors_of, with_reports
from streamapp.services.integrate.pace import Pace
from streamapp.services.integrate.ranking import ENTITY
from streamapp.services.integrate.report import TORN, merged_of, torn_apart
from streamapp.services.integrate.survive import Survivor, named


class Entities:
    """One row for each thing that records of any source are of, in the order of the first records.

    Args:
        config: of the integration; in an ``intersection`` every source has a record of a thing.
        layout: of its sources.

    Raises:
        Refuse: matching or a strategy does not fit its columns.
    """

    def __init__(self, config: Integration, layout: Layout) -> None:
        self._config, self._layout = config, layout
        self._clustering = Clustering(config, layout)
        self._rules = rules_of(config, layout)
        names = layout.common.names
        self._survivors = survivors_of(config, layout, names)
        fields = [survivor.result for survivor in self._survivors]
        self.schema = with_reports(config, fields, names)

    def run(self, tables: Mapping[str, pa.Table], work: Work, pace: Pace) -> pa.Table:
        """The merged records, as ``schema`` says."""
        return as_arrow(self._merged(tables, work, pace), self.schema, pace)

    def _merged(self, tables: Mapping[str, pa.Table], work: Work, pace: Pace) -> pl.DataFrame:
        records = all_records(tables, self._layout, work, pace)
        records = records.with_columns(self._clustering.clusters(records, work, pace).entities)
        pace.check()
        if self._config.mode == "intersection":
            records = self._shared(records)
        merged = merged_of(records, self._survivors, self._rules, self._config.report, pace)
        torn = torn_apart(merged, self._survivors)
        if torn.any():
            apart = merged.filter(torn)[ENTITY]
            kept = (*self._layout.common.names, named(SOURCE, self._layout.names), ROW)
            aside = records.filter(pl.col(ENTITY).is_in(apart.implode())).select(kept)
            work.quarantine(aside.to_arrow(), TORN)
            merged = merged.filter(~torn)
        return merged

    def _shared(self, records: pl.DataFrame) -> pl.DataFrame:
        sources = pl.col(SOURCE).n_unique().over(ENTITY)
        shared = records.filter(sources == len(self._layout.shapes))
        return shared.with_columns((pl.col(ENTITY).rank("dense") - 1).cast(pl.UInt32))


class Stack:
    """All records of all sources, one after the other, in common columns; nothing is merged.

    Args:
        config: of the integration.
        layout: of its sources.

    Raises:
        Refuse: it says how to match or to merge.
    """

    def __init__(self, config: Integration, layout: Layout) -> None:
        if config.conflicts or isinstance(config.matching_strategy, Matching):
            key = "conflicts" if config.conflicts else "matching_strategy"
            why = f"config.{key}: a union keeps every record as it is"
            raise Refuse("integrate.mode", why, "leave it out, or say mode: full_outer_join")
        self._config, self._layout = config, layout
        self._rules = rules_of(config, layout)
        self._survivors = [
            Survivor(field, Conflict(strategy="first_non_null")) for field in layout.common
        ]
        self.schema = with_reports(config, list(layout.common), layout.common.names)

    def run(self, tables: Mapping[str, pa.Table], work: Work, pace: Pace) -> pa.Table:
        """The records, as ``schema`` says."""
        records = all_records(tables, self._layout, work, pace)
        if self._config.report:
            records = records.with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias(ENTITY))
            records = merged_of(records, self._survivors, self._rules, self._config.report, pace)
        return as_arrow(records, self.schema, pace)
