"""JSON of a fixture: one object, an array of them, or one after the other, each with its line.

A fixture may also give what other stages would have written; that becomes a stage of its own.
"""

import json
import sys
from bisect import bisect_right
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import pyarrow as pa

from streamapp.core.errors import Refuse
from streamapp.plugin import BaseStage, Batch, Columns, float32_vector

BYTES_MAX = 64 << 20
FLOAT32_MAX = (2 - 2**-23) * 2.0**127
_SPACE = " \t\r\n"
_FIX = "write an object, an array of objects, or one object a line"


class Value(NamedTuple):
    """One JSON value: where it begins, what it is, and how it was written."""

    line: int
    value: Any
    text: str


def shown(path: str) -> str:
    """What messages call the file."""
    return "standard input" if path == "-" else path


def read_fixture(path: str) -> list[Value]:
    """The values of a file; ``-`` reads standard input.

    Raises:
        Refuse: not readable, too large, not UTF-8, not JSON, or empty; the message begins with the
            file, and the line where there is one.
    """
    name = shown(path)
    try:
        if path == "-":
            content = click.get_binary_stream("stdin").read(BYTES_MAX + 1)
        else:
            with Path(path).open("rb") as file:
                content = file.read(BYTES_MAX + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise Refuse("fixture.read", f"{name}: {error.strerror}", "check the path") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise Refuse("fixture.utf8", f"{name}:{line}: not UTF-8", "save it as UTF-8") from None
    if len(content) > BYTES_MAX:
        raise Refuse("fixture.size", f"{name} has more than {BYTES_MAX} bytes", "give fewer events")
    values = list(_Scan(text, name).values())
    if not values:
        raise Refuse("fixture.empty", f"{name} holds no event", _FIX)
    return values


def of_texts(texts: Sequence[str]) -> list[Value]:
    """An event for each text, numbered from 1."""
    events = [{"message": text} for text in texts]
    return [Value(number, event, json.dumps(event)) for number, event in enumerate(events, 1)]


class Given(BaseStage):
    """Writes the columns that the events of a fixture brought along, by source offset."""

    name = "fixture"

    def __init__(self, columns: Mapping[str, pa.Array]) -> None:
        super().__init__()
        self.writes = {name: array.type for name, array in columns.items()}
        self._columns = columns

    def enrich(self, batch: Batch) -> Columns:
        places = batch.column("source_offset")
        return {name: array.take(places) for name, array in self._columns.items()}


def keys(values: Sequence[Value]) -> set[str]:
    """The keys of all events."""
    return {key for value in values if isinstance(value.value, dict) for key in value.value}


def take_columns(
    values: Sequence[Value], names: Mapping[str, pa.DataType | None], where: str
) -> tuple[list[str], dict[str, pa.Array]]:
    """The events as JSON without these keys, and what the keys held, as columns.

    Args:
        values: the fixture.
        names: keys that are columns, with their types where they are known.
        where: the fixture's name.

    Raises:
        Refuse: values of a column that do not go together, or are no vectors where it has vectors.
    """
    texts = []
    held: dict[str, list[Any]] = {name: [] for name in names}
    for value in values:
        event = dict(value.value) if isinstance(value.value, dict) else {}
        for name in names:
            held[name].append(event.pop(name, None))
        written_anew = names and isinstance(value.value, dict)
        texts.append(json.dumps(event) if written_anew else value.text)
    places = [f"{where}:{value.line}" for value in values]
    return texts, {name: _column(name, held[name], kind, places) for name, kind in names.items()}


def _column(
    name: str, held: Sequence[Any], kind: pa.DataType | None, places: Sequence[str]
) -> pa.Array:
    lists = [value for value in held if isinstance(value, list)]
    if isinstance(kind, pa.FixedSizeListType) or (lists and all(map(_is_vector, lists))):
        return _vectors(name, held, kind, places)
    if held.count(None) == len(held):
        return pa.nulls(len(held), kind)
    for at in range(len(held), 0, -1):
        try:
            column = pa.array(held[:at])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            continue
        if at == len(held):
            return column
        break
    raise Refuse(
        "fixture.column",
        f"{places[at]}: {name!r} is {json.dumps(held[at])[:40]}, unlike the lines before",
        "give every event the same type, or null",
    )


def _vectors(
    name: str, held: Sequence[Any], kind: pa.DataType | None, places: Sequence[str]
) -> pa.Array:
    """Of the length that the first one has; that of its writer where all are null."""
    dim = 0
    for place, value in zip(places, held, strict=True):
        wrong = ""
        if value is not None and not _is_vector(value):
            wrong = f"{json.dumps(value)[:40]}, not a list of numbers"
        elif value is not None and dim not in {0, len(value)}:
            wrong = f"{len(value)} numbers, {dim} in the lines before"
        if wrong:
            fix = "give every event as many numbers, or null for the whole vector"
            raise Refuse("fixture.column", f"{place}: {name!r} is {wrong}", fix)
        dim = len(value or ()) or dim
    return pa.array(held, float32_vector(dim) if dim else kind)


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_float32, value))


def _is_float32(value: Any) -> bool:
    return type(value) in {int, float} and abs(value) <= FLOAT32_MAX


class _Scan:
    """A text of JSON values."""

    def __init__(self, text: str, name: str) -> None:
        self._text = text
        self._name = name
        self._lines = [at for at, char in enumerate(text) if char == "\n"]
        self._decode = json.JSONDecoder().raw_decode

    def values(self) -> Iterator[Value]:
        at = self._after_space(0)
        while at < len(self._text):
            if self._text[at] == "[":
                at = yield from self._items(at + 1)
            else:
                value, at = self._value(at)
                yield value
            at = self._after_space(at)

    def _items(self, at: int) -> Generator[Value, None, int]:
        """The items of an array that begins before ``at``; returns where it ends."""
        at = self._after_space(at)
        while self._text[at : at + 1] != "]":
            value, at = self._value(at)
            yield value
            at = self._after_space(at)
            if self._text[at : at + 1] == ",":
                at = self._after_space(at + 1)
                if self._text[at : at + 1] != "]":
                    continue
            elif self._text[at : at + 1] == "]":
                break
            raise self._bad(at, "the array goes on with neither , nor ]")
        return at + 1

    def _value(self, at: int) -> tuple[Value, int]:
        try:
            value, end = self._decode(self._text, at)
        except json.JSONDecodeError as error:
            raise self._bad(error.pos, error.msg) from None
        except RecursionError:
            raise self._bad(at, "nested too deep") from None
        except ValueError:
            raise Refuse(
                "fixture.number",
                f"{self._name}:{self._line(at)}: an integer has more than"
                f" {sys.get_int_max_str_digits():,} digits",
                "write it as a string",
            ) from None
        return Value(self._line(at), value, self._text[at:end]), end

    def _after_space(self, at: int) -> int:
        while at < len(self._text) and self._text[at] in _SPACE:
            at += 1
        return at

    def _line(self, at: int) -> int:
        return bisect_right(self._lines, at - 1) + 1

    def _bad(self, at: int, why: str) -> Refuse:
        return Refuse("fixture.json", f"{self._name}:{self._line(at)}: not JSON: {why}", _FIX)
