"""An Event: one thing that happened, and what we accept as one.

The value of a raw record is a JSON object.  Its known keys become columns, every other key is kept
as it was written, in ``payload``.  Attributes in ``ce_*`` headers (CloudEvents 1.0, Kafka binding,
binary mode) win over the body.  In structured mode the value is an envelope of attributes and
``data``, and the event is the one that binary mode would have sent.
"""

import binascii
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from streamapp.core.errors import Reject

#: Deeper JSON is refused: nobody means it, and recursive readers downstream break on it.
DEPTH_MAX = 64
#: Ids, types, sources and conversations are keys in tables and maps; text has its own limit.
KEY_CHARS_MAX = 512


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened.

    ``time_us`` is event time, Unix microseconds; ``duration_ms`` how long it took to say or do;
    ``payload`` a JSON object text of every key that is not a field; ``attachments`` a JSON text or
    None.
    """

    id: str | None = None
    type: str | None = None
    source: str | None = None
    conversation: str | None = None
    actor: str | None = None
    time_us: int | None = None
    text: str | None = None
    duration_ms: float = 0.0
    payload: str = "{}"
    attachments: str | None = None


#: JSON key to Event field; the first of two spellings that is present wins.
_FIELDS = {
    "id": "id",
    "type": "type",
    "source": "source",
    "conversation_id": "conversation",
    "conversation": "conversation",
    "actor": "actor",
    "message": "text",
    "text": "text",
}
_OTHERS = frozenset({"time", "duration_ms", "attachments"})
_KEYS = frozenset({"id", "type", "source", "conversation", "actor"})
_NUMBERS_END = 1 << 63
_BODY = ("text", "duration_ms", "attachments")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Year 1 to 9999 in UTC, Unix microseconds: what Python can show.
_TIMES_US = range(-62_135_596_800_000_000, 253_402_300_800_000_000)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str | int | None)
_number = msgspec.json.Decoder(float | None)
_anything = msgspec.json.Decoder()
_text_only = msgspec.json.Decoder(str)
_NULL = b"null"
_COLONS = (b'":', b" :", b"\n:", b"\r:", b"\t:")


def parse_event(value: bytes) -> Event:
    """An Event out of a JSON object's bytes.

    Raises:
        Reject: ``event.empty``, ``event.utf8``, ``event.json``, ``event.shape``,
        ``event.duplicate_key``,
            ``event.depth``, ``event.field``, ``event.time``; the message says where.
    """
    members = _parse_members(value)
    fields: dict[str, Any] = {}
    rest: list[str] = []
    for (key, raw), role in zip(members.items(), roles(members), strict=True):
        if role is None:
            rest.append(f"{json.dumps(key, ensure_ascii=False)}:{str(raw, 'utf-8')}")
        elif role == "time":
            fields["time_us"] = parse_time(_decode(key, _string, raw))
        elif role == "duration_ms":
            fields["duration_ms"] = _duration(raw)
        elif role == "attachments":
            fields["attachments"] = None if bytes(raw) == b"null" else str(raw, "utf-8")
        else:
            fields[role] = _text(key, raw)
    return Event(**fields, payload="{" + ",".join(rest) + "}")


def parse_head(value: bytes) -> Event:
    """As :func:`parse_event`, without text, duration, payload and attachments, and faster.

    Raises:
        Reject: as :func:`parse_event` does.
    """
    fields: dict[str, Any] = {}
    for key, said in _parse_object(value, DEPTH_MAX).items():
        role = _FIELDS.get(key, key if key in _OTHERS else None)
        if role is None or role in fields:
            continue
        kind = type(said)
        is_number = kind is int and 0 <= said < _NUMBERS_END
        is_text = kind is str and (role not in _KEYS or len(said) <= KEY_CHARS_MAX)
        if role == "attachments" or said is None:
            fields[role] = None
        elif role == "duration_ms" and not is_number:
            return _head_of(parse_event(value))  # which says what is wrong, if anything is
        elif is_number or is_text:
            fields[role] = str(said) if is_number and role in _KEYS else said
        else:
            return _head_of(parse_event(value))
    for role in _BODY:
        fields.pop(role, None)
    return Event(time_us=parse_time(fields.pop("time", None)), **fields)


def _head_of(event: Event) -> Event:
    return Event(
        id=event.id,
        type=event.type,
        source=event.source,
        conversation=event.conversation,
        actor=event.actor,
        time_us=event.time_us,
    )


def parse_envelope(value: bytes) -> Event:
    """An Event out of a CloudEvent's bytes in the JSON event format.

    https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
    An event without ``data`` has its attributes only.

    Raises:
        Reject: as :func:`parse_event` does, for the envelope or for its data.
    """
    members, data = open_envelope(value)
    attributes = {
        name: str(said)
        for name in ("id", "type", "source", "time")
        if (said := _decode(name, _string, members.get(name, _NULL))) is not None
    }
    return merge_attributes(parse_event(data), attributes)


def open_envelope(value: bytes) -> tuple[dict[str, msgspec.Raw], bytes]:
    """The members of a CloudEvent in the JSON event format, and the data that binary mode sends.

    Raises:
        Reject: as :func:`parse_event` does, for the envelope.
    """
    members = _parse_members(value, DEPTH_MAX + 1)
    said = _decode("datacontenttype", _string, members.get("datacontenttype", _NULL))
    return members, _data(members, "application/json" if said is None else str(said))


def _data(members: Mapping[str, msgspec.Raw], media_type: str) -> bytes:
    """What a record's value is in binary mode; an event without data has an empty object."""
    data, coded = (bytes(members.get(name, _NULL)) for name in ("data", "data_base64"))
    if _NULL not in {coded, data}:
        raise Reject("event.field", "there are data and data_base64", "send one of them")
    if coded != _NULL:
        try:
            return binascii.a2b_base64(_decode("data_base64", _text_only, coded), strict_mode=True)
        except ValueError as error:
            raise Reject(
                "event.field", f"data_base64: {error}", "see RFC 4648, section 4"
            ) from None
    if data == _NULL:
        return b"{}"
    subtype = media_type.partition(";")[0].rpartition("/")[2].strip().lower()
    if subtype == "json" or subtype.endswith("+json") or not data.startswith(b'"'):
        return data
    return str(_decode("data", _text_only, data)).encode()


