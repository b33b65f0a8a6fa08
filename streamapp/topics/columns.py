"""Many records that look alike to Arrow columns, without a Python object for every value.

The records of one producer have the same keys in the same order.  So a record is split into its
members once, as raw JSON, and everything else is done per key over all records: one decoder call,
one search, one buffer.  Whatever is not in its plainest form raises :class:`Unlike`; the caller
then takes fewer records at once and in the end one, by the rules of ``core.event``, which are the
only truth of what an event is.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streamapp.core.batch import EVENT_SCHEMA, TIME
from streamapp.core.errors import Reject
from streamapp.core.event import DEPTH_MAX, KEY_CHARS_MAX, parse_time, roles
from streamapp.core.slice import RecordLike
from streamapp.topics.times import parse_times

#: CloudEvents 1.0 Kafka protocol binding, section 3.2: attributes in binary mode are headers with
#: this prefix.
CE_PREFIX = "ce_"

Members = Mapping[str, msgspec.Raw]
_Nulls = npt.NDArray[np.bool_]

#: A value's members as they were written.  Checks syntax; not UTF-8, numbers and repeated keys.
split: Callable[[bytes], dict[str, msgspec.Raw]] = msgspec.json.Decoder(
    dict[str, msgspec.Raw]
).decode
_strings = msgspec.json.Decoder(list[str | int | None])
_floats = msgspec.json.Decoder(list[float | None])
_anything = msgspec.json.Decoder(list[Any])
_encode = msgspec.json.Encoder().encode


class Unlike(Exception):
    """These records do not go through together."""


class _Raws:
    """The values of one key, as raw JSON."""

    __slots__ = ("are_strings", "joined", "lengths", "raws", "starts")

    def __init__(self, raws: Sequence[msgspec.Raw]) -> None:
        self.raws = raws
        self.joined = b"".join(raws)
        self.lengths = np.fromiter(map(len, raws), np.int64, len(raws))
        self.starts = np.cumsum(self.lengths) - self.lengths
        first = np.frombuffer(self.joined, np.uint8)[self.starts]
        self.are_strings = bool((first == ord('"')).all())

    @property
    def unquoted(self) -> bytes | None:
        """The strings one after the other, each two bytes shorter; None when one is escaped."""
        if not self.are_strings or b"\\" in self.joined:
            return None
        return self.joined.translate(None, b'"')

    def decoded(self, decoder: msgspec.json.Decoder[list[Any]]) -> list[Any]:
        """One Python object per value."""
        try:
            return decoder.decode(b"[" + b",".join(self.raws) + b"]")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unlike from error


def decode_alike(
    records: Sequence[RecordLike], members: Sequence[Members], topic: str, partition: int
) -> pa.RecordBatch:
    """Rows of records whose members have the same keys in the same order, and alike headers.

    Args:
        records: with values within the limits.
        members: of each record's value, by :func:`split`.
        topic: of the records, as their source when they name none.
        partition: of the records.

    Raises:
        Unlike: one of them may be no event, or is an unusual one.
    """
    raws = {key: _Raws(c) for key, c in zip(
        members[0], zip(*[m.values() for m in members], strict=True), strict=True)}  # fmt: skip
    _refuse_repeated_keys(records, raws)
    fields = {
        role: raws[key] for key, role in zip(raws, roles(raws), strict=True) if role is not None
    }
    rest = {key: raws[key] for key, role in zip(raws, roles(raws), strict=True) if role is None}
    headers = _ce_headers(records)
    offsets = pa.array([record.offset for record in records], pa.int64())
    ingest_us = np.array([record.timestamp for record in records], np.int64) * 1000
    names = {name: _name(fields.get(name), len(records)) for name in _NAMES}
    for name in {"id", "type", "source"} & headers.keys():
        names[name] = _or(_header_name(headers[name]), names[name])
    time_us = _times(fields.get("time"), headers.get("time"), ingest_us)
    columns: dict[str, pa.Array] = {
        "source_offset": offsets,
        "id": _or(names["id"], lambda: _addresses(f"{topic}-{partition}-", offsets)),
        "type": _or(names["type"], pa.scalar("event")),
        "source": _or(names["source"], pa.scalar(topic)),
        "conversation": _or(names["conversation"], lambda: _key_names(records, names["id"])),
        "actor": names["actor"],
        "time": pa.array(time_us).view(TIME),
        "ingest_time": pa.array(ingest_us).view(TIME),
        "text": _texts(fields.get("text"), len(records)),
        "duration_ms": _durations(fields.get("duration_ms"), len(records)),
        "payload": _payloads(rest, len(records)),
        "attachments": _attachments(fields.get("attachments"), len(records)),
    }
    return pa.RecordBatch.from_arrays(
        [columns[name] for name in EVENT_SCHEMA.names], schema=EVENT_SCHEMA
    )


_NAMES = ("id", "type", "source", "conversation", "actor")


def _refuse_repeated_keys(records: Sequence[RecordLike], raws: Mapping[str, _Raws]) -> None:
    """What a repeated key hides is in the values and not in ``raws``."""
    values = [record.value or b"" for record in records]
    kept = [column.joined for column in raws.values()]
    compact = sum(len(key.encode()) + 4 for key in raws) + (1 if raws else 2)
    if sum(map(len, values)) - sum(map(len, kept)) == len(values) * compact:
        return  # nothing but braces, keys, colons and commas; no room for one more
    # Every member has one colon.
    in_keys = sum(key.count(":") for key in raws)
    if in_keys and any(map(_may_hide_colons, values)):
        raise Unlike
    colons = sum([value.count(b":") for value in values]) - sum(one.count(b":") for one in kept)
    if colons != len(values) * (len(raws) + in_keys):
        raise Unlike


def _check_inside(column: _Raws) -> None:
    """Numbers in range, keys once, not too deep; of values that are kept as they were written."""
    if column.are_strings or _are_short_numbers(column):
        return
    values = column.decoded(_anything)
    for row in np.flatnonzero(column.lengths > 2 * DEPTH_MAX).tolist():  # "[]" has two bytes
        raw = bytes(column.raws[row])
        if raw.count(b"{") + raw.count(b"[") > DEPTH_MAX - 1 and _is_deeper(
            values[row], DEPTH_MAX - 1
        ):
            raise Unlike
    if b"{" not in column.joined:
        return
    try:
        once = _encode(values)
    except (OverflowError, UnicodeEncodeError) as error:
        raise Unlike from error
    if _may_hide_colons(column.joined) or once.count(b":") != column.joined.count(b":"):
        raise Unlike


def _are_short_numbers(column: _Raws) -> bool:
    """Every float64 below 10^308 is in range."""
    return column.lengths.max() < 300 and not column.joined.translate(None, b"0123456789.-")


def _is_deeper(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return depth < 0 or any(_is_deeper(child, depth - 1) for child in inside)


def _may_hide_colons(data: bytes) -> bool:
    return b"\\u003a" in data or b"\\u003A" in data


def _string_array(data: bytes, lengths: npt.NDArray[np.int64]) -> pa.StringArray:
    if len(data) >= 2**31:
        raise Unlike
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    array = pa.StringArray.from_buffers(len(lengths), pa.py_buffer(offsets), pa.py_buffer(data))
    if not data.isascii():
        try:
            array.validate(full=True)
        except pa.ArrowInvalid as error:
            raise Unlike from error  # not UTF-8
    return array


def _texts(column: _Raws | None, rows: int) -> pa.StringArray:
    """Strings, integers as their digits, null where there is nothing."""
    if column is None:
        return pa.nulls(rows, pa.string())
    data = column.unquoted
    if data is not None:
        return _string_array(data, column.lengths - 2)
    values = column.decoded(_strings)
    return pa.array([str(v) if type(v) is int else v for v in values], pa.string())


def _name(column: _Raws | None, rows: int) -> pa.StringArray:
    """Texts that serve as keys."""
    array = _texts(column, rows)
    if column is not None and column.lengths.max() > KEY_CHARS_MAX:
        longest = pc.max(pc.utf8_length(array)).as_py()
        if (longest or 0) > KEY_CHARS_MAX:
            raise Unlike
    return array


def _or(array: pa.StringArray, instead: Any) -> pa.StringArray:
    """``instead`` (or what it returns) where there is nothing or an empty string."""
    ends = np.frombuffer(array.buffers()[1] or b"", np.int32)[: len(array) + 1]
    there = np.diff(ends) > 0  # a null takes no room either
    if there.all():
        return array
    return pc.if_else(pa.array(there), array, instead() if callable(instead) else instead)


def _addresses(prefix: str, offsets: pa.Array) -> pa.StringArray:
    return pc.binary_join_element_wise(prefix, offsets.cast(pa.string()), "")


def _ce_headers(records: Sequence[RecordLike]) -> dict[str, Sequence[bytes]]:
    """The ``ce_*`` headers without their prefix; of one that comes twice the last."""
    headers: dict[str, Sequence[bytes]] = {}
    for place, (name, _) in enumerate(records[0].headers):
        if name.startswith(CE_PREFIX):
            values = [record.headers[place][1] for record in records]
            try:
                b"\n".join(values).decode()
            except (TypeError, UnicodeDecodeError) as error:
                raise Unlike from error
            headers[name[len(CE_PREFIX) :]] = values
    return headers


def _header_name(values: Sequence[bytes]) -> pa.StringArray:
    if max(map(len, values)) > KEY_CHARS_MAX:
        raise Unlike
    return pa.array(values, pa.string())


def _key_names(records: Sequence[RecordLike], ids: pa.StringArray) -> pa.StringArray:
    """The record's key names the conversation, unless the producer had none and spread by id."""
    keys = [record.key for record in records]
    if not any(keys):
        return pa.nulls(len(keys), pa.string())
    try:
        array = pa.array(keys, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid as error:
        raise Unlike from error
    is_name = pc.is_in(pc.utf8_length(array), pa.array(range(1, KEY_CHARS_MAX + 1), pa.int32()))
    is_id = pc.fill_null(pc.equal(array, ids), False)
    return pc.if_else(pc.and_not(is_name, is_id), array, pa.scalar(None, pa.string()))


def _times(
    body: _Raws | None, header: Sequence[bytes] | None, ingest_us: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Event times, Unix microseconds: the header's, else the body's, else when the log had it."""
    try:
        time_us = ingest_us if body is None else _body_times(body, ingest_us)
        if header is None:
            return time_us
        found = parse_times(b"".join(header), len(header))
        return found if found is not None and len(set(map(len, header))) == 1 else np.array(
            [parse_time(value.decode()) for value in header], np.int64)  # fmt: skip
    except (Reject, OverflowError) as error:
        raise Unlike from error


def _body_times(column: _Raws, ingest_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    data = column.unquoted
    if data is not None and (column.lengths == column.lengths[0]).all():
        found = parse_times(data, len(column.raws))
        if found is not None:
            return found
    moments = [parse_time(value) for value in column.decoded(_strings)]
    pairs = zip(moments, ingest_us.tolist(), strict=True)
    return np.array([other if own is None else own for own, other in pairs], np.int64)


def _durations(column: _Raws | None, rows: int) -> pa.FloatArray:
    if column is None:
        return pa.array(np.zeros(rows, np.float32))
    values = [value or 0.0 for value in column.decoded(_floats)]
    if min(values) < 0:
        raise Unlike
    return pa.array(values, pa.float32())


def _payloads(columns: Mapping[str, _Raws], rows: int) -> pa.StringArray:
    """A JSON object of every other key, each value as it was written."""
    if not columns:
        return pa.repeat("{}", rows)
    pieces: list[Any] = []
    lengths = np.ones(rows, np.int64)
    for place, (key, column) in enumerate(columns.items()):
        _check_inside(column)
        before = f"{',' if place else '{'}{json.dumps(key, ensure_ascii=False)}:".encode()
        pieces += [repeat(before), column.raws]
        lengths += len(before) + column.lengths
    data = b"".join(chain.from_iterable(zip(*pieces, repeat(b"}"), strict=False)))
    return _string_array(data, lengths)


def _attachments(column: _Raws | None, rows: int) -> pa.StringArray:
    """JSON as it was written; a null is none."""
    if column is None:
        return pa.nulls(rows, pa.string())
    _check_inside(column)
    array = _string_array(b"".join(column.raws), column.lengths)
    return pc.if_else(pc.equal(array, "null"), pa.scalar(None, pa.string()), array)
