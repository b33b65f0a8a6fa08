"""Rows of enriched records to frames of the ring, a column at a time.

``confidence`` is the intent's.  What a row does not know keeps the ring's default with its presence
bit off; processing time is a metric, not a field, and ``duration_ms`` is the event's own.  A column
of another type than the ring's field (a stage of another version) is not known either, nor is a
whole number beyond its 32 bits.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.core.errors import Refuse
from streamapp.ring import (
    ACTOR_TYPES,
    DTYPE_CODES,
    PRESENCE_FIELDS,
    RECORD_DTYPE,
    Column,
    RingSpec,
    RowFlag,
    conversation_hashes,
    new_records,
    pack_source,
    presence,
)

Array = npt.NDArray[Any]
Known = npt.NDArray[np.bool_]

#: Ring field to the row's column.
NUMBERS = {
    "delta_time": "delta_time",
    "duration_ms": "duration_ms",
    "velocity": "velocity",
    "interrupt": "interrupt",
    "fill_rate": "fill_rate",
    "sentiment": "sentiment",
    "confidence": "intent_confidence",
    "workflow_node": "workflow_node",
    "case_status": "case_status",
    "lead_status": "lead_status",
    "intent_id": "intent_id",
}
#: The row's column that is the ring's ``semantic``; other vectors keep their names.
EMBEDDING = "embedding"
#: What :func:`records_of` reads of a row; the vectors come beside.
SCALARS = frozenset(
    {
        "source_offset",
        "time",
        "ingest_time",
        "conversation",
        "actor",
        "spin",
        "truncated",
        *NUMBERS.values(),
    }
)
#: Names that people give to the four kinds of actor.
_ACTORS = {name: code for code, name in enumerate(ACTOR_TYPES)} | {
    "user": 1,
    "customer": 1,
    "assistant": 2,
    "bot": 2,
}
_BITS = {field: np.uint32(presence(field)) for field in PRESENCE_FIELDS}
_INT32 = np.iinfo(np.int32)
_SPIN = pa.list_(pa.float32(), 4)
_DTYPES = {pa.float32(): "<f4", pa.float16(): "<f2"}


def ring_spec(columns: pa.Schema, capacity: int) -> RingSpec:
    """The ring that holds what a workflow writes: every column of vectors becomes a tensor.

    ``embedding`` is ``semantic``; the others, fixed-size lists of float32 or float16 that are no
    field of the record, keep their names.

    Raises:
        Refuse: there is no ``embedding``, or a name or a number of columns that no ring takes.
    """
    tensors = [
        Column(field.name, field.type.list_size, _DTYPES[field.type.value_type])
        for field in columns
        if _is_vector(field.type) and field.name not in (RECORD_DTYPE.names or ())
    ]
    semantic = next((column for column in tensors if column.name == EMBEDDING), None)
    if semantic is None:
        raise Refuse(
            "ring.columns",
            f"the workflow writes no vectors {EMBEDDING!r}, which a ring is made of",
            "name the stage embed in topics/workflow.toml, or run no terminal",
        )
    extra = tuple(column for column in tensors if column is not semantic)
    try:
        return RingSpec(semantic.dim, capacity, semantic.dtype, extra)
    except Refuse as error:
        names = ", ".join(column.name for column in extra)
        raise Refuse(
            error.code,
            f"{error.message} (vectors of the workflow beside {EMBEDDING}: {names or 'none'})",
            "rename or take out stages in topics/workflow.toml, or set another ring_frames",
        ) from None


def picked(spec: RingSpec) -> frozenset[str]:
    """The rows' columns that a ring of this shape takes."""
    return SCALARS | {EMBEDDING} | {column.name for column in spec.extra}


