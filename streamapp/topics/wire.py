"""A Slice of raw records to a Batch: CloudEvents of both modes or bare JSON in, Arrow columns out.

A record that is no event becomes a reject with its address; it never costs its neighbours.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from streamapp.core.batch import EVENT_SCHEMA, Batch, Rejected
from streamapp.core.errors import Reject
from streamapp.core.event import (
    Event,
    checked_key,
    merge_attributes,
    parse_envelope,
    parse_event,
)
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Headers, RecordLike, Slice
from streamapp.topics.columns import decode_plain

#: The stage named in rejects of records that never became events.
STAGE = "wire"
#: A stage's exception may quote a whole document; its dead letter must fit the topics.
REASON_CHARS_MAX = 1000
#: Year 1 to 9999, what every reader of a row can show; Kafka takes any 64 bits as a timestamp.
TIMESTAMP_MS = range(-62_135_596_800_000, 253_402_300_800_000)
#: CloudEvents 1.0 Kafka protocol binding, section 3.2: attributes in binary mode are headers with
#: this prefix.
CE_PREFIX = "ce_"
#: How the content type of an event in structured mode begins.
ENVELOPE = b"application/cloudevents"


def decode_slice(
    slice_: Slice, range_: OffsetRange | None = None, *, event_bytes_max: int
) -> Batch:
    """Rows for every event of the slice, rejects for every other record.

    Args:
        slice_: what the transport delivered.
        range_: the range to answer for when it is not the slice's own (it then begins where the
        last one ended).
        event_bytes_max: a larger value is rejected as ``event.too_large``.
    """
    topic, partition, _, _ = slice_.range
    rows, left = decode_plain(slice_.records, topic, partition, event_bytes_max=event_bytes_max)
    rejects: tuple[Rejected, ...] = ()
    if left:
        more, rejects = _decode_each(left, slice_.range, event_bytes_max)
        rows = _merge(rows, more)
    return Batch(rows, range_ or slice_.range, rejects)


def decode_record(record: RecordLike, *, event_bytes_max: int) -> Event:
    """The Event of one record.

    Raises:
        Reject: it is none; codes as in ``core.event.parse_event`` and ``event.too_large``.
    """
    value = record.value
    if record.timestamp not in TIMESTAMP_MS:
        raise Reject(
            "event.timestamp",
            f"the record's timestamp is {record.timestamp} ms, not in the years 1 to 9999",
            "let the producer stamp it in Unix milliseconds",
        )
    if not value:
        raise Reject("event.empty", "the record has no value (a tombstone)")
    if len(value) > event_bytes_max:
        raise Reject(
            "event.too_large",
            f"the record has {len(value):,} bytes, {event_bytes_max:,} are enriched at most",
            "raise STREAMAPP_EVENT_BYTES_MAX or send less",
        )
    event = parse_envelope(value) if _is_envelope(record.headers) else parse_event(value)
    attributes = cloudevent_attributes(record.headers)
    return merge_attributes(event, attributes) if attributes else event


def _is_envelope(headers: Headers) -> bool:
    """True in structured mode (section 3.3), where the attributes are in the value.

    Raises:
        Reject: ``event.format`` when the envelope is not JSON.
    """
    said = [value for name, value in headers if name.lower() == "content-type" and value]
    kind = said[-1].partition(b";")[0].strip().lower() if said else b""
    if not kind.startswith(ENVELOPE):
        return False
    if kind not in {ENVELOPE, ENVELOPE + b"+json"}:
        raise Reject(
            "event.format",
            f"content-type {kind[:60].decode(errors='replace')!r} is not one event in JSON",
            "send application/cloudevents+json, or binary mode",
        )
    return True


def cloudevent_attributes(headers: Headers) -> dict[str, str]:
    """The ``ce_*`` headers without their prefix.

    Raises:
        Reject: ``event.header`` when one is not UTF-8.
    """
    try:
        return {
            name[len(CE_PREFIX) :]: value.decode()
            for name, value in headers
            if name.startswith(CE_PREFIX) and value is not None  # a null of Kafka's
        }
    except UnicodeDecodeError:
        raise Reject("event.header", "a ce_ header is not UTF-8", "encode as UTF-8") from None


def rejected(record: RecordLike, stage: str, code: str, reason: str) -> Rejected:
    """The dead letter of a record: its address, its original bytes, and why.

    A timestamp that no calendar has is 0 here; the reason has it.
    """
    return Rejected(
        record.offset,
        record.timestamp if record.timestamp in TIMESTAMP_MS else 0,
        record.key,
        record.value,
        record.headers,
        stage,
        code,
        reason[:REASON_CHARS_MAX],
    )


def _decode_each(
    records: Sequence[RecordLike], range_: OffsetRange, event_bytes_max: int
) -> tuple[pa.RecordBatch, tuple[Rejected, ...]]:
    """Rows and rejects of records, one by one by the rules of ``core.event``."""
    columns: dict[str, list[Any]] = {name: [] for name in EVENT_SCHEMA.names}
    rejects: list[Rejected] = []
    for record in records:
        try:
            event = decode_record(record, event_bytes_max=event_bytes_max)
        except Reject as error:
            rejects.append(rejected(record, STAGE, error.code, error.message))
        else:
            _append(columns, record, event, range_)
    arrays = [pa.array(columns[field.name], field.type) for field in EVENT_SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA), tuple(rejects)


def _merge(one: pa.RecordBatch, other: pa.RecordBatch) -> pa.RecordBatch:
    """The rows of both, in offset order."""
    if not other.num_rows:
        return one
    if not one.num_rows:
        return other
    rows = pa.concat_batches([one, other])
    offsets = rows.column("source_offset").to_numpy()
    return rows.take(pa.array(np.argsort(offsets, kind="stable")))


def _append(
    columns: dict[str, list[Any]], record: RecordLike, event: Event, range_: OffsetRange
) -> None:
    topic, partition, _, _ = range_
    ingest_us = record.timestamp * 1000
    columns["source_offset"].append(record.offset)
    columns["id"].append(event.id or f"{topic}-{partition}-{record.offset}")
    columns["type"].append(event.type or "event")
    columns["source"].append(event.source or topic)
    columns["conversation"].append(event.conversation or _conversation_of_key(record.key, event.id))
    columns["actor"].append(event.actor)
    columns["time"].append(ingest_us if event.time_us is None else event.time_us)
    columns["ingest_time"].append(ingest_us)
    columns["text"].append(event.text)
    columns["duration_ms"].append(event.duration_ms)
    columns["payload"].append(event.payload)
    columns["attachments"].append(event.attachments)


def _conversation_of_key(key: bytes | None, event_id: str | None) -> str | None:
    """The record's key names the conversation, unless the producer had none and spread by id."""
    if not key:
        return None
    try:
        text = checked_key("key", key.decode())
    except (UnicodeDecodeError, Reject):
        return None
    return None if text == event_id else text
