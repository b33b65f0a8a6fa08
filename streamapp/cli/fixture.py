"""JSON of a fixture: one object, an array of them, or one after the other, each with its line.

A fixture may also give what other stages would have written; that becomes a stage of its own.
"""

import json
from bisect import bisect_right
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import pyarrow as pa

from streamapp.core.errors import Refuse
from streamapp.plugin import BaseStage, Batch, Columns, float32_vector

BYTES_MAX = 64 << 20
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
    values: Sequence[Value], names: Sequence[str], where: str
) -> tuple[list[str], dict[str, pa.Array]]:
    """The events as JSON without these keys, and what the keys held, as columns.

    Args:
        values: the fixture.
        names: keys that are columns.
        where: the fixture's name.

    Raises:
        Refuse: values of a column that do not go together.
    """
    texts = []
    held: dict[str, list[Any]] = {name: [] for name in names}
    for value in values:
        event = dict(value.value) if isinstance(value.value, dict) else {}
        for name in names:
            held[name].append(event.pop(name, None))
        written_anew = names and isinstance(value.value, dict)
        texts.append(json.dumps(event) if written_anew else value.text)
    lines = [value.line for value in values]
    return texts, {name: _column(name, held[name], lines, where) for name in names}


def _column(name: str, held: Sequence[Any], lines: Sequence[int], where: str) -> pa.Array:
    sizes = {len(value) for value in held if isinstance(value, list)}
    numbers = all(isinstance(n, int | float) for v in held if isinstance(v, list) for n in v)
    kind = float32_vector(sizes.pop()) if len(sizes) == 1 and numbers else None
    at = len(held)
    while at:
        try:
            column = pa.array(held[:at], kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            at -= 1
            continue
        if at == len(held):
            return column
        break
    raise Refuse(
        "fixture.column",
        f"{where}:{lines[at]}: {name!r} is {str(held[at])[:40]}, unlike the lines before",
        "give every event the same type, or null",
    )


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
        return Value(self._line(at), value, self._text[at:end]), end

    def _after_space(self, at: int) -> int:
        while at < len(self._text) and self._text[at] in _SPACE:
            at += 1
        return at

    def _line(self, at: int) -> int:
        return bisect_right(self._lines, at - 1) + 1

    def _bad(self, at: int, why: str) -> Refuse:
        return Refuse("fixture.json", f"{self._name}:{self._line(at)}: not JSON: {why}", _FIX)
