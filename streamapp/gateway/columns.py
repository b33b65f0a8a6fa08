"""A column of events: checked as a whole, and what its cells are in JSON."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from streamapp.core.errors import Reject
from streamapp.core.event import KEY_CHARS_MAX, parse_time, roles
from streamapp.gateway.footprint import is_text, unfit
from streamapp.gateway.ipc import BROKEN
from streamapp.gateway.problem import ProblemError

_KEYS = frozenset({"id", "type", "source", "conversation", "actor"})
#: Of strings, these two hold JSON text.
_JSON_TEXT = frozenset({"payload", "attachments"})
#: Year 1 and year 10000, Unix seconds: between them is what Python can show.
_TIME_FIRST_S, _TIME_NEXT_S = -62_135_596_800, 253_402_300_800
_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_encode = msgspec.json.Encoder().encode
_json = msgspec.json.Decoder(msgspec.Raw)


@dataclass(slots=True)
class Column:
    """One column of a few rows.

    ``cells`` are what JSON has, None where the key is not there; ``refused`` the rows that are bad,
    and why.
    """

    name: str
    role: str | None
    cells: list[Any]
    refused: dict[int, Reject] = field(default_factory=dict)
    is_json: bool = False


def column_of(declared: pa.Field, array: pa.Array) -> Column | None:
    """The column of an array; None for one of the type null.

    Raises:
        ProblemError: 400 the type is none that the event's field can have, or a cell is beyond
            what JSON and Python can say.
    """
    array = _decoded(array)
    if pa.types.is_null(array.type):
        return None
    name = declared.name
    (role,) = roles([name])
    try:
        return _READERS.get(_kind(name, role), _read_other)(name, role, array)
    except BROKEN as error:
        raise unfit(name, array.type, str(error).partition("\n")[0][:200]) from None


def rows_to_json(columns: Sequence[Column], rows: int) -> Iterator[bytes]:
    """Each row as a JSON object's bytes."""
    names = tuple(column.name for column in columns)
    lists = [column.cells for column in columns]
    if len(set(names)) < len(names):
        raise ProblemError(
            400, "event.duplicate_key", "two columns have the same name", "name each once"
        )
    payload = next((column for column in columns if column.is_json and column.role is None), None)
    if payload is None and (row_of := _row_type(names)) is not None:
        return (_encode(row_of(*cells)) for cells in _zipped(lists, rows))
    at = columns.index(payload) if payload is not None else -1
    return (_row(names, cells, at) for cells in _zipped(lists, rows))


def _zipped(lists: list[list[Any]], rows: int) -> Iterator[tuple[Any, ...]]:
    return zip(*lists, strict=True) if lists else iter([()] * rows)


@lru_cache(maxsize=64)
def _row_type(names: tuple[str, ...]) -> Callable[..., Any] | None:
    """A struct that leaves out nulls; None where msgspec knows no such names."""
    if any('"' in name or "\\" in name or not name.isprintable() for name in names):
        return None
    fields = [(f"f{n}", Any, None) for n in range(len(names))]
    renamed = {f"f{n}": name for n, name in enumerate(names)}
    return msgspec.defstruct("Row", fields, rename=renamed, omit_defaults=True, gc=False)


def _row(names: Sequence[str], cells: Sequence[Any], payload: int) -> bytes:
    """A row as JSON; the members of its payload, a JSON object's text, beside the others."""
    members = {
        name: cell
        for n, (name, cell) in enumerate(zip(names, cells, strict=True))
        if cell is not None and n != payload
    }
    row = _encode(members)
    inner = bytes(cells[payload]).strip() if payload >= 0 and cells[payload] is not None else b"{}"
    if not (inner.startswith(b"{") and inner.endswith(b"}")):
        return b'{"payload":' + inner + b"," + row[1:] if members else b'{"payload":' + inner + b"}"
    if not inner[1:-1].strip():
        return row
    return row[:-1] + b"," + inner[1:] if members else inner


def _kind(name: str, role: str | None) -> str:
    if role in _KEYS:
        return "key"
    return name if name in _JSON_TEXT else role or ""


def _read_key(name: str, role: str | None, array: pa.Array) -> Column:
    strings = _strings(name, array)
    column = Column(name, role, _cells(array))
    lengths = pc.utf8_length(strings)
    for row in pc.indices_nonzero(pc.greater(lengths, KEY_CHARS_MAX)).to_pylist():
        column.refused[row] = Reject(
            "event.field", f"{name} has {lengths[row]} characters", f"use {KEY_CHARS_MAX} at most"
        )
    return column


def _read_text(name: str, role: str | None, array: pa.Array) -> Column:
    _strings(name, array)
    return Column(name, role, _cells(array))


def _strings(name: str, array: pa.Array) -> pa.Array:
    if is_text(array.type):
        return array
    if pa.types.is_integer(array.type):
        return array.cast(pa.string())
    raise unfit(name, array.type, "it is a string or an integer")


