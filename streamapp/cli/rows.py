"""Rows of a csv, json lines or text file as events, read one at a time.

A row's id is a hash of its file, its line number and its content: sending the same file again sends
the same ids, whereas equal rows of different files, or of different lines, have different ones.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from streamapp.core.errors import Refuse, Reject

FORMATS = ("csv", "tsv", "jsonl", "text")
#: A file is known by a hash of this much of its beginning.
PREFIX_BYTES = 64 << 10
#: A longer line is skipped and counted; the gateway refuses smaller ones too (event_bytes_max).
LINE_BYTES_MAX = 8 << 20
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
    ".log": "text",
}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Shape:
    """Which column becomes which field; ``kind`` and ``source`` are the same for every row."""

    text: str | None = None
    conversation: str | None = None
    id: str | None = None
    kind: str | None = None
    source: str | None = None

    def picks(self) -> dict[str, str]:
        """Event field to column name, of the columns that were named."""
        named = {"id": self.id, "message": self.text, "conversation_id": self.conversation}
        return {field: column for field, column in named.items() if column}


class Row(NamedTuple):
    """An event ready to be posted."""

    line: int
    conversation: str
    body: bytes


class BadRow(NamedTuple):
    """A line that is no row, and why."""

    line: int
    reason: str


class Lines:
    """Decoded lines of a stream.  Not a generator: reading goes on after a line that is refused."""

    def __init__(self, stream: BinaryIO) -> None:
        self.number = 0
        self.bytes_read = 0
        self._stream = stream

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._stream.readline(LINE_BYTES_MAX)
        if not raw:
            raise StopIteration
        self.number += 1
        self.bytes_read += len(raw)
        if len(raw) == LINE_BYTES_MAX and not raw.endswith(b"\n"):
            self._skip_line()
            raise Reject("send.line", f"the line is longer than {LINE_BYTES_MAX} bytes")
        try:
            return raw.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise Reject("send.utf8", f"byte {error.start} of the line is not UTF-8") from None

    def _skip_line(self) -> None:
        while (raw := self._stream.readline(LINE_BYTES_MAX)) and not raw.endswith(b"\n"):
            self.bytes_read += len(raw)
        self.bytes_read += len(raw)


def format_of(path: Path) -> str:
    """The format that a file's suffix says.

    Raises:
        Refuse: ``send.format``.
    """
    try:
        return _SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise Refuse(
            "send.format",
            f"{path}: the suffix {path.suffix!r} says nothing about its format",
            f"name it with --format: {', '.join(FORMATS)}",
        ) from None


def file_key(path: Path) -> str:
    """What tells this file from others: a hash of its beginning."""
    with path.open("rb") as file:
        return sha256(file.read(PREFIX_BYTES)).hexdigest()


def read_rows(lines: Lines, kind: str, shape: Shape, key: str) -> Iterator[Row | BadRow]:
    """Events of a stream, in order.

    Args:
        lines: the stream.
        kind: one of ``FORMATS``, or empty: json lines when the first line starts with ``{``, else
            text.
        shape: which columns are which fields.
        key: what the ids are derived from, beside line number and content.

    Raises:
        Refuse: a column that the file does not have, or a JSON array in place of lines.
    """
    first: list[str] = []
    if not kind:
        first = [next(lines, "")]
        kind = "jsonl" if first[0].lstrip().startswith("{") else "text"
    readers = {"jsonl": _json_rows, "text": _text_rows}
    if kind in readers:
        found = readers[kind](lines, first, shape)
    else:
        found = _csv_rows(lines, shape, "\t" if kind == "tsv" else ",")
    for item in found:
        yield item if isinstance(item, BadRow) else _row(item[0], item[1], shape, key)


_Found = Iterator[BadRow | tuple[int, dict[str, Any]]]


def _text_rows(lines: Lines, first: list[str], _shape: Shape) -> _Found:
    for item in _each(chain(first, lines), lines):
        if isinstance(item, BadRow):
            yield item
        elif text := item.rstrip("\r\n"):
            yield lines.number, {"message": text}


def _json_rows(lines: Lines, first: list[str], shape: Shape) -> _Found:
    seen = False
    for item in _each(chain(first, lines), lines):
        if isinstance(item, BadRow):
            yield item
            continue
        if not item.strip():
            continue
        if not seen and item.lstrip().startswith("["):
            raise Refuse(
                "send.array",
                "the file is one JSON array, not one object a line",
                "convert it: jq -c '.[]' FILE | streamapp send - --format jsonl",
            )
        try:
            value = _decode(item)
        except msgspec.DecodeError as error:
            yield BadRow(lines.number, f"not JSON: {error}")
            continue
        if not isinstance(value, dict):
            yield BadRow(lines.number, "JSON, but not an object")
            continue
        missing = [name for name in shape.picks().values() if name not in value]
        if missing and not seen:
            raise _no_column(missing[0], list(value), f"line {lines.number}")
        seen = True
        yield BadRow(lines.number, f"no key {missing[0]!r}") if missing else (lines.number, value)


def _csv_rows(lines: Lines, shape: Shape, delimiter: str) -> _Found:
    csv.field_size_limit(LINE_BYTES_MAX)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    for cells in _each(reader, lines):
        if header is None:
            header = _header(cells, shape)
        elif isinstance(cells, BadRow):
            yield cells
        elif not cells:
            continue
        elif len(cells) != len(header):
            reason = f"{len(cells)} cells where the header has {len(header)}"
            yield BadRow(lines.number, reason)
        else:
            values = {name: _cell(name, cell) for name, cell in zip(header, cells, strict=True)}
            yield lines.number, {name: v for name, v in values.items() if v is not None}


def _header(cells: "list[str] | BadRow", shape: Shape) -> list[str]:
    if isinstance(cells, BadRow):
        raise Refuse("send.header", f"line {cells.line}: {cells.reason}", "mend the first line")
    twice = {name for name in cells if cells.count(name) > 1}
    if twice:
        raise Refuse("send.header", f"column {min(twice)!r} comes twice", "rename one")
    for name in shape.picks().values():
        if name not in cells:
            raise _no_column(name, cells, "the header")
    if not shape.text and not {"message", "text"} & set(cells):
        raise Refuse(
            "send.text",
            "no column is called message or text",
            f"say which one is, --text COLUMN: {', '.join(cells)}",
        )
    return cells


def _cell(name: str, cell: str) -> Any:
    """A csv cell as what the event's field wants; an empty cell says nothing."""
    if name == "duration_ms" and re.fullmatch(r"\d+(\.\d+)?", cell):
        return float(cell)
    if name == "time" and re.fullmatch(r"\d+", cell):
        return int(cell)
    return cell or None


def _each(items: Iterator[Any], lines: Lines) -> Iterator[Any]:
    """The items, and a BadRow for each that cannot be read."""
    while True:
        try:
            yield next(items)
        except StopIteration:
            return
        except Reject as error:
            yield BadRow(lines.number, error.message)
        except csv.Error as error:
            yield BadRow(lines.number, f"not csv: {error}")


def _row(line: int, values: dict[str, Any], shape: Shape, key: str) -> Row:
    """The event of a row: named columns first, then what the flags say, then every other column."""
    picks = shape.picks()
    event = {field: values[column] for field, column in picks.items() if column in values}
    event |= {k: v for k, v in (("type", shape.kind), ("source", shape.source)) if v}
    for name, value in values.items():
        if name not in event and name not in picks.values():
            event[name] = value
    body = _encode(event)
    if event.get("id") in {None, ""}:
        name = sha256(b"\0".join((key.encode(), str(line).encode(), body))).hexdigest()[:32]
        body = _encode({**event, "id": name})
    conversation = event.get("conversation_id") or event.get("conversation") or ""
    return Row(line, str(conversation), body)


def _no_column(name: str, known: Sequence[str], where: str) -> Refuse:
    near = get_close_matches(name, known, 1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return Refuse(
        "send.column", f"{where} has no column {name!r}", f"{hint}it has: {', '.join(known)}"
    )
