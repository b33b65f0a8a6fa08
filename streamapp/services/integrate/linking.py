"""Left and right join: the rows of one source, each with what the others' records say of it."""

from collections.abc import Mapping

import polars as pl
import pyarrow as pa

from streamapp.plugin import Work
from streamapp.services.integrate.config import Integration
from streamapp.services.integrate.fields import ROW, SOURCE, as_arrow, frame_of
from streamapp.services.integrate.finding import Finder
from streamapp.services.integrate.gather import fitting, unfit
from streamapp.services.integrate.layout import Layout, rules_of, survivors_of, with_reports
from streamapp.services.integrate.pace import Pace
from streamapp.services.integrate.ranking import ENTITY
from streamapp.services.integrate.report import TORN, merged_of, torn_apart
from streamapp.services.integrate.survive import looked_at_by


class Linking:
    """One row out for each row of the base; what is linked to it fills and mends its columns.

    Columns that the base alone has, and that no strategy is given for, pass through untouched.

    Args:
        config: of the integration; ``left_join`` has the first source as its base, ``right_join``
            the last.
        layout: of its sources.

    Raises:
        Refuse: a strategy does not fit its column.
    """

    def __init__(self, config: Integration, layout: Layout) -> None:
        self._config, self._layout = config, layout
        self._base = 0 if config.mode == "left_join" else len(layout.shapes) - 1
        self._rules = rules_of(config, layout)
        self._finder = Finder(config, layout)
        base = layout.shapes[self._base]
        own = [name for name in base.schema.names if layout.owners(name) == [base.name]]
        if self._finder.by_key_alone and "lineage" not in config.report:
            own += config.key_fields
        self._own = {name for name in own if name not in config.conflicts}
        names = dict.fromkeys((*base.schema.names, *layout.common.names))
        self._survivors = survivors_of(
            config, layout, [name for name in names if name not in self._own]
        )
        made = {survivor.field.name: survivor.result for survivor in self._survivors}
        fields = [made.get(name) or base.schema.field(name) for name in names]
        merged = [survivor.field.name for survivor in self._survivors]
        self.schema = with_reports(config, fields, merged)
        cast = [spec.name for spec in base.columns.values() if spec.type]
        looked_at = looked_at_by(self._survivors, self._rules)
        self._wanted = {*merged, *cast, *looked_at, *self._finder.fields}

    @property
    def base(self) -> str:
        """The source whose rows stay."""
        return self._layout.shapes[self._base].name

    def open(self, tables: Mapping[str, pa.Table], work: Work, pace: Pace) -> None:
        """Take the records of all other sources."""
        pool = [
            fitting(number, self._layout, tables[shape.name], work)
            for number, shape in enumerate(self._layout.shapes)
            if number != self._base
        ]
        self._work = work
        self._pool = pl.concat(pool, how="diagonal")
        self._finder.open(self._pool, work, pace)

    def run(self, table: pa.Table, pace: Pace) -> pa.Table:
        """Some rows of the base, in their order, as ``schema`` says."""
        shape = self._layout.shapes[self._base]
        left, bad = frame_of(shape, table, self._layout.common, self._wanted)
        if bad.any():
            self._work.quarantine(table.filter(bad.to_arrow()), unfit(shape.name))
            left, table = left.filter(~bad), table.filter((~bad).to_arrow())
        left = left.with_columns(pl.lit(self._base, pl.UInt16).alias(SOURCE))
        records = self._records(left, pace)
        merged = merged_of(records, self._survivors, self._rules, self._config.report, pace)
        torn = torn_apart(merged, self._survivors)
        if torn.any():
            self._work.quarantine(table.filter(torn.to_arrow()), TORN)
            keep = ~torn
            left, merged = left.filter(keep), merged.filter(keep)
            table = table.filter(keep.to_arrow())
        made = [name for name in self.schema.names if name not in self._own]
        found = as_arrow(merged, pa.schema([self.schema.field(name) for name in made]), pace)
        own = self._own_columns(table, left)
        columns = [own[name] if name in own else found.column(name) for name in self.schema.names]
        return pa.table(columns, schema=self.schema)

    def _own_columns(self, table: pa.Table, left: pl.DataFrame) -> dict[str, pa.ChunkedArray]:
        """The base's columns that nothing is merged into, as they came unless they were cast."""
        found = {}
        for given, spec in self._layout.shapes[self._base].columns.items():
            if spec.name in self._own:
                column = left[spec.name].to_arrow() if spec.type else table.column(given)
                found[spec.name] = column.cast(self.schema.field(spec.name).type)
        return found

    def _records(self, left: pl.DataFrame, pace: Pace) -> pl.DataFrame:
        """The rows of the base and, for each, the records linked to it."""
        pairs = self._finder.links(left, pace)
        rows = left.with_columns(
            pl.int_range(pl.len(), dtype=pl.UInt32).alias(ENTITY),
            pl.lit(None, pl.UInt32).alias(ROW),
        )
        linked = self._pool[pairs["right"]].with_columns(pairs["left"].alias(ENTITY))
        records = pl.concat([rows, linked], how="diagonal")
        return records if self._base == 0 else records.sort(SOURCE, maintain_order=True)
