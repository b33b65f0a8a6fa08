"""JSON objects to rows: the schema of some, and batches of all with the bad ones aside."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from streamapp.core.errors import Refuse
from streamapp.workflow.data.recovering import Record
from streamapp.workflow.data.types import with_declared

_ROOM_BYTES = 1 << 10


def learn(records: Sequence[Record], declared: Mapping[str, str], origin: str) -> pa.Schema:
    """The columns of these objects, bad ones left out.

    Strings stay strings, whatever they look like, unless ``declared`` says otherwise; what is only
    null is a string.

    Raises:
        Refuse: a value is nested too deep, there is no such type as is declared, or all objects are
            empty: rows of no columns are none.
    """
    schema = pa.schema([])
    for start in range(0, len(records), 1000):
        some = records[start : start + 1000]
        try:
            found = _parse(some, None).schema
        except (pa.ArrowException, UnicodeDecodeError):
            found = _learn_singly(some)
        schema = _joined(schema, found)
    try:
        plain = pa.schema([field.with_type(_plain(field.type)) for field in schema])
    except RecursionError:
        raise Refuse(
            "data.json", f"{origin}: its values are nested too deep", "unpack it"
        ) from None
    found = with_declared(plain, declared, origin)
    if not found.names and any(_is_empty(record.data) for record in records):
        fix = "leave it out, or declare a column by the option columns"
        raise Refuse("data.empty", f"{origin}: none of its objects has a value", fix)
    return found


def parse(records: Sequence[Record], schema: pa.Schema) -> pa.RecordBatch:
    """As many rows as there are objects.

    Raises:
        pa.ArrowException, UnicodeDecodeError: one of them is none, or does not fit.
    """
    return parse_joined(b"\n".join(record.data for record in records), len(records), schema)


def parse_joined(data: bytes, rows: int, schema: pa.Schema) -> pa.RecordBatch:
    """As ``parse``, of objects that follow each other."""
    read = pa.schema([field.with_type(_as_read(field.type)) for field in schema])
    table = _read(data, read)
    if table.num_rows != rows:
        raise pa.ArrowInvalid("an object on several lines, or several on one")
    table = table.combine_chunks()
    arrays = []
    for field in schema:
        column = table.column(field.name)
        flat = column.chunk(0) if column.num_chunks else pa.array([], column.type)
        if field.type == pa.string():
            flat.validate(full=True)  # UTF-8, which the parser does not look at
        arrays.append(flat if flat.type == field.type else pc.cast(flat, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _parse(records: Sequence[Record], schema: pa.Schema | None) -> pa.Table:
    return _read(b"\n".join(record.data for record in records), schema)


def _read(data: bytes, schema: pa.Schema | None) -> pa.Table:
    options = pa.json.ParseOptions(
        explicit_schema=schema,
        newlines_in_values=True,
        unexpected_field_behavior="infer" if schema is None else "error",
    )
    whole = pa.json.ReadOptions(use_threads=False, block_size=len(data) + _ROOM_BYTES)
    return pa.json.read_json(pa.BufferReader(data), whole, options)


def _learn_singly(records: Sequence[Record]) -> pa.Schema:
    schema = pa.schema([])
    for record in records:
        try:
            schema = _joined(schema, _parse([record], None).schema)
        except (pa.ArrowException, UnicodeDecodeError):
            continue  # it is handed over as bad when it is read
    return schema


def _is_empty(data: bytes) -> bool:
    """Whether it is ``{}``."""
    return b"".join(data.split()) == b"{}"


def _joined(left: pa.Schema, right: pa.Schema) -> pa.Schema:
    """What fits both; where nothing does the first type stays, and the other rows are bad."""
    try:
        return pa.unify_schemas([left, right], promote_options="permissive")
    except pa.ArrowException:
        for field in right:
            try:
                left = pa.unify_schemas([left, pa.schema([field])], promote_options="permissive")
            except pa.ArrowException:
                continue
        return left


def _plain(kind: pa.DataType) -> pa.DataType:
    """JSON's own types: what was taken for a time is a string, as is what was only null."""
    if pa.types.is_timestamp(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    return kind


def _as_read(kind: pa.DataType) -> pa.DataType:
    """Times are read as strings and then cast, which knows more of their forms."""
    return pa.string() if pa.types.is_temporal(kind) else kind
