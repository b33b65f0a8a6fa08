"""Columns of several sources under common names and types; Arrow in, polars between, Arrow out."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from streamapp.plugin import Refuse, column
from streamapp.services.integrate.config import Column
from streamapp.services.integrate.pace import Pace

#: Which source a record is of, by number, and which row of it.
SOURCE, ROW = "_source", "_row"
#: Names that the results of this service use; a source's column may not have them.
RESERVED = frozenset({SOURCE, ROW, "_entity", "_sources", "_conflicts", "_lineage"})

_FAMILIES = {
    "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    "binary": (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
}
#: How long a time is, as ISO 8601 writes it.
_ISO = {pa.types.is_date32: 10, pa.types.is_timestamp: 19}
_PLAIN = {"text": pa.string(), "binary": pa.binary()}


class Shape(NamedTuple):
    """A source's columns: those it has, and what each becomes.

    ``columns`` maps a column of the source to its common name, type and format; ``schema`` is what
    results, in the source's order.
    """

    name: str
    columns: Mapping[str, Column]
    schema: pa.Schema


def shape_of(name: str, schema: pa.Schema, mapping: Mapping[str, str | Column | None]) -> Shape:
    """A source's columns, renamed as ``mapping`` says; one that it maps to null is left out.

    Raises:
        Refuse: the mapping names a column that is not there, an unknown type, or one name twice.
    """
    for given in mapping:
        column(schema, given, name, f"config.mapping.{name}")
    columns: dict[str, Column] = {}
    fields: list[pa.Field] = []
    for field in schema:
        wanted = mapping.get(field.name, field.name)
        if wanted is None:
            continue
        spec = wanted if isinstance(wanted, Column) else Column(name=wanted)
        _check_name(name, spec.name, [known.name for known in fields])
        kind = _type_of(name, field.name, spec.type) if spec.type else plain(field.type)
        columns[field.name] = spec
        fields.append(pa.field(spec.name, kind))
    return Shape(name, columns, pa.schema(fields))


def _check_name(source: str, name: str, taken: Sequence[str]) -> None:
    where = f"config.mapping.{source}"
    if name in RESERVED or not name:
        why = f"{source!r} gives a column the name {name!r}, which is this service's own"
        raise Refuse("integrate.mapping", why, f"give it another one in {where}")
    if name in taken:
        why = f"{source!r} gives two columns the name {name!r}"
        raise Refuse("integrate.mapping", why, f"rename or leave out (null) one in {where}")


def _type_of(source: str, name: str, text: str) -> pa.DataType:
    try:
        return plain(pa.type_for_alias(text))
    except ValueError:
        why = f"config.mapping.{source}.{name}.type: {text!r} is no type"
        fix = "use an Arrow type's name such as string, int64, double, bool, date32, timestamp[us]"
        raise Refuse("integrate.mapping", why, fix) from None


def plain(kind: pa.DataType) -> pa.DataType:
    """A type without its encoding: dictionaries and large or viewed texts are plain texts."""
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    for family, tests in _FAMILIES.items():
        if any(test(kind) for test in tests):
            return _PLAIN[family]
    return kind


def common_schema(shapes: Sequence[Shape]) -> pa.Schema:
    """Every column once, in order of first mention, of the type that holds all sources' values.

    Raises:
        Refuse: two sources have types under one name that no type holds both of.
    """
    types: dict[str, tuple[pa.DataType, str]] = {}
    for shape in shapes:
        for field in shape.schema:
            known, owner = types.get(field.name, (field.type, shape.name))
            types[field.name] = (_wider(field, known, (shape.name, owner)), owner)
    return pa.schema([(name, kind) for name, (kind, _) in types.items()])


def _wider(field: pa.Field, known: pa.DataType, owners: tuple[str, str]) -> pa.DataType:
    schemas = [pa.schema([(field.name, kind)]) for kind in (known, field.type)]
    try:
        return plain(pa.unify_schemas(schemas, promote_options="permissive").field(0).type)
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        name, (here, there) = field.name, owners
        why = f"{name!r} is {field.type} in {here!r} and {known} in {there!r}"
        fix = f"say config.mapping.{here}.{name}: {{name: {name}, type: {known}}}"
        raise Refuse("integrate.types", why, fix) from None


def frame_of(
    shape: Shape, table: pa.Table, schema: pa.Schema, names: Collection[str] | None = None
) -> tuple[pl.DataFrame, pl.Series]:
    """A source's rows in common names and types, and which rows said something that did not fit.

    Args:
        shape: of the source.
        table: its rows.
        schema: the common one.
        names: only these columns, in common names; None: all of them.
    """
    kept = {
        given: spec for given, spec in shape.columns.items() if names is None or spec.name in names
    }
    frame = _as_polars(_timed(table.select(list(kept)), kept, schema), shape.name)
    wrong = pl.lit(value=False)
    casts = []
    for given, spec in kept.items():
        kind = _dtype(schema.field(spec.name).type)
        cast = _cast(given, frame.schema[given], kind, spec.format)
        casts.append(cast.alias(spec.name))
        if frame.schema[given] != kind:
            wrong = wrong | (cast.is_null() & pl.col(given).is_not_null())
    bad = frame.select(wrong.alias("bad"))["bad"]
    if len(bad) != len(frame):  # nothing was cast: a literal is one row
        bad = pl.repeat(value=False, n=len(frame), eager=True)
    return frame.select(casts), bad


def _timed(table: pa.Table, kept: Mapping[str, Column], schema: pa.Schema) -> pa.Table:
    """The table, its texts that are times as ISO 8601 writes them read by Arrow, as a whole."""
    for place, (given, spec) in enumerate(kept.items()):
        kind, texts = schema.field(spec.name).type, table.column(given)
        long = next((long for is_kind, long in _ISO.items() if is_kind(kind)), 0)
        if not long or spec.format or not pa.types.is_string(texts.type):
            continue
        lengths = pc.min_max(pc.binary_length(texts)).as_py()
        if set(lengths.values()) != {long}:
            continue
        try:
            table = table.set_column(place, given, texts.cast(kind))
        except pa.ArrowInvalid:
            continue  # some are none: polars says which
    return table


def _as_polars(table: pa.Table, name: str) -> pl.DataFrame:
    try:
        found = pl.from_arrow(table)
    except (pl.exceptions.PolarsError, NotImplementedError) as error:
        why = f"{name!r} has a column of a type that cannot be integrated: {error}"
        fix = f"leave it out: config.mapping.{name}: {{COLUMN: null}}"
        raise Refuse("integrate.types", why.splitlines()[0], fix) from None
    assert isinstance(found, pl.DataFrame)  # noqa: S101  # of a table, and mypy wants to know
    return found


def _dtype(kind: pa.DataType) -> pl.DataType:
    found = pl.from_arrow(pa.nulls(0, kind))  # pa.array() would import pandas, where it is
    assert isinstance(found, pl.Series)  # noqa: S101  # of an array
    return found.dtype


def _cast(name: str, given: pl.DataType, kind: pl.DataType, text_format: str) -> pl.Expr:
    found = pl.col(name)
    if given == pl.String and isinstance(kind, pl.Date | pl.Datetime | pl.Time):
        read = found.str.strptime(kind, text_format or None, strict=False)
        if not isinstance(kind, pl.Datetime) or kind.time_unit != "ns":
            return read
        # Nanoseconds begin in 1677 and end in 2262; polars makes another time of one outside.
        coarse = pl.Datetime("us", kind.time_zone)
        wide = found.str.strptime(coarse, text_format or None, strict=False)
        return pl.when(wide.cast(kind, strict=False).is_not_null()).then(read)
    if given == pl.String and kind != pl.String:
        return found.str.strip_chars().cast(kind, strict=False)
    return found if given == kind else found.cast(kind, strict=False)


def as_arrow(frame: pl.DataFrame, schema: pa.Schema, pace: Pace) -> pa.Table:
    """A frame's columns of ``schema``, exactly of its types."""

    # one by one on each thread, so that few columns are there twice
    def made(field: pa.Field) -> pa.Array:
        return frame[field.name].to_arrow().cast(field.type)

    return pa.table(pace.map(made, schema), schema=schema)
