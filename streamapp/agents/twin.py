"""The enriched topic's JSON twin: one record per row, for readers that have no Arrow.

The enriched topic stays the truth; the twin is a copy, at least once, that ``kcat``, Java and
``jq`` read.  Partition p of the twin holds what partition p of the enriched topic holds, so a row's
``source_offset`` and the record's partition are its address, by which a reader drops repeats.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from streamapp.agents.making import Twin
from streamapp.agents.publish import RECORD_OVERHEAD_BYTES
from streamapp.core.batch import Batch
from streamapp.transport.clients import Outgoing

#: Columns whose text is JSON already; it goes in as it is.
_JSON_COLUMNS = frozenset({"payload", "attachments"})
#: What is left of a row that its topic does not take.
_KEPT = ("source_offset", "id", "type", "source", "conversation", "actor", "time", "ingest_time")
_CONTENT_TYPE = ("content-type", b"application/json")
_SPECVERSION = ("ce_specversion", b"1.0")
_IN_US = {pa.duration("ns"): pa.duration("us"), pa.time64("ns"): pa.time64("us")}
# NaN and the infinities become null: JSON has neither.
_encode = msgspec.json.Encoder().encode


def twin_to(topic: str, bytes_max: int) -> Twin:
    """What the enrich agent publishes beside an enriched batch: its rows, to ``topic``."""

    def twin(batch: Batch) -> list[tuple[str, list[Outgoing]]]:
        return [(topic, json_twin(batch, bytes_max))]

    return twin


def json_twin(batch: Batch, bytes_max: int, *, embedding: bool = False) -> list[Outgoing]:
    """The rows of an enriched batch as JSON records, in offset order.

    The key is the conversation, else the id; ``ce_*`` headers name the event; times are RFC 3339 in
    UTC with microseconds (nanoseconds are cut); ``payload`` and ``attachments`` are JSON, not text.
    A row too large keeps its identity, and ``left_out`` names its other columns.

    Args:
        batch: enriched.
        bytes_max: the twin topic's ``record_bytes_max``.
        embedding: write the column ``embedding`` too (some thousand characters a row).
    """
    names = [name for name in batch.rows.schema.names if embedding or name != "embedding"]
    columns = [json_values(name, batch.column(name)) for name in names]
    stamps = batch.column("ingest_time").cast(pa.int64()).to_pylist()
    records = []
    for stamp_us, values in zip(stamps, zip(*columns, strict=True), strict=True):
        row = dict(zip(names, values, strict=True))
        value = _encode(row)
        key = str(row["conversation"] or row["id"]).encode()
        headers = tuple(_headers(row))
        beside = len(key) + sum(len(name) + len(said) for name, said in headers)
        if len(value) + beside + RECORD_OVERHEAD_BYTES > bytes_max:
            left_out = [name for name in names if name not in _KEPT]
            value = _encode({**{name: row[name] for name in _KEPT}, "left_out": left_out})
        records.append(Outgoing(value, key, headers, batch.range.partition, stamp_us // 1000))
    return records


def _headers(row: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    yield _SPECVERSION
    for name in ("id", "source", "type", "time"):
        yield "ce_" + name, str(row[name]).encode()
    yield _CONTENT_TYPE


def json_values(name: str, column: pa.Array) -> Sequence[Any]:
    """A column as values that msgspec writes as JSON."""
    if name in _JSON_COLUMNS:
        texts = column.to_pylist()
        return [None if text is None else msgspec.Raw(text.encode()) for text in texts]
    if pa.types.is_timestamp(column.type):
        in_utc = column.cast(pa.timestamp("us", tz="UTC"), safe=False)
        return list(pc.replace_substring(in_utc.cast(pa.string()), " ", "T").to_pylist())
    kind = _in_us(column.type)
    plain = column if kind == column.type else column.cast(kind, safe=False)
    return list(plain.to_pylist())


def _in_us(kind: pa.DataType) -> pa.DataType:
    """The type with microseconds for nanoseconds, which Python's own times do not have."""
    types = pa.types
    if types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if types.is_struct(kind):
        return pa.struct([field.with_type(_in_us(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(_in_us(kind.key_type), _in_us(kind.item_type))
    if types.is_list(kind) or types.is_fixed_size_list(kind):
        values = kind.value_field.with_type(_in_us(kind.value_type))
        return pa.list_(values, kind.list_size if types.is_fixed_size_list(kind) else -1)
    if types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_in_us(kind.value_type)))
    return _IN_US.get(kind, kind)
