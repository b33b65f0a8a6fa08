"""What is wrong with one object of JSON, in the words of Arrow's parser.

Arrow starts threads for each call, so that it is slow to ask about one row; what is not told for
certain here is left to it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"([^"\\\x00-\x1f]*)"')
_ESCAPED = re.compile(r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4})*"')
_OPEN_STRING = re.compile(r'"[^"\\\x00-\x1f]*\Z')
_LITERAL = re.compile("true|false|null")
_TEXTS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,299})(\.[0-9]{1,300})?(?![0-9]*[.eE])")

#: Arrow has no limit of its own: of a type nested many thousand deep it dies.
DEPTH_MAX = 64


class _Fault(Exception):  # caught by ``Faults.of``
    """The first thing that is wrong."""


class _Unsure(Exception):  # as above
    """Only Arrow can say."""


class _Kind(NamedTuple):
    """A type: JSON's name of it, Arrow's, and what is within lists and objects."""

    name: str
    type: pa.DataType
    members: Mapping[str, "_Kind"]
    items: "_Kind | None" = None


class Faults:
    """Finds what Arrow's parser would not take of an object.

    Args:
        schema: of the rows.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._kind = _kind(pa.struct(list(schema)))

    def of(self, data: bytes) -> str | None:
        """What Arrow says of the object, or None where it is not for certain that it is bad."""
        if is_deep(data):
            return f"it is nested deeper than {DEPTH_MAX}"
        text = data.decode("utf-8", "replace")
        try:
            numbers = _Scan(text).document(self._kind)
        except _Fault as fault:
            return str(fault)
        except (_Unsure, RecursionError):
            return None
        if numbers:
            return numbers[0] if len(numbers) == 1 else None
        return None if len(text.encode()) == len(data) else "it is not UTF-8"