def records_of(rows: pa.RecordBatch, source_index: int, semantic: Column, known: Known) -> Array:
    """Records (n,) of RECORD_DTYPE of the rows' SCALARS.

    Args:
        rows: of one source; vectors in them are not looked at.
        source_index: the ring's number of that source.
        semantic: the ring's column.
        known: (n,), which rows have a vector in it (:func:`embedded`).
    """
    records = new_records(rows.num_rows)
    names = set(rows.schema.names)
    records["timestamp_us"] = _integers(rows.column("time"))
    records["ingest_us"] = _integers(rows.column("ingest_time"))
    records["source_offset"] = pack_source(source_index, _integers(rows.column("source_offset")))
    conversations = rows.column("conversation")
    records["conversation_hash"] = conversation_hashes(conversations.to_pylist())
    records["presence"][_having(conversations)] |= _BITS["conversation_hash"]
    for field, column in NUMBERS.items():
        if column in names:
            _fill_number(records, field, rows.column(column))
    if "spin" in names and rows.column("spin").type == _SPIN:
        turned = _having(rows.column("spin"))
        records["spin"][turned] = _flat(_kept(rows.column("spin"))).reshape(-1, 4)
        records["presence"][turned] |= _BITS["spin"]
    _fill_actors(records, rows.column("actor").to_pylist())
    records["flags"][known] = RowFlag.EMBEDDED
    if "truncated" in names:
        column = rows.column("truncated")
        cut = (column.fill_null(False) if column.null_count else column).to_numpy(
            zero_copy_only=False
        )
        records["flags"][known & cut] |= np.uint8(RowFlag.TRUNCATED)
    records["dim_used"][known] = semantic.dim
    records["dtype_code"][known] = DTYPE_CODES[semantic.dtype]
    records["presence"][known] |= _BITS["semantic"]
    return records


def embedded(rows: pa.RecordBatch, dim: int) -> Known:
    """Which rows have a vector for ``semantic``, shape (n,)."""
    column = vectors(rows, EMBEDDING, dim)
    return np.zeros(rows.num_rows, np.bool_) if column is None else _valid(column)


def copy_vectors(rows: pa.RecordBatch, name: str, out: Array, missing: float) -> None:
    """Copy the rows' vectors ``name`` into ``out`` (n, dim); a row without one is all ``missing``.

    No row has one when the record was made by another model or without that stage.
    """
    column = vectors(rows, name, out.shape[1])
    if column is None:
        out[:] = missing
    elif column.null_count == 0:
        out[:] = _flat(column).reshape(out.shape)
    else:
        known = _valid(column)
        out[known] = _flat(column.drop_null()).reshape(-1, out.shape[1])
        out[~known] = missing


def vectors(rows: pa.RecordBatch, name: str, dim: int) -> pa.FixedSizeListArray | None:
    """The rows' column of vectors of that length, when they have one."""
    place = rows.schema.get_field_index(name)
    if place < 0 or not _is_vector(rows.schema.field(place).type):
        return None
    column = rows.column(place)
    return column if column.type.list_size == dim else None


def _is_vector(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind) and kind.value_type in _DTYPES


def _flat(column: pa.FixedSizeListArray) -> Array:
    values: Array = column.flatten().to_numpy(zero_copy_only=False)
    return values


def _integers(column: pa.Array) -> Array:
    values: Array = column.view(pa.int64()).to_numpy(zero_copy_only=False)
    return values


def _valid(column: pa.Array) -> Known:
    if column.null_count == 0:
        return np.ones(len(column), np.bool_)
    known: Known = column.is_valid().to_numpy(zero_copy_only=False)
    return known


def _having(column: pa.Array) -> Known | slice:
    """Index of the rows that have a value; mostly it is all."""
    return _valid(column) if column.null_count else slice(None)


def _kept(column: pa.Array) -> pa.Array:
    return column.drop_null() if column.null_count else column


def _fill_number(records: Array, field: str, column: pa.Array) -> None:
    """The column's values where it has any that fit; the ring's default stays elsewhere."""
    whole = records[field].dtype.kind == "i"
    if not (pa.types.is_integer(column.type) or (pa.types.is_floating(column.type) and not whole)):
        return
    having = _having(column)
    values = _kept(column).to_numpy(zero_copy_only=False)
    if whole and column.type != pa.int32():
        fits = (values >= _INT32.min) & (values <= _INT32.max)
        having, values = np.flatnonzero(_valid(column))[fits], values[fits]
    with np.errstate(over="ignore"):  # beyond float32 is infinite
        records[field][having] = values
    records["presence"][having] |= _BITS[field]


def _fill_actors(records: Array, actors: list[str | None]) -> None:
    codes = np.array([_ACTORS.get((actor or "").lower(), -1) for actor in actors], np.int32)
    records["actor_type"] = codes
    records["presence"][codes >= 0] |= _BITS["actor_type"]
