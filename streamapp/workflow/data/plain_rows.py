"""Rows as plain values that JSON and CSV can hold."""

from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pyarrow as pa

from streamapp.core.errors import Refuse

#: What Arrow raises of a value that Python has none for: years beyond its calendar, unknown zones.
_NONE = (OverflowError, ValueError, KeyError)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The same with types whose values all have a Python one: microseconds for nanoseconds."""
    return pa.schema([field.with_type(_plain(field.type)) for field in schema])


def json_rows(batch: pa.RecordBatch) -> Iterator[bytes]:
    """Each row as an object of JSON, in columns' order.

    Times are as ISO 8601 writes them, bytes are base64, what is no number is null.
    """
    encode = msgspec.json.Encoder().encode
    return (encode(row) for row in python_rows(batch))


def python_rows(rows: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    """Each row as plain values; a time that Python has none for is a text, as Arrow writes it."""
    plain = plain_schema(rows.schema)
    rows = rows if rows.schema.equals(plain) else rows.cast(plain, safe=False)
    try:
        found: list[dict[str, Any]] = rows.to_pylist()
    except _NONE:
        columns = [list(map(_value, column)) for column in rows.columns]
        names = rows.schema.names
        found = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return found


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except _NONE:
        if pa.types.is_struct(scalar.type):
            return {name: _value(inner) for name, inner in scalar.items()}
        if pa.types.is_nested(scalar.type):
            return list(map(_value, scalar.values))
        if pa.types.is_timestamp(scalar.type) and scalar.type.tz is not None:
            local = pa.scalar(scalar.value, pa.timestamp(scalar.type.unit))
            return f"{local.cast(pa.string())}Z"
        return scalar.cast(pa.string()).as_py()


@contextmanager
def holding(schema: pa.Schema, shown: str) -> Iterator[None]:
    """Within, what a format cannot hold is said with the column that has it.

    Raises:
        Refuse: ``data.column``.
    """
    try:
        yield
    except pa.ArrowException as error:
        why = str(error).partition("\n")[0]
        told = (each for each in schema if str(each.type) in why or repr(each.name) in why)
        field = next(told, None)
        what = f"column {field.name!r}, which is {field.type}" if field else "a column"
        fix = "leave it out, or make it a text, in a stage before"
        raise Refuse("data.column", f"{shown} cannot hold {what}: {why}", fix) from None


def flat_schema(schema: pa.Schema, *, is_text: bool = False) -> pa.Schema:
    """The same where nested columns, and others that tables have no type for, are text.

    Args:
        schema: of the rows.
        is_text: all will be text, so that decimals stay exact and bytes become text.
    """
    return pa.schema([field.with_type(_flat(field.type, is_text=is_text)) for field in schema])


def flattened(batch: pa.RecordBatch, *, is_text: bool = False) -> pa.RecordBatch:
    """The batch in ``flat_schema``: lists, structs and maps are JSON, bytes as text are base64."""
    schema = flat_schema(batch.schema, is_text=is_text)
    encode = msgspec.json.Encoder().encode
    arrays = []
    for column, field in zip(batch.columns, schema, strict=True):
        if is_text and _is_bytes(column.type):
            arrays.append(pa.array(map(_base64, column.to_pylist()), pa.string()))
            continue
        if not _nested(column.type):
            arrays.append(column.cast(field.type, safe=False))
            continue
        values = map(_value, column.cast(_plain(column.type), safe=False))
        texts = [None if value is None else encode(value).decode() for value in values]
        arrays.append(pa.array(texts, pa.string()))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _base64(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode()


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def _is_other_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind))


def _flat(kind: pa.DataType, *, is_text: bool) -> pa.DataType:
    if _nested(kind) or pa.types.is_null(kind) or _is_other_string(kind):
        return pa.string()
    if is_text and _is_bytes(kind):
        return pa.string()
    if pa.types.is_dictionary(kind):
        return _flat(kind.value_type, is_text=is_text)
    if pa.types.is_decimal(kind) and not is_text:
        return pa.float64()
    return _plain(kind)


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return pa.time64("us")
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    return kind
