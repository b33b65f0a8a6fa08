"""``pipeline.join``: rows of two tables that have the same keys."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Meta

from streamapp.plugin import Config, Refuse, Sources, Work, column
from streamapp.services.pipeline.base import Name, Transform
from streamapp.services.pipeline.database import ROW, given, numbered
from streamapp.services.pipeline.expression import quoted

How = Literal["inner", "left", "right", "full", "semi", "anti"]
_ROW = quoted(ROW)


class JoinConfig(Config, frozen=True, kw_only=True):
    """What is joined to the first input, and by which keys.

    Attributes:
        source: a source of ``streamapp.toml``; the other input by default.
        on: the columns that are equal: names, or the first table's to the other's; null equals
            nothing.
        how: which rows stay: those with a partner (``inner``), all of the first, the other, or
            both, or those of the first with (``semi``) or without (``anti``) a partner.
        suffix: of the other's columns whose names the first has, too.
    """

    source: str = ""
    on: Annotated[tuple[Name, ...], Meta(min_length=1)] | dict[Name, Name]
    how: How = "inner"
    suffix: Name = "_right"

    @property
    def keys(self) -> dict[str, str]:
        """The first table's keys to the other's."""
        return self.on if isinstance(self.on, dict) else {name: name for name in self.on}


class Join(Transform):
    """The first table's columns, then the other's but for its keys, in the first one's order.

    Rows of the other without a partner come last.  With ``source`` of scope ``row``, unless those
    are wanted.
    """

    Config: ClassVar[type[Config]] = JoinConfig
    config: JoinConfig
    inputs: ClassVar[tuple[int, int | None]] = (1, 2)

    def __init__(self, config: JoinConfig) -> None:
        super().__init__(config)
        if not config.keys:
            raise Refuse("operation.config", "config.on: it names no column", "name a key")
        by_row = bool(config.source) and config.how not in {"right", "full"}
        self.scope = "row" if by_row else "table"  # type: ignore[misc]  # of this instance
        self.parallel = "threads" if by_row else "none"  # type: ignore[misc]
        self._other: pa.Table | None = None
        self._schema: pa.Schema

    def plan(self, inputs: Mapping[str, pa.Schema], sources: Sources) -> pa.Schema:
        """Both tables' columns.

        Raises:
            Refuse: there is no other table, a key is not there, or keys are of other types.
        """
        [(origin, first), *more] = inputs.items()
        if bool(self.config.source) == bool(more):
            what = "there is a second input, too" if more else "there is no other table"
            fix = "name a source or give the stage two inputs"
            raise Refuse("operation.inputs", f"config.source: {what}", fix)
        if self.config.source:
            more = [(self.config.source, sources.source(self.config.source).schema())]
        [(other, second)] = more
        for left, right in self.config.keys.items():
            ours = column(first, left, origin, "config.on")
            theirs = column(second, right, other, "config.on")
            if not _comparable(ours.type, theirs.type):
                raise Refuse(
                    "operation.type",
                    f"config.on: {left!r} of {origin!r} is {ours.type}, "
                    f"{right!r} of {other!r} is {theirs.type}",
                    "cast one of them by pipeline.map",
                )
        self._schema = self._joined(first, second)
        return self._schema

    def open(self, work: Work) -> None:
        super().open(work)
        if self.config.source:
            with work.source(self.config.source).read() as reader:
                self._other = reader.read_all()

    def close(self) -> None:
        super().close()
        self._other = None

    def apply(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        [first, *more] = inputs.values()
        other = more[0] if self._other is None else self._other
        if self.config.how in {"semi", "anti"}:
            kept = first.take(self._pairs(first, other).column(0))
            self.drop(first.num_rows - kept.num_rows)
            return kept
        pairs = self._pairs(first, other)
        left, right = pairs.column(0), pairs.column(1)
        arrays = [taken(first.column(name), left) for name in first.column_names]
        if self.config.how in {"right", "full"}:
            for ours, theirs in self.config.keys.items():
                at = first.column_names.index(ours)
                keys = taken(other.column(theirs), right)
                arrays[at] = pc.coalesce(arrays[at], keys.cast(arrays[at].type))
        theirs_too = [name for name in other.column_names if name not in self.config.keys.values()]
        arrays += [taken(other.column(name), right) for name in theirs_too]
        return pa.table(arrays, schema=self._schema)

    def _pairs(self, first: pa.Table, other: pa.Table) -> pa.Table:
        """Row numbers of both tables, null for no partner, as result rows come."""
        keys = self.config.keys
        same = " AND ".join(f"a.{quoted(k)} = b.{quoted(v)}" for k, v in keys.items())
        how = self.config.how.upper()
        if self.config.how in {"semi", "anti"}:
            sql = f"SELECT a.{_ROW} FROM a {how} JOIN b ON {same} ORDER BY 1"  # noqa: S608
            other = given(other, list(keys.values()))
        else:
            sql = (
                f"SELECT a.{_ROW}, b.{_ROW} FROM a {how} JOIN b ON {same} "  # noqa: S608
                "ORDER BY 1 NULLS LAST, 2"
            )
            other = numbered(other, list(keys.values()))
        return self.database.query(sql, a=numbered(first, list(keys)), b=other)

    def _joined(self, first: pa.Schema, second: pa.Schema) -> pa.Schema:
        if self.config.how in {"semi", "anti"}:
            return first
        fields = [first.field(name).with_nullable(True) for name in first.names]
        for field in second:
            if field.name in self.config.keys.values():
                continue
            taken_too = field.name in first.names
            name = field.name + self.config.suffix if taken_too else field.name
            fields.append(field.with_name(name).with_nullable(True))
        names = [field.name for field in fields]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            what = f"config.suffix: there would be two columns {twice!r}"
            raise Refuse("operation.column", what, "write another suffix")
        return pa.schema(fields)


def taken(values: pa.ChunkedArray, rows: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values at rows, null where the row is null."""
    if pa.types.is_dictionary(values.type):
        values = values.unify_dictionaries()
    return values.take(rows)


def _comparable(ours: pa.DataType, theirs: pa.DataType) -> bool:
    """Whether equal values of both types are equal keys."""
    return bool(ours == theirs or (_kind(ours) and _kind(ours) == _kind(theirs)))


def _kind(kind: pa.DataType) -> str:
    types = pa.types
    if types.is_dictionary(kind):
        return _kind(kind.value_type)
    if types.is_integer(kind):
        return "integer"
    if types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    return "time" if types.is_timestamp(kind) else ""
