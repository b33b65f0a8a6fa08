"""JSON lines, and JSON: an array of objects, or one that has such an array in it."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa
from msgspec import Meta, field

from streamapp.core.errors import Refuse
from streamapp.workflow.data.ahead import ahead
from streamapp.workflow.data.blocks import Block, after_line, blocks, start_of
from streamapp.workflow.data.contract import BATCH_ROWS, Options
from streamapp.workflow.data.encodings import Encodings, Undecodable, decode
from streamapp.workflow.data.files import FileReader
from streamapp.workflow.data.json_rows import Sorting, learn, parse, parse_joined
from streamapp.workflow.data.pointing import array_at
from streamapp.workflow.data.recovering import Record


class JsonLinesOptions(Options, frozen=True, kw_only=True):
    """Of JSON lines.

    Args:
        encoding: of the files, or several that each is tried with.
        columns: types by name, for what the beginning of the files does not show.
    """

    encoding: Encodings = "utf-8"
    columns: dict[str, str] = field(default_factory=dict)


class JsonOptions(JsonLinesOptions, frozen=True, kw_only=True):
    """Of JSON.

    Args:
        records: where the array of objects is, like ``data.items``; empty: the file is the array.
        bytes_max: of a file, which is held in memory; JSON lines are not.
    """

    records: str = ""
    bytes_max: Annotated[int, Meta(ge=1, le=8 << 30)] = 512 << 20


class JsonLinesReader(FileReader):
    """An object on each line; a line that is none, or does not fit the columns, is a bad row."""

    Options: ClassVar[type[Options]] = JsonLinesOptions
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson")

    def schema_of(self, path: Path) -> pa.Schema:
        start = start_of(path, self.options.encoding, after_line)
        return learn(_lines(start), self.options.columns, self.shown(path))

    def batches_of(self, path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        def parsed(block: Block) -> pa.RecordBatch | None:
            with suppress(pa.ArrowException, UnicodeDecodeError):
                return parse_joined(block.data, _begins(block.data), schema)
            return None

        for block, whole in ahead(blocks(path, self.options.encoding, after_line), parsed):
            if whole is None:
                yield from Sorting(schema).rows(_lines(block), partial(self.bad_record, path))
            else:
                yield whole

    def bad_record(self, path: Path, record: Record, reason: str) -> None:
        """Hand over a bad object."""
        self.bad(path, record.line, reason, record.data.decode("utf-8", "replace"))


class JsonReader(JsonLinesReader):
    """Objects in an array; one that does not fit the columns is a bad row, by its number."""

    Options: ClassVar[type[Options]] = JsonOptions
    suffixes: ClassVar[tuple[str, ...]] = (".json",)

    def schema_of(self, path: Path) -> pa.Schema:
        records = self._records(path)[:BATCH_ROWS]
        return learn(records, self.options.columns, self.shown(path))

    def batches_of(self, path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        records = self._records(path)
        for start in range(0, len(records), BATCH_ROWS):
            some = records[start : start + BATCH_ROWS]
            try:
                yield parse(some, schema)
            except (pa.ArrowException, UnicodeDecodeError):
                yield from Sorting(schema).rows(some, partial(self.bad_record, path))

    def _records(self, path: Path) -> list[Record]:
        most = self.options.bytes_max
        data = b""
        if path.stat().st_size <= most:
            with pa.input_stream(str(path), compression="detect") as stream:
                data = stream.read(most + 1)
        if len(data) > most or path.stat().st_size > most:
            raise Refuse(
                "data.bytes_max",
                f"{self.shown(path)} has more than bytes_max = {most} bytes",
                "write it as JSON lines, or raise the option bytes_max",
            )
        try:
            text = decode(data, self.options.encoding)
        except Undecodable as error:
            raise Refuse(
                "data.encoding",
                f"{self.shown(path)}:{error.line}: {error.reason}",
                "set the option encoding",
            ) from None
        found = array_at(text.encode(), self.options.records, self.shown(path))
        return [Record(number, bytes(raw)) for number, raw in enumerate(found, 1)]


def _lines(block: Block) -> list[Record]:
    lines = enumerate(block.data.split(b"\n"), block.line)
    return [Record(line, data) for line, data in lines if data.strip()]


def _begins(data: bytes) -> bytes:
    """The first byte of each line that is not blank."""
    text = np.frombuffer(data, np.uint8)
    starts = np.append(0, np.flatnonzero(text[:-1] == ord("\n")) + 1)
    first: bytes = text[starts].tobytes()
    if not first.strip(b"{"):  # all are alike, as nearly always
        return first
    return b"".join(line.lstrip()[:1] for line in data.split(b"\n"))