def _read_time(name: str, role: str | None, array: pa.Array) -> Column:
    if is_text(array.type):
        column = Column(name, role, _objects(array))
        for row, text in enumerate(column.cells):
            try:
                parse_time(text)
            except Reject as error:
                column.refused[row] = error
        return column
    if pa.types.is_integer(array.type):
        return _in_years(name, role, array, "ms", keep=True)
    if pa.types.is_timestamp(array.type):
        return _in_years(name, role, array.view(pa.int64()), array.type.unit, keep=False)
    raise unfit(name, array.type, "it is a timestamp, RFC 3339 text or Unix milliseconds")


def _in_years(name: str, role: str | None, array: pa.Array, unit: str, *, keep: bool) -> Column:
    """A column of times since 1970 in a unit; ``keep``: JSON gets the numbers."""
    least, past = (limit * _PER_S[unit] for limit in (_TIME_FIRST_S, _TIME_NEXT_S))
    if unit == "ns" or array.type.bit_width < 64:
        known: Any = pc.is_valid(array)  # all are in those years
    else:
        known = pc.and_(pc.greater_equal(array, least), pc.less(array, past))
    moments = pc.if_else(known, array, None).cast(pa.int64()).cast(pa.timestamp(unit))
    plain = moments.cast(pa.timestamp("us"), safe=False).cast(pa.string())  # with a space for the T
    shown = pc.binary_join_element_wise(pc.binary_replace_slice(plain, 10, 11, "T"), "Z", "")
    column = Column(name, role, _cells(array) if keep else _objects(shown))
    for row in pc.indices_nonzero(pc.invert(known)).to_pylist():
        column.refused[row] = Reject(
            "event.time",
            f"{name} is {array[row]} {unit} since 1970, not in the years 1 to 9999",
            "check its unit",
        )
    return column


def _read_duration(name: str, role: str | None, array: pa.Array) -> Column:
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        raise unfit(name, array.type, "it is a number of milliseconds")
    column = Column(name, role, _cells(array))
    for row, cell in enumerate(column.cells):
        if cell is not None and cell < 0:
            column.refused[row] = Reject(
                "event.field", f"duration_ms is {cell}", "give milliseconds, 0 or more"
            )
    return column


def _read_json(name: str, role: str | None, array: pa.Array) -> Column:
    if not is_text(array.type):
        return _read_other(name, role, array)
    column = Column(name, role, [], is_json=True)
    for row, text in enumerate(_objects(array)):
        try:
            column.cells.append(None if text is None else _json.decode(text))
        except (msgspec.DecodeError, RecursionError):  # pasted, it would say more than one value
            column.cells.append(None)
            column.refused[row] = Reject(
                "event.json", f"{name} holds text that is not JSON", "write one JSON value"
            )
    return column


def _read_other(name: str, role: str | None, array: pa.Array) -> Column:
    try:
        return Column(name, role, _cells(array))
    except KeyError:  # a map has a key twice
        return _read_one_by_one(name, role, array)


def _read_one_by_one(name: str, role: str | None, array: pa.Array) -> Column:
    column = Column(name, role, [])
    for row in range(len(array)):
        try:
            column.cells += _cells(array.slice(row, 1))
        except KeyError:
            column.cells.append(None)
            column.refused[row] = Reject(
                "event.duplicate_key", f"{name} has a key twice", "send each key once"
            )
    return column


_READERS = {
    "key": _read_key,
    "text": _read_text,
    "time": _read_time,
    "duration_ms": _read_duration,
    "payload": _read_json,
    "attachments": _read_json,
}


def _cells(array: pa.Array) -> list[Any]:
    """Python objects that msgspec can write."""
    if pa.types.is_timestamp(array.type) and array.type.unit == "ns":
        array = array.cast(pa.timestamp("us", array.type.tz), safe=False)
    types = pa.types
    is_number = types.is_integer(array.type) or types.is_floating(array.type)
    if is_text(array.type) or (is_number and not array.null_count):
        return _objects(array)
    cells: list[Any] = array.to_pylist(maps_as_pydicts="strict")
    if types.is_nested(array.type):
        _encode(cells)  # or it says now what it cannot write
    return cells


def _objects(array: pa.Array) -> list[Any]:
    """As ``to_pylist``, several times faster, for texts and for numbers without nulls."""
    objects: list[Any] = array.to_numpy(zero_copy_only=False).tolist()
    return objects


def _decoded(array: pa.Array) -> pa.Array:
    """The array in the plain layout of its type."""
    if isinstance(array.type, pa.BaseExtensionType):
        return _decoded(array.storage)
    if pa.types.is_dictionary(array.type):
        return _decoded(array.dictionary_decode())
    if pa.types.is_string_view(array.type):
        # Arrow's own cast follows the views of nulls too, which nobody has checked.
        return pa.array(array.to_pylist(), pa.large_string())
    return array
