"""Rows of enriched records to frames of the ring, a column at a time.

``confidence`` is the intent's.  What a row does not know keeps the ring's default with its presence
bit off; processing time is a metric, not a field, and ``duration_ms`` is the event's own.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.ring import (
    ACTOR_TYPES,
    DTYPE_CODES,
    RowFlag,
    conversation_hashes,
    new_records,
    pack_source,
    presence,
)

Array = npt.NDArray[Any]

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
#: Names that people give to the four kinds of actor.
_ACTORS = {name: code for code, name in enumerate(ACTOR_TYPES)} | {
    "user": 1,
    "customer": 1,
    "assistant": 2,
    "bot": 2,
}


def frames(
    rows: pa.RecordBatch, source_index: int, dim: int
) -> tuple[Array, npt.NDArray[np.float32]]:
    """Records (n,) of RECORD_DTYPE and vectors (n, dim); no vector: zeros, no EMBEDDED flag."""
    records = new_records(rows.num_rows)
    names = set(rows.schema.names)
    records["timestamp_us"] = _integers(rows.column("time"))
    records["ingest_us"] = _integers(rows.column("ingest_time"))
    records["source_offset"] = pack_source(source_index, _integers(rows.column("source_offset")))
    conversations = rows.column("conversation")
    records["conversation_hash"] = conversation_hashes(conversations.to_pylist())
    _mark(records, "conversation_hash", _valid(conversations))
    for field, column in NUMBERS.items():
        if column in names:
            _fill(records, field, rows.column(column))
    if "spin" in names:
        _fill(records, "spin", rows.column("spin"))
    _fill_actors(records, rows.column("actor").to_pylist())
    return records, _vectors(records, rows, dim)


def _integers(column: pa.Array) -> Array:
    values: Array = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return values


def _valid(column: pa.Array) -> npt.NDArray[np.bool_]:
    known: npt.NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
    return known


def _mark(records: Array, field: str, known: npt.NDArray[np.bool_]) -> None:
    records["presence"] |= np.where(known, np.uint32(presence(field)), np.uint32(0))


def _fill(records: Array, field: str, column: pa.Array) -> None:
    """The column's values where it has any; the ring's default stays elsewhere."""
    known = _valid(column)
    values = column.drop_null()
    if pa.types.is_fixed_size_list(values.type):
        flat = values.flatten().to_numpy(zero_copy_only=False)
        records[field][known] = flat.reshape(-1, values.type.list_size)
    else:
        records[field][known] = values.to_numpy(zero_copy_only=False)
    _mark(records, field, known)


def _fill_actors(records: Array, actors: list[str | None]) -> None:
    codes = np.array([_ACTORS.get((actor or "").lower(), -1) for actor in actors], np.int32)
    records["actor_type"] = codes
    _mark(records, "actor_type", codes >= 0)


def _vectors(records: Array, rows: pa.RecordBatch, dim: int) -> npt.NDArray[np.float32]:
    vectors = np.zeros((rows.num_rows, dim), np.float32)
    column = rows.column("embedding") if "embedding" in rows.schema.names else None
    if column is None or column.type.list_size != dim:
        return vectors  # no embedder, or another model's record
    known = _valid(column)
    if known.any():
        flat = column.drop_null().flatten().to_numpy(zero_copy_only=False)
        vectors[known] = flat.reshape(-1, dim)
    records["flags"] |= np.where(known, np.uint8(RowFlag.EMBEDDED), np.uint8(0))
    if "truncated" in rows.schema.names:
        cut = rows.column("truncated").fill_null(False).to_numpy(zero_copy_only=False)
        records["flags"] |= np.where(cut, np.uint8(RowFlag.TRUNCATED), np.uint8(0))
    records["dim_used"] = np.where(known, dim, 0)
    records["dtype_code"] = np.where(known, DTYPE_CODES["<f4"], 0)
    _mark(records, "semantic", known)
    return vectors
