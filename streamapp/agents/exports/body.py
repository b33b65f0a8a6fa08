"""What is posted: rows of an enriched record as JSON, in one Standard Webhooks message.

A message is made of stored rows alone, so whoever makes it again, at whatever time, makes the same
bytes; its id is their digest.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

import msgspec
import pyarrow as pa

from streamapp.agents.exports.condition import ADDRESS
from streamapp.agents.twin import json_values
from streamapp.core.batch import EVENT_SCHEMA
from streamapp.core.errors import Refuse
from streamapp.core.exports import Export
from streamapp.core.slice import RecordLike
from streamapp.topics.enriched import Cover, decode_rows

TYPE = "streamapp.events"
#: A vector this long is for models; readers of JSON have no use for thousands of digits.
_VECTOR_ITEMS_MAX = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encode = msgspec.json.Encoder().encode


class Place(NamedTuple):
    """A row of a partition of the enriched topic: the record's offset, the row in it."""

    offset: int
    row: int


class Event(NamedTuple):
    """A row as it is posted: a JSON object, and what JSON-LD has in front of its members."""

    place: Place
    ingest_us: int
    value: bytes
    subject: bytes


class Message(NamedTuple):
    """What one POST carries."""

    id: str
    media: str
    body: bytes


def exported_columns(export: Export, workflow: pa.Schema) -> tuple[str, ...]:
    """The columns of an event, in order; the address is always among them.

    Raises:
        Refuse: ``export.columns`` one that is not there.
    """
    known = {field.name: field.type for field in (*ADDRESS, *EVENT_SCHEMA, *workflow)}
    address = (*(field.name for field in ADDRESS), "source_offset")
    for name in export.columns:
        if name not in known:
            raise Refuse(
                "export.columns",
                f"[exports.{export.name}] columns: there is no {name[:80]!r}",
                f"there are: {', '.join(known)}",
            )
    wanted = export.columns or (name for name, kind in known.items() if not _is_vector(kind))
    return (*address, *(name for name in wanted if name not in address))


def rows_of(record: RecordLike, wanted: pa.Schema) -> tuple[Cover, pa.Table]:
    """A record's rows, with the address in front; a column that it has not is null.

    Raises:
        Halt: the record is not ours.
    """
    cover, batch = decode_rows(record, frozenset(wanted.names))
    count = batch.num_rows
    address = {"source_topic": cover.topic, "source_partition": cover.partition}
    columns = [
        pa.array([address[field.name]] * count, field.type)
        if field.name in address
        else batch.column(field.name)
        if field.name in batch.schema.names
        else pa.nulls(count, field.type)
        for field in wanted
    ]
    return cover, pa.Table.from_arrays(columns, names=wanted.names)


def events_of(
    offset: int, rows: pa.Table, picked: Sequence[int], names: Sequence[str]
) -> list[Event]:
    """These rows of a record as events.

    Args:
        offset: the record's.
        rows: as :func:`rows_of` has them.
        picked: which of them, rising.
        names: columns, see :func:`exported_columns`.
    """
    taken = rows.take(pa.array(picked, pa.int64())).combine_chunks()
    columns = [json_values(name, _chunk(taken, name)) for name in names]
    stamps = _chunk(taken, "ingest_time").cast(pa.int64()).to_pylist()
    kinds = _chunk(taken, "type").to_pylist()
    events = []
    for row, at_us, kind, values in zip(
        picked, stamps, kinds, zip(*columns, strict=True), strict=True
    ):
        members = dict(zip(names, values, strict=True))
        address = ":".join(str(members[name]) for name in names[:3])
        subject = _encode({"@id": f"urn:streamapp:event:{address}", "@type": kind})
        events.append(Event(Place(offset, row), at_us, _encode(members), subject))
    return events


def message(export: Export, events: Sequence[Event]) -> Message:
    """The POST of these events, with the export's ontology if it has one."""
    iri = export.ontology_iri
    values = [_linked(event) for event in events] if iri else [event.value for event in events]
    newest = _EPOCH + timedelta(microseconds=max(event.ingest_us for event in events))
    body = _encode(
        {
            **({"@context": {"@vocab": iri}} if iri else {}),
            "type": TYPE,
            "timestamp": newest.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "data": {"export": export.name, "events": [msgspec.Raw(value) for value in values]},
        }
    )
    media = "application/ld+json" if iri else "application/json"
    return Message(f"msg_{sha256(body).hexdigest()[:40]}", media, body)


def _linked(event: Event) -> bytes:
    return event.subject[:-1] + b"," + event.value[1:]


def _chunk(rows: pa.Table, name: str) -> pa.Array:
    column = rows.column(name)
    return column.chunk(0) if column.num_chunks == 1 else pa.array([], column.type)


def _is_vector(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) and kind.list_size > _VECTOR_ITEMS_MAX)
