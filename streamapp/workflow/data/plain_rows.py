"""Rows as plain values that JSON and CSV can hold."""

from collections.abc import Iterator

import msgspec
import pyarrow as pa


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The same with types whose values all have a Python one: microseconds for nanoseconds."""
    return pa.schema([field.with_type(_plain(field.type)) for field in schema])


def json_rows(batch: pa.RecordBatch) -> Iterator[bytes]:
    """Each row as an object of JSON, in columns' order.

    Times are as ISO 8601 writes them, bytes are base64, what is no number is null.
    """
    plain = batch.cast(plain_schema(batch.schema), safe=False)
    encode = msgspec.json.Encoder().encode
    return (encode(row) for row in plain.to_pylist())


def flat_schema(schema: pa.Schema) -> pa.Schema:
    """The same where nested columns, and others that tables have no type for, are text."""
    return pa.schema([field.with_type(_flat(field.type)) for field in schema])


def flattened(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch in ``flat_schema``: lists, structs and maps are JSON."""
    schema = flat_schema(batch.schema)
    encode = msgspec.json.Encoder().encode
    arrays = []
    for column, field in zip(batch.columns, schema, strict=True):
        if not _nested(column.type):
            arrays.append(column.cast(field.type, safe=False))
            continue
        values = column.cast(_plain(column.type), safe=False).to_pylist()
        texts = [None if value is None else encode(value).decode() for value in values]
        arrays.append(pa.array(texts, pa.string()))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind))


def _flat(kind: pa.DataType) -> pa.DataType:
    if _nested(kind) or pa.types.is_null(kind) or pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_dictionary(kind):
        return _flat(kind.value_type)
    if pa.types.is_decimal(kind):
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
