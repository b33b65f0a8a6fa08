"""Formats by name: which reader and which writer, and what a file's suffix says."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from streamapp.core.errors import Refuse
from streamapp.plugin.installed import installed
from streamapp.workflow.data.contract import Options, Reader, Writer

#: What pyarrow and DuckDB unpack as they read.
PACKED = (".gz", ".zst", ".bz2")
#: Of formats whose name the suffix is not.
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".db": "sqlite",
    ".duckdb": "duckdb",
    ".txt": "text",
    ".md": "text",
    ".text": "text",
}
Kind = TypeVar("Kind", bound=Options)


def readers() -> tuple[str, ...]:
    """The formats that can be read, by name."""
    return tuple(sorted(_entries("streamapp.readers")))


def writers() -> tuple[str, ...]:
    """The formats that can be written, by name."""
    return tuple(sorted(_entries("streamapp.writers")))


def reader_of(name: str) -> type[Reader]:
    """The reader of a format.

    Raises:
        Refuse: no package brings one, or what it needs is not installed.
    """
    found: type[Reader] = _load("streamapp.readers", name, "read")
    return found


def writer_of(name: str) -> type[Writer]:
    """The writer of a format.

    Raises:
        Refuse: as ``reader_of``.
    """
    found: type[Writer] = _load("streamapp.writers", name, "write")
    return found


def format_of(path: str | Path, known: Callable[[], Sequence[str]] = readers) -> str:
    """The format that a file's suffix says.

    Args:
        path: of the file.
        known: the formats that it could be named to be of, for the message.

    Raises:
        Refuse: it says none.
    """
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    found = _SUFFIXES.get(suffixes[-1]) if suffixes else None
    if found is None:
        raise Refuse(
            "data.format",
            f"{str(path)!r} does not say its format",
            f"end it like data.csv, or name its format: one of {', '.join(known())}",
        )
    return found


def convert_options(kind: type[Kind], given: Mapping[str, Any], origin: str) -> Kind:
    """What was declared as the format's options.

    Args:
        kind: the format's ``Options``.
        given: as declared.
        origin: the input, source or output, for messages.

    Raises:
        Refuse: an option that there is none of, or a value of another type.
    """
    known = kind.__struct_fields__
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            fix = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known) or 'none'}"
            raise Refuse("data.option", f"{origin} has no option {name!r}", fix)
    try:
        return msgspec.convert(dict(given), kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        option = where.rstrip("`")
        raise Refuse(
            "data.option", f"{origin}: option {option!r}: {what}", "correct its value"
        ) from None


@cache
def _entries(group: str) -> Mapping[str, EntryPoint]:
    return installed(group, "format")


def _load(group: str, name: str, verb: str) -> Any:
    entries = _entries(group)
    if name not in entries:
        near = get_close_matches(name, entries, 1)
        fix = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(entries))}"
        raise Refuse("data.format", f"no package can {verb} the format {name!r}", fix)
    try:
        return entries[name].load()
    except ModuleNotFoundError as error:
        raise Refuse(
            "data.package",
            f"to {verb} the format {name!r} the package {error.name} is needed",
            f"pip install 'streamapp[{name}]', or {error.name}",
        ) from None
