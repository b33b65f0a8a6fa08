"""Transforms of one row at a time: filter, map."""

from collections.abc import Mapping
from typing import ClassVar

import msgspec
import pyarrow as pa

from streamapp.plugin import Config, Refuse, Sources, column
from streamapp.services.pipeline.base import Evaluator, Name, OnError, Sql, Transform


class FilterConfig(Config, frozen=True, kw_only=True):
    """Which rows stay.

    Attributes:
        where: an expression; rows for which it is true stay, not those for which it is null.
        on_error: what becomes of rows at which it fails; ``null`` leaves them out.
    """

    where: Sql
    on_error: OnError = "quarantine"


class Filter(Transform):
    """Leaves out rows."""

    Config: ClassVar[type[Config]] = FilterConfig
    scope = "row"

    def __init__(self, config: FilterConfig) -> None:
        super().__init__(config)
        named = {"where": config.where}
        self._where = Evaluator(named, "config.where", config.on_error, keyed=False)

    def plan(self, inputs: Mapping[str, pa.Schema], _sources: Sources) -> pa.Schema:
        """The input's.

        Raises:
            Refuse: the expression does not fit the columns, or is no condition.
        """
        [(origin, schema)] = inputs.items()
        kind = self._where.types(schema, origin)["where"]
        if not pa.types.is_boolean(kind):
            raise Refuse(
                "operation.type",
                f"config.where is {kind}, not a condition",
                "compare it, like length(text) > 10",
            )
        return schema

    def apply(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        [table] = inputs.values()
        rows, values = self._where.values(self, table)
        kept = rows.filter(values.column("where"))
        self.drop(rows.num_rows - kept.num_rows)
        return kept


class MapConfig(Config, frozen=True, kw_only=True):
    """Which columns there are.

    Attributes:
        columns: name to expression over the input's columns; a name that is there is replaced.
        keep: the columns that stay, in this order; all by default.
        drop: columns that do not stay.
        rename: column to its new name, after all else.
        on_error: what becomes of rows at which an expression fails.
    """

    columns: dict[Name, Sql] = msgspec.field(default_factory=dict)
    keep: tuple[Name, ...] = ()
    drop: tuple[Name, ...] = ()
    rename: dict[Name, Name] = msgspec.field(default_factory=dict)
    on_error: OnError = "quarantine"


class Map(Transform):
    """Computes, keeps, leaves out and renames columns."""

    Config: ClassVar[type[Config]] = MapConfig
    scope = "row"

    config: MapConfig

    def __init__(self, config: MapConfig) -> None:
        super().__init__(config)
        if config.keep and config.drop:
            raise Refuse("operation.config", "config.keep: there is a config.drop, too", "keep one")
        self._columns = Evaluator(config.columns, "config.columns", config.on_error)
        self._schema: pa.Schema

    def plan(self, inputs: Mapping[str, pa.Schema], _sources: Sources) -> pa.Schema:
        """The input's columns, changed.

        Raises:
            Refuse: an expression does not fit the columns, a column is not there, or there would
                be two of a name.
        """
        [(origin, schema)] = inputs.items()
        for name, kind in self._columns.types(schema, origin).items():
            at = schema.get_field_index(name)
            field = pa.field(name, kind)
            schema = schema.append(field) if at < 0 else schema.set(at, field)
        for key in ("keep", "drop", "rename"):
            for name in getattr(self.config, key):
                column(schema, name, origin, f"config.{key}")
        self._schema = schema
        names = [self.config.rename.get(name, name) for name in self._kept()]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise Refuse(
                "operation.column",
                f"config: there would be two columns {twice!r}",
                "rename one of them, or drop it",
            )
        return pa.schema(
            [
                schema.field(name).with_name(self.config.rename.get(name, name))
                for name in self._kept()
            ]
        )

    def apply(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        [table] = inputs.values()
        rows, values = self._columns.values(self, table)
        found = {name: rows.column(name) for name in rows.column_names}
        found |= {name: values.column(name) for name in values.column_names}
        kept = self._kept()
        fields = [self._schema.field(name) for name in kept]
        named = [
            field.with_name(self.config.rename.get(field.name, field.name)) for field in fields
        ]
        return pa.table([found[name] for name in kept], schema=pa.schema(named))

    def _kept(self) -> list[str]:
        names = self.config.keep or self._schema.names
        return [name for name in names if name not in self.config.drop]