class _Scan:
    """One pass over a text; it looks no further than the first fault."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._numbers: list[str] = []

    def document(self, kind: _Kind) -> list[str]:
        """Numbers that their columns do not hold, which Arrow looks at after all else."""
        match self._next():
            case "n":
                raise _Fault("Column() changed from object to null")
            case "{" | "[":
                self._value(kind, "")
            case _:
                raise _Unsure
        if self._next():
            raise _Unsure
        return self._numbers

    def _next(self) -> str:
        """The next character that is no space; nothing at the end."""
        found = _SPACE.match(self._text, self._at)
        assert found is not None  # noqa: S101  # it matches nothing, too
        self._at = found.end()
        return self._text[self._at : self._at + 1]

    def _value(self, kind: _Kind, path: str) -> None:
        match self._next():
            case '"':
                self._string()
                self._check(kind, path, "string")
            case "{":
                self._check(kind, path, "object")
                self._object(kind, path)
            case "[":
                self._check(kind, path, "array")
                self._array(kind, path)
            case "t" | "f" | "n":
                if self._taken(_LITERAL, "Invalid value.") != "null":
                    self._check(kind, path, "boolean")
            case "N" | "I":  # NaN, Infinity
                raise _Unsure
            case first if first and first in "-0123456789":
                self._number(kind, path)
            case _:
                raise _Fault("Invalid value.")

    def _object(self, kind: _Kind, path: str) -> None:
        self._at += 1
        seen: set[str] = set()
        if self._next() == "}":
            self._at += 1
            return
        while True:
            if self._next() != '"':
                raise _Fault("Missing a name for object member.")
            name = self._string()
            if name not in kind.members:
                raise _Fault("unexpected field")
            if name in seen:
                raise _Fault(f"Column({path}/{name}) was specified twice")
            seen.add(name)
            if self._next() != ":":
                raise _Fault("Missing a colon after a name of object member.")
            self._at += 1
            self._value(kind.members[name], f"{path}/{name}")
            if self._ends("}", "Missing a comma or '}' after an object member."):
                return

    def _array(self, kind: _Kind, path: str) -> None:
        assert kind.items is not None  # noqa: S101  # it was checked to be a list
        self._at += 1
        if self._next() == "]":
            self._at += 1
            return
        while True:
            self._value(kind.items, f"{path}/[]")
            if self._ends("]", "Missing a comma or ']' after an array element."):
                return

    def _ends(self, end: str, otherwise: str) -> bool:
        """Whether the end comes, and not a comma."""
        found = self._next()
        if found not in {end, ","}:
            raise _Fault(otherwise)
        self._at += 1
        return found == end

    def _string(self) -> str:
        if found := _STRING.match(self._text, self._at):
            self._at = found.end()
            return found[1]
        if _OPEN_STRING.match(self._text, self._at):
            raise _Fault("Missing a closing quotation mark in string.")
        quoted = self._taken(_ESCAPED, "")
        found_: str = msgspec.json.decode(quoted.encode(), type=str)
        return found_

    def _number(self, kind: _Kind, path: str) -> None:
        number = self._taken(_NUMBER, "")
        self._check(kind, path, "number")
        if pa.types.is_integer(kind.type) and not _is_held(number, kind.type):
            self._numbers.append(f"Failed to convert JSON to {kind.type}, couldn't parse:{number}")

    def _taken(self, pattern: re.Pattern[str], otherwise: str) -> str:
        found = pattern.match(self._text, self._at)
        if not found:
            raise _Fault(otherwise) if otherwise else _Unsure
        self._at = found.end()
        return found[0]

    def _check(self, kind: _Kind, path: str, name: str) -> None:
        if kind.name != name:
            raise _Fault(f"Column({path}) changed from {kind.name} to {name}")


def is_deep(data: bytes) -> bool:
    """Whether an object is nested deeper than ``DEPTH_MAX``."""
    if data.count(b"[") + data.count(b"{") <= DEPTH_MAX:
        return False
    marks = np.frombuffer(_TEXTS.sub(b"", data), np.uint8)
    steps = np.isin(marks, list(b"[{")).astype(np.int32) - np.isin(marks, list(b"]}"))
    return bool(np.cumsum(steps).max(initial=0) > DEPTH_MAX)


def sieve(schema: pa.Schema) -> Callable[[bytes], bool]:
    """Says quickly of most objects that they fit a schema; of some that do, that they do not."""
    decode = msgspec.json.Decoder(_python(pa.struct(list(schema)))).decode

    def fits(data: bytes) -> bool:
        try:
            decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        return True

    return fits


def _kind(kind: pa.DataType) -> _Kind:
    if pa.types.is_struct(kind):
        return _Kind("object", kind, {field.name: _kind(field.type) for field in kind})
    if pa.types.is_list(kind):
        return _Kind("array", kind, {}, _kind(kind.value_type))
    return _Kind(_name(kind), kind, {})


def _name(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "boolean"
    return "number" if pa.types.is_integer(kind) or pa.types.is_floating(kind) else "string"


def _python(kind: pa.DataType) -> Any:
    """The type as msgspec knows it, or null."""
    if pa.types.is_null(kind):
        return None
    if pa.types.is_struct(kind):
        names = {f"field_{place}": field.name for place, field in enumerate(kind)}
        kinds = [_python(field.type) for field in kind]
        fields = [(name, each, None) for name, each in zip(names, kinds, strict=True)]
        row = msgspec.defstruct("Row", fields, rename=names, forbid_unknown_fields=True, gc=False)
        return row | None
    if pa.types.is_list(kind):
        return list[_python(kind.value_type)] | None  # type: ignore[misc]  # it is made here
    if pa.types.is_integer(kind):
        least, most = _range(kind)
        return Annotated[int, msgspec.Meta(ge=least, le=most)] | None
    plain: Any = {"boolean": bool, "number": float, "string": str}[_name(kind)]
    return plain | None


def _is_held(number: str, kind: pa.DataType) -> bool:
    least, most = _range(kind)
    return "." not in number and least <= int(number) <= most


def _range(kind: pa.DataType) -> tuple[int, int]:
    half = 1 << (kind.bit_width - 1)
    return -half, half - 1
