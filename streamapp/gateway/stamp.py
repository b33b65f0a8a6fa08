"""One event's bytes to one record: validated, given an identity, described in CloudEvents headers.

CloudEvents 1.0, Kafka protocol binding, binary content mode (section 3.2): the value stays as it
was sent, the attributes are ``ce_*`` headers.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes
from uuid import uuid4

from multidict import CIMultiDictProxy

from streamapp.core.errors import Reject
from streamapp.core.event import checked_key, merge_attributes, parse_event
from streamapp.transport.clients import Outgoing

TYPE_DEFAULT = "event"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SPECVERSION = ("ce_specversion", b"1.0")
_CONTENT_TYPE = ("content-type", b"application/json")
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
) -> Stamped:
    """Validate an event and address it.

    Args:
        value: a JSON object; it becomes the record's value byte for byte.
        source: where it came from when it does not say so itself.
        received_us: its time when it has none, Unix microseconds.
        bytes_max: a larger value is rejected.
        id_if_none: its id when it has none; a new UUID otherwise.
        attributes: CloudEvents attributes of the request; they win over the body.

    Raises:
        Reject: ``event.too_large``, or what ``core.event.parse_event`` says.
    """
    if len(value) > bytes_max:
        raise Reject(
            "event.too_large",
            f"the event has {len(value):,} bytes, {bytes_max:,} are taken at most",
            "send less, or raise STREAMAPP_EVENT_BYTES_MAX and the topic's record_bytes_max",
        )
    event = parse_event(value)
    if attributes:
        event = merge_attributes(event, attributes)
    identity = event.id or id_if_none or str(uuid4())
    kind = event.type or TYPE_DEFAULT
    time_us = received_us if event.time_us is None else event.time_us
    headers = [
        _SPECVERSION,
        ("ce_id", identity.encode()),
        ("ce_source", (event.source or source).encode()),
        ("ce_type", kind.encode()),
        ("ce_time", rfc3339(time_us).encode()),
        _CONTENT_TYPE,
    ]
    if attributes:
        headers += [
            (f"ce_{name}", text.encode())
            for name, text in attributes.items()
            if name not in _FIELDS
        ]
    # Without a conversation the id spreads events over partitions, and a retry finds the same one.
    key = (event.conversation or identity).encode()
    return Stamped(identity, kind, Outgoing(value, key, headers))


@lru_cache(maxsize=256)  # a request's events share one
def rfc3339(time_us: int) -> str:
    """Unix microseconds as ``2026-11-22T09:30:00.000000Z``, always of this length."""
    moment = _EPOCH + timedelta(microseconds=time_us)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def binary_attributes(headers: CIMultiDictProxy[str]) -> dict[str, str] | None:
    """The ``ce-*`` headers of a CloudEvents request in binary mode (HTTP binding 3.1), or None.

    Raises:
        Reject: ``event.specversion`` not 1.0, ``event.header`` not UTF-8 once percent-decoded.
    """
    version = headers.get("ce-specversion")
    if version is None:
        return None
    if version != "1.0":
        raise Reject("event.specversion", f"ce-specversion is {version[:20]!r}", "send 1.0")
    return {
        checked_key("attribute", name[3:].lower()): _decoded(name, value)
        for name, value in headers.items()
        if name[:3].lower() == "ce-"
    }


def idempotency_key(headers: CIMultiDictProxy[str]) -> str | None:
    """The Idempotency-Key header, quoted (draft-ietf-httpapi-idempotency-key-header) or bare.

    Raises:
        Reject: ``request.idempotency_key`` empty or not UTF-8, ``event.field`` too long.
    """
    value = headers.get("Idempotency-Key")
    if value is None:
        return None
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if not value or not _is_text(value):
        raise Reject(
            "request.idempotency_key", "Idempotency-Key is empty or not UTF-8", "send a UUID"
        )
    return checked_key("Idempotency-Key", value)


def _decoded(name: str, value: str) -> str:
    try:
        text = unquote_to_bytes(value.strip('"')).decode()
    except UnicodeError:
        raise Reject(
            "event.header",
            f"{name[:40]} is not UTF-8 after percent-decoding",
            "see CloudEvents HTTP 3.1.3.2",
        ) from None
    return text


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
