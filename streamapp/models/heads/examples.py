"""Labelled texts from a file: csv or tsv with a header, or json lines."""

import csv
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import numpy as np

from streamapp.core.errors import Refuse
from streamapp.models.heads.logistic import Places
from streamapp.models.receipt import sha256_of

TEXT, LABEL = "text", "label"
#: The label of texts that belong to none.
UNKNOWN = "unknown"
EXAMPLES_MAX = 200_000
CHARS_MAX = 100_000
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_LINES = (".jsonl", ".ndjson")


class Examples(NamedTuple):
    """``labels`` beside ``texts``, None where the file says ``unknown``; sha256 of the file."""

    texts: list[str]
    labels: list[str | None]
    sha256: str


def read_examples(path: Path, text: str = TEXT, label: str = LABEL) -> Examples:
    """The examples of a file.

    Args:
        path: ``.csv``, ``.tsv``, ``.jsonl`` or ``.ndjson``.
        text: the column of texts.
        label: the column of labels.

    Raises:
        Refuse: the file cannot be read, is of another kind, lacks a column, is empty or too large;
            a line without text or label, or with one that is no text.
    """
    suffix = path.suffix.lower()
    if suffix not in (*_SEPARATORS, *_LINES):
        known = ", ".join((*_SEPARATORS, *_LINES))
        raise _refuse(path, f"{suffix or 'no suffix'} is no kind of file that is read", known)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = (
                _json(path, stream) if suffix in _LINES else _csv(path, stream, suffix, text, label)
            )
            found = list(_checked(path, rows, text, label))
        digest = sha256_of(path)
    except OSError as error:
        raise _refuse(path, error.strerror or str(error), "check the path") from None
    except UnicodeDecodeError as error:
        raise _refuse(path, f"byte {error.start} is not UTF-8", "save it as UTF-8") from None
    if not found:
        raise _refuse(path, "it has no rows", f"give rows with {text!r} and {label!r}")
    texts, labels = zip(*found, strict=True)
    return Examples(list(texts), [None if one == UNKNOWN else one for one in labels], digest)


def groups_of(texts: Iterable[str]) -> Places:
    """A number for each text, (n,), in the order of their first: those of one number are repeats.

    Case, white space and Unicode's compatible forms are not told apart: encoders that do see
    nearly the same in both.
    """
    numbers: dict[str, int] = {}
    keys = (" ".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in texts)
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.intp)


def _csv(
    path: Path, stream: IO[str], suffix: str, text: str, label: str
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(stream, delimiter=_SEPARATORS[suffix])
    columns = reader.fieldnames or []
    for name, option in ((text, "--text"), (label, "--label")):
        if name not in columns:
            has = f"it has {', '.join(columns)}" if columns else "it is empty"
            raise _refuse(path, f"no column {name!r}; {has}", f"name it with {option}")
    try:
        for row in reader:
            if more := row.get(None):  # a comma without quotes
                why = f"has {len(columns) + len(more)} fields, the header {len(columns)}"
                raise _refuse(path, f"line {reader.line_num} {why}", 'quote texts: "one, two"')
            yield reader.line_num, row
    except csv.Error as error:
        raise _refuse(path, f"line {reader.line_num}: {error}", "correct the line") from None


def _json(path: Path, stream: IO[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line)  # unlike Python's it takes no half of a pair of UTF-16
        except (msgspec.DecodeError, RecursionError) as error:
            raise _refuse(path, f"line {number}: {error}", "write one object a line") from None
        if not isinstance(row, dict):
            raise _refuse(path, f"line {number} is no object", "write one object a line")
        yield number, row


def _checked(
    path: Path, rows: Iterable[tuple[int, Mapping[str, Any]]], text: str, label: str
) -> Iterator[tuple[str, str]]:
    for count, (number, row) in enumerate(rows):
        if count == EXAMPLES_MAX:
            raise _refuse(path, f"more than {EXAMPLES_MAX:,} rows", "take a sample of them")
        for name in (text, label):
            value = row.get(name)
            if value is not None and not isinstance(value, str):
                why = f"line {number}: {name!r} is {str(value)[:40]}, no text"
                raise _refuse(path, why, "write it in quotes")
            if value is None or not value.strip():
                raise _refuse(path, f"line {number} has no {name!r}", "remove or complete the line")
        yield row[text][:CHARS_MAX], row[label].strip()


def _refuse(path: Path, why: str, fix: str) -> Refuse:
    return Refuse("intents.examples", f"{path}: {why}", fix)