def roles(keys: Iterable[str]) -> list[str | None]:
    """What each key of an event's JSON object fills: a field, or None for ``payload``."""
    found: list[str | None] = []
    for key in keys:
        role = _FIELDS.get(key, key if key in _OTHERS else None)
        found.append(None if role in found else role)
    return found


def merge_attributes(event: Event, attributes: Mapping[str, str]) -> Event:
    """The event with CloudEvents attributes (names without ``ce_``) over what the body said."""
    changes: dict[str, Any] = {
        name: checked_key(name, attributes[name])
        for name in ("id", "type", "source")
        if attributes.get(name)
    }
    if "time" in attributes:
        changes["time_us"] = parse_time(attributes["time"])
    return msgspec.structs.replace(event, **changes) if changes else event


def parse_time(value: str | int | None) -> int | None:
    """RFC 3339 text, or Unix milliseconds, to Unix microseconds; None stays None.

    Raises:
        Reject: ``event.time``.
    """
    if value is None:
        return None
    try:
        if isinstance(value, int):
            moment = datetime.fromtimestamp(value / 1000, UTC)
        else:
            moment = datetime.fromisoformat(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        since = moment - _EPOCH  # exact, and does not overflow where UTC has no year for it
        time_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    except (ValueError, OverflowError, OSError):
        raise _no_time(value) from None
    if time_us not in _TIMES_US:
        raise _no_time(value)
    return time_us


def _no_time(value: str | int) -> Reject:
    return Reject(
        "event.time",
        f"time {str(value)[:40]!r} is neither RFC 3339 nor Unix milliseconds",
        'write it like "2026-11-22T09:30:00Z"',
    )


def _parse_members(value: bytes, depth_max: int = DEPTH_MAX) -> dict[str, msgspec.Raw]:
    _parse_object(value, depth_max)
    return _members.decode(value)


def _parse_object(value: bytes, depth_max: int) -> dict[str, Any]:
    if not value.strip():
        raise Reject("event.empty", "the value is empty", "send a JSON object")
    try:
        value.decode()
        whole = _anything.decode(value)
        if not isinstance(whole, dict):
            raise Reject(
                "event.shape", "the value is JSON but not an object", 'send {"message": ...}'
            )
        members = _count_members(whole, depth_max)
        # Every member has one colon: when there are no more colons than members no key came twice.
        if value.count(b":") != members and _colons_max(value) != members:
            json.loads(value, object_pairs_hook=_refuse_duplicates)
    except UnicodeDecodeError as error:
        raise Reject("event.utf8", f"byte {error.start} is not UTF-8", "encode as UTF-8") from None
    except RecursionError:
        raise _too_deep() from None
    except msgspec.DecodeError as error:
        raise Reject("event.json", f"not JSON: {error}", "send a JSON object") from None
    return whole


def _colons_max(value: bytes) -> int:
    """At least as many as the colons of JSON outside of its strings.

    Those follow a key's quote or white space; colons of times and URLs do not.
    """
    return sum(map(value.count, _COLONS))


def _count_members(value: Any, depth: int) -> int:
    if depth < 0:
        raise _too_deep()
    if isinstance(value, dict):
        total = len(value)
        for child in value.values():
            if isinstance(child, dict | list):
                total += _count_members(child, depth - 1)
        return total
    return sum(
        _count_members(child, depth - 1) for child in value if isinstance(child, dict | list)
    )


def _too_deep() -> Reject:
    return Reject("event.depth", f"JSON is nested deeper than {DEPTH_MAX}", "send flatter JSON")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise Reject(
                "event.duplicate_key", f"key {key[:60]!r} comes twice", "send each key once"
            )
        seen.add(key)


def _decode(key: str, decoder: msgspec.json.Decoder[Any], raw: msgspec.Raw | bytes) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as error:
        raise Reject("event.field", f"{key}: {error}", "see topics/schemas/event.v1.json") from None


def _text(key: str, raw: msgspec.Raw) -> str | None:
    value = _decode(key, _string, raw)
    if value is None:
        return None
    return str(value) if key in {"message", "text"} else checked_key(key, str(value))


def checked_key(name: str, value: str) -> str:
    """A value that serves as a key; Reject when it is longer than ``KEY_CHARS_MAX``."""
    if len(value) > KEY_CHARS_MAX:
        raise Reject(
            "event.field", f"{name} has {len(value)} characters", f"use {KEY_CHARS_MAX} at most"
        )
    return value


def _duration(raw: msgspec.Raw) -> float:
    value = _decode("duration_ms", _number, raw)
    if value is not None and value < 0:
        raise Reject("event.field", f"duration_ms is {value}", "give milliseconds, 0 or more")
    return float(value or 0.0)
