"""Transforms over many rows: aggregate, dedupe, sample."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
from msgspec import Meta

from streamapp.plugin import Config, Refuse, Sources, column
from streamapp.plugin.operation import Parallel
from streamapp.services.pipeline.base import Name, Sql, Transform
from streamapp.services.pipeline.database import (
    ROW,
    BadRows,
    check_apart,
    given,
    numbered,
    planner,
    selected,
    typed,
)
from streamapp.services.pipeline.expression import parse, quoted, resolved

_ROW = quoted(ROW)


class AggregateConfig(Config, frozen=True, kw_only=True):
    """One row for each group.

    Attributes:
        by: columns whose values together make a group; null is a value; none: all rows are one.
        columns: name to expression over the rows of a group, like ``sum(price)``.
    """

    by: tuple[Name, ...] = ()
    columns: Annotated[dict[Name, Sql], Meta(min_length=1)]


class Aggregate(Transform):
    """A row for each group, in the order in which the groups come up."""

    Config: ClassVar[type[Config]] = AggregateConfig
    config: AggregateConfig
    parallel: ClassVar[Parallel] = "none"

    def __init__(self, config: AggregateConfig) -> None:
        super().__init__(config)
        self._parsed = {
            name: parse(sql, f"config.columns.{name}", groups=True)
            for name, sql in config.columns.items()
        }
        self._sql: dict[str, str] = {}
        self._reads: list[str] = []

    def plan(self, inputs: Mapping[str, pa.Schema], _sources: Sources) -> pa.Schema:
        """The columns of ``by`` and those that are computed.

        Raises:
            Refuse: an expression does not fit the columns, or is over no group.
        """
        [(origin, schema)] = inputs.items()
        fields = [column(schema, name, origin, "config.by") for name in self.config.by]
        for name, expression in self._parsed.items():
            self._sql[name], kind = typed(expression, schema, origin)
            self._one_value(name, schema, origin)
            fields.append(pa.field(name, kind))
        _check_names([field.name for field in fields])
        reads = [resolved(each, schema, origin) for each in self._parsed.values()]
        self._reads = [*self.config.by, *(name for names in reads for name in names)]
        check_apart(self._reads)
        return pa.schema(fields)

    def apply(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        [table] = inputs.values()
        by = ", ".join(map(quoted, self.config.by))
        grouped = f"GROUP BY {by}" if by else "HAVING count(*) > 0"
        named = {ROW: f"min({_ROW})", **self._sql}
        try:
            found = self.database.query(
                f"SELECT {selected(named)} FROM rows {grouped} ORDER BY 1",  # noqa: S608
                rows=numbered(table, self._reads),
            )
        except BadRows as error:
            raise Refuse(
                "operation.rows",
                f"config.columns: an expression fails at a row: {error}",
                "set such rows aside by pipeline.map or pipeline.validate before",
            ) from None
        keys = table.select(list(self.config.by)).unify_dictionaries()
        arrays = [keys.column(name).take(found.column(0)) for name in self.config.by]
        arrays += [found.column(name) for name in self._sql]
        return pa.table(arrays, names=[*self.config.by, *self._sql])

    def _one_value(self, name: str, schema: pa.Schema, origin: str) -> None:
        """Refuse what is not over a group: it gives a row for each of the rows, or none."""
        expression = self._parsed[name]
        rows = given(schema.empty_table(), resolved(expression, schema, origin))
        sql = f"SELECT {self._sql[name]} AS x FROM rows"  # noqa: S608  # it was checked
        if planner().query(sql, rows=rows).num_rows != 1:
            raise Refuse(
                "operation.expression",
                f"{expression.key}: {expression.sql!r} is not over the rows of a group",
                "write an aggregate, like sum(price), or name the column in by",
            )


class DedupeConfig(Config, frozen=True, kw_only=True):
    """Which rows are the same, and which of them stays.

    Attributes:
        by: the columns that make rows the same; all by default; null equals null.
        order_by: the column by which rows are first and last; as they come by default.
        keep: the ``first`` or the ``last``; where ``order_by`` is null is before all else.
    """

    by: tuple[Name, ...] = ()
    order_by: str = ""
    keep: Literal["first", "last"] = "first"


class Dedupe(Transform):
    """Leaves one of the rows that are the same, in the order of the rows that stay."""

    Config: ClassVar[type[Config]] = DedupeConfig
    config: DedupeConfig
    parallel: ClassVar[Parallel] = "none"

    def plan(self, inputs: Mapping[str, pa.Schema], _sources: Sources) -> pa.Schema:
        """The input's.

        Raises:
            Refuse: a column is not there.
        """
        [(origin, schema)] = inputs.items()
        for name in self.config.by:
            column(schema, name, origin, "config.by")
        if self.config.order_by:
            column(schema, self.config.order_by, origin, "config.order_by")
        reads = [*(self.config.by or schema.names), self.config.order_by]
        check_apart(reads)
        return schema

    def apply(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        [table] = inputs.values()
        by = self.config.by or tuple(table.column_names)
        way = "ASC NULLS FIRST" if self.config.keep == "first" else "DESC NULLS LAST"
        order = [quoted(name) for name in (self.config.order_by, ROW) if name]
        sql = (
            f"SELECT {_ROW} FROM rows QUALIFY row_number() OVER ("  # noqa: S608
            f"PARTITION BY {', '.join(map(quoted, by))} "
            f"ORDER BY {', '.join(f'{name} {way}' for name in order)}) = 1 ORDER BY 1"
        )
        reads = [*by, self.config.order_by] if self.config.order_by else by
        kept = self.database.query(sql, rows=numbered(table, reads)).column(0)
        self.drop(table.num_rows - len(kept))
        return table.unify_dictionaries().take(kept)


class SampleConfig(Config, frozen=True, kw_only=True):
    """How many rows stay; the same every time.

    Attributes:
        fraction: of the rows; 0.1 is every tenth, about.
        rows: so many, or all if there are fewer.
        by: columns by whose values rows stay or go together, wherever they are; with ``fraction``.
        seed: another one is another sample.
    """

    fraction: Annotated[float, Meta(gt=0, le=1)] | None = None
    rows: Annotated[int, Meta(ge=1)] | None = None
    by: tuple[Name, ...] = ()
    seed: int = 0


class Sample(Transform):
    """Leaves a part of the rows, in their order.

    Of scope ``row`` with ``by``: a row stays by a digest of its values.
    """

    Config: ClassVar[type[Config]] = SampleConfig
    config: SampleConfig

    def __init__(self, config: SampleConfig) -> None:
        super().__init__(config)
        if (config.fraction is None) == (config.rows is None):
            raise Refuse("operation.config", "config: it says not how many", "fraction or rows")
        if config.by and config.rows is not None:
            raise Refuse("operation.config", "config.by: it goes with fraction", "write fraction")
        self.scope = "row" if config.by else "table"  # type: ignore[misc]  # of this one
        self.parallel = "threads" if config.by else "none"  # type: ignore[misc]

    def plan(self, inputs: Mapping[str, pa.Schema], _sources: Sources) -> pa.Schema:
        """The input's.

        Raises:
            Refuse: a column is not there.
        """
        [(origin, schema)] = inputs.items()
        for name in self.config.by:
            column(schema, name, origin, "config.by")
        check_apart(self.config.by)
        return schema

    def apply(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        [table] = inputs.values()
        kept = table.filter(self._by_digest(table)) if self.config.by else self._by_chance(table)
        self.drop(table.num_rows - kept.num_rows)
        return kept

    def _by_digest(self, table: pa.Table) -> pa.ChunkedArray:
        values = [f"coalesce(CAST({quoted(name)} AS VARCHAR), chr(30))" for name in self.config.by]
        text = " || chr(31) || ".join([f"'{self.config.seed}'", *values])
        least = int((self.config.fraction or 0) * 2**64)
        sql = f"SELECT md5_number_lower({text})::HUGEINT < {least}::HUGEINT AS stays FROM rows"  # noqa: S608
        return self.database.query(sql, rows=given(table, self.config.by)).column(0)

    def _by_chance(self, table: pa.Table) -> pa.Table:
        chance = np.random.default_rng(self.config.seed).random(table.num_rows)
        if self.config.fraction is not None:
            return table.filter(pa.array(chance < self.config.fraction))
        rows = min(self.config.rows or 0, table.num_rows)
        return table.take(pa.array(np.sort(np.argsort(chance, kind="stable")[:rows])))


def _check_names(names: list[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        what = f"config: there would be two columns {twice[0]!r}"
        raise Refuse("operation.column", what, "give one of them another name")
