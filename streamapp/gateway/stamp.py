"""One event's bytes to one record: validated, given an identity, described in CloudEvents headers.

CloudEvents 1.0, Kafka protocol binding, binary content mode (section 3.2): the value stays as it
was sent, the attributes are ``ce_*`` headers.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from os import urandom
from typing import NamedTuple

import msgspec

from streamapp.core.errors import Reject
from streamapp.core.event import checked_key, merge_attributes, parse_head
from streamapp.core.slice import Headers
from streamapp.topics.records import make_record
from streamapp.transport.clients import Outgoing

TYPE_DEFAULT = "event"
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # in UTC; a zone would only cost time
SPECVERSION = ("ce_specversion", b"1.0")
CONTENT_TYPE = ("content-type", b"application/json")
#: What a String of CloudEvents must not have (core specification, section 3.1), beside surrogates.
_FORBIDDEN = r"\u0000-\u001f\u007f-\u009f\ufdd0-\ufdef\ufffe\uffff"
_forbidden = re.compile(rf"[{_FORBIDDEN}\ud800-\udfff]")
#: The same for who describes it: a JSON text has no surrogates.
CLEAN = f"^[^{_FORBIDDEN}]*$"
_FIELDS = frozenset({"id", "type", "source", "time", "specversion"})


class Violation(msgspec.Struct, frozen=True):
    """A rule of its topic's schema that an event breaks.

    ``path`` in the event, a JSON Pointer; ``rule``: the schema, and the keyword's place in it.
    """

    path: str
    rule: str
    error: str


class Stamped(NamedTuple):
    """An event that may be sent; ``typed``: it says its type itself."""

    id: str
    type: str
    record: Outgoing
    typed: bool = True
    violation: Violation | None = None


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
    if not attributes and not content_type:
        made = make_record(value, source, id_if_none or new_id(), received_us)
        if made is not None:
            identity, said, record_key, headers = made
            headers += trace
            record = Outgoing(value, record_key, headers)
            return Stamped(identity, said or TYPE_DEFAULT, record, said is not None)
    event = parse_head(value)
    if attributes:
        event = merge_attributes(event, attributes)
    identity = event.id or id_if_none or new_id()
    kind = event.type or TYPE_DEFAULT
    time_us = received_us if event.time_us is None else event.time_us
    origin = event.source or source
    if not is_clean(f"{identity}{kind}{origin}"):
        raise unclean()
    # Without a conversation the id spreads events over partitions, and a retry finds the same one.
    key = event.conversation or identity
    if attributes:
        key = checked_key("partitionkey", attributes.get("partitionkey", key))
        trace = [
            *trace,
            *(
                (f"ce_{name}", text.encode())
                for name, text in attributes.items()
                if name not in _FIELDS
            ),
        ]
    content = ("content-type", content_type.encode()) if content_type else CONTENT_TYPE
    time, typed = rfc3339(time_us), bool(event.type)
    return assembled(value, identity, kind, origin, time, key, trace, content, typed=typed)


def assembled(
    value: bytes,
    identity: str,
    kind: str,
    source: str,
    time: str,
    key: str,
    more: Headers,
    content_type: tuple[str, bytes] = CONTENT_TYPE,
    *,
    typed: bool,
) -> Stamped:
    """The record of an event whose parts are known and checked; ``more`` headers at its end."""
    headers = [
        SPECVERSION,
        ("ce_id", identity.encode()),
        ("ce_source", source.encode()),
        ("ce_type", kind.encode()),
        ("ce_time", time.encode()),
        content_type,
        *more,
    ]
    return Stamped(identity, kind, Outgoing(value, key.encode(), headers), typed)


def new_id() -> str:
    """A random id, a version 4 UUID (RFC 9562), in a third of the time that uuid4 takes."""
    digits = urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def is_clean(text: str) -> bool:
    """Whether a String of CloudEvents may have these characters (section 3.1)."""
    return text.isprintable() or not _forbidden.search(text)


def unclean() -> Reject:
    """What an event is told that is not :func:`is_clean`."""
    return Reject(
        "event.field",
        "the event's id, type or source has a control character or a noncharacter",
        "leave it out (CloudEvents 1.0, section 3.1)",
    )


@lru_cache(maxsize=256)  # a request's events share one
def rfc3339(time_us: int) -> str:
    """Unix microseconds as ``2026-11-22T09:30:00.000000Z``, always of this length."""
    moment = _EPOCH + timedelta(microseconds=time_us)
    return moment.isoformat(timespec="microseconds") + "Z"


def too_large(value: bytes, bytes_max: int) -> Reject:
    """What an event is told that has more than ``bytes_max`` bytes."""
    return Reject(
        "event.too_large",
        f"the event has {len(value):,} bytes, {bytes_max:,} are taken at most",
        "send less, or raise STREAMAPP_EVENT_BYTES_MAX and the topic's record_bytes_max",
    )
