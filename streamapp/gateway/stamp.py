"""One event's bytes to one record: validated, given an identity, described in CloudEvents headers.

CloudEvents 1.0, Kafka protocol binding, binary content mode (section 3.2): the value stays as it
was sent, the attributes are ``ce_*`` headers.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from uuid import uuid4

from streamapp.core.errors import Reject
from streamapp.core.event import checked_key, merge_attributes, parse_event
from streamapp.core.slice import Headers
from streamapp.transport.clients import Outgoing

TYPE_DEFAULT = "event"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SPECVERSION = ("ce_specversion", b"1.0")
CONTENT_TYPE = ("content-type", b"application/json")
_FIELDS = frozenset({"id", "type", "source", "time", "specversion"})


class Stamped(NamedTuple):
    """An event that may be sent."""

    id: str
    type: str
    record: Outgoing


def stamp(
    value: bytes,
    *,
    source: str,
    received_us: int,
    bytes_max: int,
    id_if_none: str | None = None,
    attributes: Mapping[str, str] | None = None,
    content_type: str = "",
    trace: Headers = (),
) -> Stamped:
    """Validate an event and address it.

    Args:
        value: a JSON object; it becomes the record's value byte for byte.
        source: where it came from when it does not say so itself.
        received_us: its time when it has none, Unix microseconds.
        bytes_max: a larger value is rejected.
        id_if_none: its id when it has none; a new UUID otherwise.
        attributes: CloudEvents attributes of the request; they win over the body, and a
            ``partitionkey`` among them is the record's key.
        content_type: of the value; ``application/json`` when empty.
        trace: W3C trace context, more headers of the record.

    Raises:
        Reject: ``event.too_large``, or what ``core.event.parse_event`` says.
    """
    if len(value) > bytes_max:
        raise too_large(value, bytes_max)
    event = parse_event(value)
    if attributes:
        event = merge_attributes(event, attributes)
    identity = event.id or id_if_none or str(uuid4())
    kind = event.type or TYPE_DEFAULT
    time_us = received_us if event.time_us is None else event.time_us
    headers = [
        SPECVERSION,
        ("ce_id", identity.encode()),
        ("ce_source", (event.source or source).encode()),
        ("ce_type", kind.encode()),
        ("ce_time", rfc3339(time_us).encode()),
        ("content-type", content_type.encode()) if content_type else CONTENT_TYPE,
        *trace,
    ]
    # Without a conversation the id spreads events over partitions, and a retry finds the same one.
    key = event.conversation or identity
    if attributes:
        key = checked_key("partitionkey", attributes.get("partitionkey", key))
        headers += [
            (f"ce_{name}", text.encode())
            for name, text in attributes.items()
            if name not in _FIELDS
        ]
    return Stamped(identity, kind, Outgoing(value, key.encode(), headers))


@lru_cache(maxsize=256)  # a request's events share one
def rfc3339(time_us: int) -> str:
    """Unix microseconds as ``2026-11-22T09:30:00.000000Z``, always of this length."""
    moment = _EPOCH + timedelta(microseconds=time_us)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def too_large(value: bytes, bytes_max: int) -> Reject:
    """What an event is told that has more than ``bytes_max`` bytes."""
    return Reject(
        "event.too_large",
        f"the event has {len(value):,} bytes, {bytes_max:,} are taken at most",
        "send less, or raise STREAMAPP_EVENT_BYTES_MAX and the topic's record_bytes_max",
    )
