"""JSON objects to rows: the schema of some, and batches of all with the bad ones aside."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from streamapp.core.errors import Refuse
from streamapp.workflow.data.json_faults import DEPTH_MAX, Faults, is_deep, sieve
from streamapp.workflow.data.misfits import misplaced
from streamapp.workflow.data.recovering import Bad, Record, plain, recover
from streamapp.workflow.data.types import with_declared

_ROOM_BYTES = 1 << 10


def learn(records: Sequence[Record], declared: Mapping[str, str], origin: str) -> pa.Schema:
    """The columns of these objects, bad ones left out.

    Strings stay strings, whatever they look like, unless ``declared`` says otherwise; what is only
    null is a string.

    Raises:
        Refuse: there is no such type as is declared, or all objects are nested too deep, or empty:
            rows of no columns are none.
    """
    objects = [record.data for record in records if _begin(record.data) == b"{"]
    flat = [data for data in objects if not is_deep(data)]
    schema = _learned(flat)
    plain = pa.schema([field.with_type(_plain(field.type)) for field in schema])
    found = with_declared(plain, declared, origin)
    if not found.names and any(_is_empty(record.data) for record in records):
        fix = "leave it out, or declare a column by the option columns"
        raise Refuse("data.empty", f"{origin}: none of its objects has a value", fix)
    if not found.names and len(flat) < len(objects):
        why = f"{origin}: its values are nested too deep, more than {DEPTH_MAX}"
        raise Refuse("data.json", why, "unpack them")
    return found


def parse(records: Sequence[Record], schema: pa.Schema) -> pa.RecordBatch:
    """As many rows as there are objects.

    Raises:
        pa.ArrowException, UnicodeDecodeError: one of them is none, or does not fit.
    """
    begins = b"".join(_begin(record.data) for record in records)
    return parse_joined(b"\n".join(record.data for record in records), begins, schema)


def parse_joined(data: bytes, begins: bytes, schema: pa.Schema) -> pa.RecordBatch:
    """As ``parse``, of objects that follow each other; ``begins`` has the first byte of each."""
    table = _as_read(data, begins, schema)
    arrays = []
    for field in schema:
        column = table.column(field.name)
        flat = column.chunk(0) if column.num_chunks else pa.array([], column.type)
        flat.validate(full=True)  # UTF-8, which the parser does not look at
        arrays.append(flat if flat.type == field.type else pc.cast(flat, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class Sorting:
    """Good objects from bad ones: as few calls of the parser for many bad ones as for one.

    Args:
        schema: of the rows.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._fits, self._faults = sieve(schema), Faults(schema)

    def rows(self, records: Sequence[Record], bad: Bad) -> Iterator[pa.RecordBatch]:
        """Rows of the good ones, in order; then ``bad`` takes the others."""
        told: list[tuple[Record, str]] = []

        def aside(record: Record, reason: str) -> None:
            told.append((record, reason))

        for wrong_of in (self._unfit, self._misdated, self._faulty):
            wrong = wrong_of(records)
            told += [(records[place], reason) for place, reason in wrong.items()]
            records = [record for place, record in enumerate(records) if place not in wrong]
            try:
                whole = parse(records, self._schema) if records else None
            except (pa.ArrowException, UnicodeDecodeError):
                continue
            if whole is not None:
                yield whole
            break
        else:
            yield from recover(records, partial(parse, schema=self._schema), aside)
        for record, reason in sorted(told, key=lambda each: each[0].line):
            bad(record, reason)

    def _unfit(self, records: Sequence[Record]) -> dict[int, str]:
        return self._faulty(records, self._fits)

    def _misdated(self, records: Sequence[Record]) -> dict[int, str]:
        """Texts that are no times, of objects that are good but for that."""
        times = [field for field in self._schema if pa.types.is_temporal(field.type)]
        found: dict[int, str] = {}
        if times:
            with suppress(pa.ArrowException):
                data = b"\n".join(record.data for record in records)
                table = _as_read(data, b"{" * len(records), self._schema)
                for field in times:
                    texts = table.column(field.name).combine_chunks()
                    for place in misplaced(texts, field.type):
                        found.setdefault(place, _no_time(texts[place], field.type))
        return found

    def _faulty(
        self, records: Sequence[Record], fits: Callable[[bytes], bool] = lambda _: False
    ) -> dict[int, str]:
        """Those that surely are bad, of those that do not seem to fit."""
        told = {
            place: self._faults.of(record.data)
            for place, record in enumerate(records)
            if not fits(record.data)
        }
        return {place: reason for place, reason in told.items() if reason is not None}


def _no_time(text: pa.Scalar, kind: pa.DataType) -> str:
    try:
        pc.cast(pa.array([text.as_py()]), kind)
    except pa.ArrowException as error:
        return plain(error)
    raise AssertionError(text)


def _begin(data: bytes) -> bytes:
    """The first byte that is no space."""
    return data[:1] if data[:1] == b"{" else data.lstrip()[:1]


def _as_read(data: bytes, begins: bytes, schema: pa.Schema) -> pa.Table:
    """Rows with times as strings: a cast knows more of their forms than the parser does."""
    if b"n" in begins:  # of a null before all objects the parser makes rows that crash
        raise pa.ArrowInvalid("it is no object")
    kinds = [pa.string() if pa.types.is_temporal(kind) else kind for kind in schema.types]
    table = _read(data, pa.schema(list(zip(schema.names, kinds, strict=True))))
    if table.num_rows != len(begins):
        raise pa.ArrowInvalid("an object on several lines, or several on one")
    return table.combine_chunks()


def _read(data: bytes, schema: pa.Schema | None) -> pa.Table:
    options = pa.json.ParseOptions(
        explicit_schema=schema,
        newlines_in_values=True,
        unexpected_field_behavior="infer" if schema is None else "error",
    )
    whole = pa.json.ReadOptions(use_threads=False, block_size=len(data) + _ROOM_BYTES)
    return pa.json.read_json(pa.BufferReader(data), whole, options)


def _learned(objects: Sequence[bytes]) -> pa.Schema:
    """What fits all of these but bad ones; of many that do not go together one of each shape."""
    schema = pa.schema([])
    fits = sieve(schema)
    seen: set[Any] = {None}
    for start in range(0, len(objects), 1000):
        new = [data for data in objects[start : start + 1000] if not fits(data)]
        if not new:
            continue
        known = schema
        try:
            schema = _joined(schema, _read(b"\n".join(new), None).schema)
        except pa.ArrowException:
            for data in new:
                if (shape := _shape(data)) not in seen:
                    seen.add(shape)
                    with suppress(pa.ArrowException):  # it is handed over as bad when it is read
                        schema = _joined(schema, _read(data, None).schema)
        if schema != known:
            fits = sieve(schema)
    return schema


def _shape(data: bytes) -> Any:
    """The same for objects of the same names and types; None for what Arrow does not take."""
    try:
        text = data.decode("utf-8", "replace")
        return _shape_of(json.loads(text, object_pairs_hook=_members))
    except (ValueError, OverflowError):
        return None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = {name: _shape_of(value) for name, value in pairs}
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    "".join(found).encode()  # raises where half a character is in a name
    return found


def _shape_of(value: Any) -> Any:
    if isinstance(value, dict):
        return "object", *value.items()
    if isinstance(value, list):
        return "array", *dict.fromkeys(map(_shape_of, value))
    if isinstance(value, str):
        value.encode()
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        value = float(value)
    if isinstance(value, float) and math.isinf(value):
        raise ValueError("beyond a double")
    return type(value)


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
