"""One v3 record: JSON in, what is sent out, and the report of where it is."""

from datetime import datetime, timedelta
from typing import Any

import msgspec

from streamapp.gateway.confluent.errors import (
    BAD_PAYLOAD,
    ConfluentError,
    bad_request,
    unprocessable,
)
from streamapp.gateway.confluent.formats import NULL, base64_of
from streamapp.gateway.confluent.produce import TIMESTAMP_MS_MAX
from streamapp.gateway.stamp import rfc3339
from streamapp.transport.clients import Address, Outgoing

_text = msgspec.json.Decoder(str)
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class Header(msgspec.Struct):
    """A record header; the value is base64."""

    name: str
    value: str | None = None


class Data(msgspec.Struct):
    """A key or value; without data it is null, a tombstone."""

    type: str | None = None
    data: msgspec.Raw = NULL


class Record(msgspec.Struct):
    """One record as v3 asks for it."""

    partition_id: int | None = None
    headers: list[Header] | None = None
    key: Data | None = None
    value: Data | None = None
    timestamp: str | None = None


class Entry(Record):
    """One record of a batch."""

    id: str = ""


class Sent(msgspec.Struct):
    """A record, with what its report says of it."""

    record: Outgoing
    key_type: str | None
    value_type: str | None


_record = msgspec.json.Decoder(Record)


def parse(data: bytes, now_ms: int) -> Sent:
    """One record of a stream.

    Raises:
        ConfluentError: 400, 42206.
    """
    try:
        data.decode()
        return sent(_record.decode(data), now_ms)
    except UnicodeDecodeError:
        raise bad_request("Bad Request: the record is not UTF-8.") from None
    except RecursionError:
        raise bad_request("Bad Request: the record is nested too deeply.") from None
    except msgspec.DecodeError as error:
        raise bad_request(f"Bad Request: {error}") from None


def sent(record: Record, now_ms: int) -> Sent:
    """What goes to the log; its time is given here, so that the report can say it.

    Raises:
        ConfluentError: 400, 42206.
    """
    key, value = record.key or Data(), record.value or Data()
    headers = [(header.name, _bytes(header.value or "")) for header in record.headers or ()]
    at_ms = now_ms if record.timestamp is None else _milliseconds(record.timestamp)
    outgoing = Outgoing(
        _decoded(value, "value"), _decoded(key, "key"), headers, record.partition_id, at_ms
    )
    return Sent(outgoing, key.type, value.type)


def report(of: Sent, cluster: str, address: Address) -> dict[str, Any]:
    """Where a record is; without ``error_code``, which only a stream's reports have."""
    value, key, _, _, at_ms = of.record
    body: dict[str, Any] = {
        "cluster_id": cluster,
        "topic_name": address.topic,
        "partition_id": address.partition,
        "offset": address.offset,
        "timestamp": rfc3339((at_ms or 0) * 1000),
    }
    for name, kind, data in (("key", of.key_type, key), ("value", of.value_type, value)):
        if data is not None:
            body[name] = {"type": kind, "size": len(data)}
    return body


def _decoded(part: Data, name: str) -> bytes | None:
    data = bytes(part.data)
    if data == b"null":
        return None
    match part.type:
        case "JSON":
            return data
        case "STRING":
            return _string(data, name).encode()
        case "BINARY":
            return _bytes(_string(data, name))
        case None:
            raise unprocessable(f"{name}.type is missing: BINARY, JSON or STRING", BAD_PAYLOAD)
        case other:
            raise unprocessable(
                f"{name}.type {other[:40]!r} is not taken: BINARY, JSON or STRING", BAD_PAYLOAD
            )


def _string(data: bytes, name: str) -> str:
    try:
        return _text.decode(data)
    except msgspec.DecodeError:
        short = data[:40].decode(errors="replace")
        raise bad_request(f"Bad Request: {name}: data={short} is not a string.") from None


def _bytes(text: str) -> bytes:
    try:
        return base64_of(text)
    except ValueError as error:
        raise bad_request(f"Bad Request: {error}") from None


def _milliseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        at_ms = (moment - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, TypeError):  # the latter of one without a zone
        at_ms = -1
    if not 0 <= at_ms < TIMESTAMP_MS_MAX:
        raise ConfluentError(400, f"Bad Request: timestamp={text[:40]} is not RFC 3339.")
    return at_ms
