"""From what a workflow or a project declares to the reader or writer of it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from streamapp.core.errors import Refuse
from streamapp.core.project import read_secret
from streamapp.workflow.data.contract import OnBad, Place, Reader, Writer, refuse_bad
from streamapp.workflow.data.formats import (
    convert_options,
    format_of,
    reader_of,
    writer_of,
    writers,
)
from streamapp.workflow.data.places import (
    check_keys,
    file_below,
    find_files,
    one_file,
    resolve_url,
)
from streamapp.workflow.graph.spec import Input, Output

_PLACE_KEYS = ("path", "pattern", "url", "table", "query")


@dataclass(frozen=True, slots=True)
class Opened:
    """An input or a declared source, ready to be read; a ``Source`` of the operations' contract.

    Attributes:
        name: of the input or the source.
        format: of its rows.
        files: that it is made of, sorted; empty: it is asked for over the network.
        identity: a digest of what was declared, secrets left out; the files' content is not in it.
        reader: of its format.
    """

    name: str
    format: str
    files: tuple[Path, ...]
    identity: str
    reader: Reader

    def schema(self) -> pa.Schema:
        """As ``Reader.schema``."""
        return self.reader.schema()

    def read(self) -> pa.RecordBatchReader:
        """As ``Reader.read``."""
        return self.reader.read()


#: Gives the declared source of a name.
GetSource = Callable[[str], Opened]


def open_input(
    declared: Input,
    folder: Path,
    *,
    name: str,
    on_bad: OnBad = refuse_bad,
    source: GetSource | None = None,
) -> Opened:
    """The reader of a workflow's input; nothing of it is read yet.

    Args:
        declared: in the workflow.
        folder: where its relative paths begin.
        name: of the input.
        on_bad: takes its bad rows; without it the first one is an error.
        source: gives declared sources; None: those of the folder's ``streamapp.toml``.

    Raises:
        Refuse: no such file, format, source or option, or keys that do not go together.
    """
    origin = f"input {name!r}"
    if declared.type == "source" or declared.source is not None:
        return _declared_source(declared, folder, origin, on_bad, source)
    form = declared.format
    if declared.type != "file":
        if form not in (None, declared.type):
            raise Refuse(
                "data.format",
                f"{origin} is of type {declared.type} and of format {form}",
                "leave out format",
            )
        form = declared.type
    return open_place(declared, form, folder, name=name, origin=origin, on_bad=on_bad)


def open_place(
    declared: Input, form: str | None, folder: Path, *, name: str, origin: str, on_bad: OnBad
) -> Opened:
    """The reader of files, of a database or of a URL.

    Args:
        declared: says the place.
        form: the format; None: by the suffix of its files.
        folder: where relative paths begin.
        name: of the input or source.
        origin: what it is, with its name, for messages.
        on_bad: takes bad rows.

    Raises:
        Refuse: as ``open_input``.
    """
    form = form or _guess(declared, origin)
    kind = reader_of(form)
    keys = _place_keys(declared)
    check_keys(keys, kind.takes, form, origin)
    if "table" in kind.takes and len(keys.keys() & {"table", "query"}) != 1:
        raise Refuse("data.place", f"{origin} needs a table or a query", "give one of the two")
    options = convert_options(kind.Options, declared.options, origin)
    paths: tuple[Path, ...] = ()
    if declared.pattern is not None:
        paths = find_files(declared.pattern, folder, origin)
    elif declared.path is not None:
        paths = (one_file(declared.path, folder, origin),)
    url, shown = resolve_url(declared.url or "", folder, origin)
    place = Place(
        name=name,
        folder=folder,
        paths=paths,
        url=url,
        shown=shown or declared.path or name,
        table=declared.table or "",
        query=declared.query or "",
        secret=partial(read_secret, folder=folder),
        on_bad=on_bad,
    )
    return Opened(name, form, paths, _digest(form, keys, declared.options), kind(place, options))


def open_output(declared: Output, folder: Path, *, name: str, home: Path | None = None) -> Writer:
    """The writer of a workflow's output; nothing is written yet.

    Args:
        declared: in the workflow.
        folder: of the run's outputs, where its path begins.
        name: of the output; its file is ``NAME.FORMAT`` and its table NAME unless declared.
        home: where files of secrets begin; None: ``folder``.

    Raises:
        Refuse: no such format or option, or keys that do not go together.
    """
    origin = f"output {name!r}"
    if declared.format is None and declared.path is None:
        raise Refuse("data.format", f"{origin} says no format", "add format: jsonl, or a path")
    form = declared.format or format_of(declared.path or "", writers)
    kind = writer_of(form)
    keys = _place_keys(declared)
    if "path" in kind.takes:
        keys.setdefault("path", f"{name}.{form}")
    check_keys(keys, kind.takes, form, origin)
    path = file_below(keys["path"], folder, origin) if "path" in keys else None
    url, shown = resolve_url(declared.url or "", home or folder, origin)
    place = Place(
        name=name,
        folder=folder,
        paths=(path,) if path else (),
        url=url,
        shown=shown or str(path),
        table=declared.table or name,
        secret=partial(read_secret, folder=home or folder),
    )
    return kind(place, convert_options(kind.Options, declared.options, origin))


def _declared_source(
    declared: Input, folder: Path, origin: str, on_bad: OnBad, source: GetSource | None
) -> Opened:
    from streamapp.workflow.data.declared import declared_sources  # which opens places, too

    beside = [*_place_keys(declared), *(["options"] if declared.options else [])]
    if declared.source is None or beside:
        raise Refuse(
            "data.place",
            f"{origin} " + (f"has {beside[0]!r} beside a source" if beside else "names no source"),
            "name [sources.NAME] of streamapp.toml by source, and declare the rest there",
        )
    return (source or declared_sources(folder, on_bad).source)(declared.source)


def _place_keys(declared: Input | Output) -> dict[str, Any]:
    """What it says about its place."""
    return {
        key: value for key in _PLACE_KEYS if (value := getattr(declared, key, None)) is not None
    }


def _guess(declared: Input, origin: str) -> str:
    """The format that its path or patterns say by their suffix."""
    if declared.url is not None:
        return "postgres" if declared.url.startswith("postgres") else "http"
    patterns = declared.path or declared.pattern or ()
    found = {format_of(one) for one in ([patterns] if isinstance(patterns, str) else patterns)}
    if len(found) != 1:
        raise Refuse(
            "data.format",
            f"{origin} has files of {'several formats' if found else 'no format'}",
            "give a path or a pattern, and an input to each format",
        )
    return found.pop()


def _digest(*declared: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(declared, order="sorted")).hexdigest()
