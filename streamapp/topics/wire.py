"""A Slice of raw records to a Batch: CloudEvents headers or bare JSON, in, Arrow columns out.

A record that is no event becomes a reject with its address; it never costs its neighbours.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from streamapp.core.batch import EVENT_SCHEMA, Batch, Rejected
from streamapp.core.errors import Reject
from streamapp.core.event import Event, checked_key, merge_attributes, parse_event
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Headers, RecordLike, Slice
from streamapp.topics.columns import CE_PREFIX, Members, Unlike, decode_alike, split

#: The stage named in rejects of records that never became events.
STAGE = "wire"
#: A stage's exception may quote a whole document; its dead letter must fit the topics.
REASON_CHARS_MAX = 1000
#: Year 1 to 9999, what every reader of a row can show; Kafka takes any 64 bits as a timestamp.
TIMESTAMP_MS = range(-62_135_596_800_000, 253_402_300_800_000)
#: Records taken at once; their members then stay in the processor's cache.
TOGETHER_MAX = 512
#: Fewer that look alike are decoded one by one.
TOGETHER_MIN = 8


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
    found = _Found(slice_.range, event_bytes_max)
    for at in range(0, len(slice_.records), TOGETHER_MAX):
        found.add(slice_.records[at : at + TOGETHER_MAX])
    rejects = sorted(found.rejects, key=lambda reject: reject.source_offset)
    return Batch(found.rows(), range_ or slice_.range, tuple(rejects))


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
    event = parse_event(value)
    attributes = cloudevent_attributes(record.headers)
    return merge_attributes(event, attributes) if attributes else event


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


#: A record and the members of its value.
_Split = tuple[RecordLike, Members]


class _Found:
    """Rows and rejects of a slice so far, in no order."""

    def __init__(self, range_: OffsetRange, event_bytes_max: int) -> None:
        self.rejects: list[Rejected] = []
        self._parts: list[pa.RecordBatch] = []
        self._range = range_
        self._event_bytes_max = event_bytes_max

    def add(self, records: Sequence[RecordLike]) -> None:
        """Decode records: those that look alike at once, others one by one."""
        alike: dict[tuple[tuple[str, ...], ...], list[_Split]] = {}
        others: list[RecordLike] = []
        low, high, size_max = TIMESTAMP_MS.start, TIMESTAMP_MS.stop, self._event_bytes_max
        for record in records:
            value, headers = record.value, record.headers
            if value and len(value) <= size_max and low <= record.timestamp < high:
                try:
                    members = split(value)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    pass  # decode_record says what is wrong with it
                else:
                    names = next(zip(*headers, strict=True)) if headers else ()
                    alike.setdefault((tuple(members), names), []).append((record, members))
                    continue
            others.append(record)
        for group in alike.values():
            self._add_alike(group)
        self._add_each(others)

    def _add_alike(self, group: Sequence[_Split]) -> None:
        """All at once, or by halves until what does not fit is among few."""
        records = [record for record, _ in group]
        if len(group) < TOGETHER_MIN:
            self._add_each(records)
            return
        topic, partition, _, _ = self._range
        try:
            rows = decode_alike(records, [members for _, members in group], topic, partition)
        except Unlike:
            self._add_alike(group[: len(group) // 2])
            self._add_alike(group[len(group) // 2 :])
        else:
            self._parts.append(rows)

    def _add_each(self, records: Sequence[RecordLike]) -> None:
        columns: dict[str, list[Any]] = {name: [] for name in EVENT_SCHEMA.names}
        for record in records:
            try:
                event = decode_record(record, event_bytes_max=self._event_bytes_max)
            except Reject as error:
                self.rejects.append(rejected(record, STAGE, error.code, error.message))
            else:
                _append(columns, record, event, self._range)
        arrays = [pa.array(columns[field.name], field.type) for field in EVENT_SCHEMA]
        if len(arrays[0]):
            self._parts.append(pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA))

    def rows(self) -> pa.RecordBatch:
        """All rows, in offset order."""
        if not self._parts:
            return pa.RecordBatch.from_pylist([], schema=EVENT_SCHEMA)
        rows = self._parts[0] if len(self._parts) == 1 else pa.concat_batches(self._parts)
        offsets = rows.column("source_offset").to_numpy()
        if (np.diff(offsets) > 0).all():
            return rows
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
