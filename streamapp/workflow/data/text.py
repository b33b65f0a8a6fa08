"""Text files: a row for each."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from msgspec import Meta

from streamapp.core.errors import Refuse
from streamapp.workflow.data.contract import BATCH_BYTES, BATCH_ROWS, Key, Options, Place
from streamapp.workflow.data.encodings import Encodings, Undecodable, decode, names
from streamapp.workflow.data.files import FileReader

SCHEMA = pa.schema(
    [
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("text", pa.string()),
    ]
)


class TextOptions(Options, frozen=True, kw_only=True):
    """Of text files.

    Args:
        encoding: of all of them, or several that each file is tried with, in this order.
        document_id: the file's name without its suffix, its name, or its path.
        bytes_max: of a file; a larger one is a bad row.
    """

    encoding: Encodings = "utf-8"
    document_id: Literal["stem", "name", "path"] = "stem"
    bytes_max: Annotated[int, Meta(ge=1, le=1 << 30)] = 64 << 20


class TextReader(FileReader):
    """Files as rows: ``document_id``, ``path`` (relative to the workflow's folder) and ``text``."""

    Options: ClassVar[type[Options]] = TextOptions
    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".md", ".text")
    takes: ClassVar[frozenset[Key]] = frozenset({"path", "pattern"})

    def __init__(self, place: Place, options: Any) -> None:
        super().__init__(place, options)
        names(options.encoding)
        self._ids = self._checked_ids()

    def schema(self) -> pa.Schema:
        return SCHEMA

    def _read(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        self._good = self._bad = 0
        rows: list[tuple[str, str, str]] = []
        size = 0
        for path, document in self._ids.items():
            text = self._guarded(path, lambda path=path: self._text(path))  # type: ignore[misc]
            if text is None:
                continue
            self._good += 1
            rows.append((document, self.shown(path), text))
            size += len(text)
            if len(rows) == BATCH_ROWS or size >= BATCH_BYTES:
                yield _batch(rows, schema)
                rows, size = [], 0
        if rows:
            yield _batch(rows, schema)

    def _text(self, path: Path) -> str | None:
        size = path.stat().st_size
        if size > self.options.bytes_max:
            self.bad(path, None, f"has more than bytes_max = {self.options.bytes_max} bytes")
            return None
        data = path.read_bytes()
        try:
            return decode(data, self.options.encoding)
        except Undecodable as error:
            self.bad(path, error.line, error.reason, data[:10_000].decode("latin-1"))
            return None

    def _checked_ids(self) -> dict[Path, str]:
        """Each file's id; ids are keys of what follows, so two files may not have one."""
        owners: dict[str, Path] = {}
        for path in self.place.paths:
            document = _id(self.options.document_id, path, self.shown(path))
            if document in owners:
                raise Refuse(
                    "data.duplicate",
                    f"input {self.place.name!r}: {self.shown(owners[document])} and "
                    f"{self.shown(path)} both have the document_id {document!r}",
                    "set the option document_id: path",
                )
            owners[document] = path
        return {path: document for document, path in owners.items()}


def _id(kind: str, path: Path, shown: str) -> str:
    return {"stem": path.stem, "name": path.name, "path": shown}[kind]


def _batch(rows: list[tuple[str, str, str]], schema: pa.Schema) -> pa.RecordBatch:
    columns = [list(column) for column in zip(*rows, strict=True)]
    return pa.RecordBatch.from_arrays(
        [pa.array(column, pa.string()) for column in columns], schema=schema
    )
