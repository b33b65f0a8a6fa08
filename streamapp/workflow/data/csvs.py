"""CSV: rows of half-broken files too, by their lines."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pyarrow as pa
import pyarrow.csv
from msgspec import Meta
from msgspec import field as declared

from streamapp.core.errors import Refuse
from streamapp.workflow.data.ahead import ahead
from streamapp.workflow.data.blocks import Block, blocks, start_of
from streamapp.workflow.data.contract import Key, Options, Place
from streamapp.workflow.data.csv_rows import (
    Dialect,
    explain,
    guess_delimiter,
    header,
    learn_types,
    texts,
    widest,
)
from streamapp.workflow.data.encodings import Encodings
from streamapp.workflow.data.files import FileReader
from streamapp.workflow.data.misfits import misfits
from streamapp.workflow.data.plain_rows import flat_schema, flattened, holding
from streamapp.workflow.data.recovering import Record, recover
from streamapp.workflow.data.replacing import replaced
from streamapp.workflow.data.types import with_declared

#: The header is within these.
_HEADER_BYTES_MAX = 1 << 20
Character = Annotated[str, Meta(min_length=1, max_length=1, pattern=r"^[\x09\x20-\x7e]$")]


class CsvOptions(Options, frozen=True, kw_only=True):
    """Of CSV.

    Args:
        delimiter: None: the one of comma, tab, semicolon and bar that the first line has most of.
        quote: around values; doubled within them.
        header: whether the first line has the names; else they are column_1 and so on.
        nulls: what stands for null where it is not quoted.
        encoding: of the files, or several that each is tried with.
        columns: types by name, for what the beginning of the files does not show.
    """

    delimiter: Character | None = None
    quote: Character = '"'
    header: bool = True
    nulls: tuple[str, ...] = ("",)
    encoding: Encodings = "utf-8"
    columns: dict[str, str] = declared(default_factory=dict)


class CsvReader(FileReader):
    """Rows of CSV; one with too many or too few values, or of another type, is a bad row.

    Types are learned from the files' beginnings (4 MiB of each): int64, double, bool, and date and
    timestamp as ISO 8601 writes them.  All else is text, also numbers with a leading zero.
    """

    Options: ClassVar[type[Options]] = CsvOptions
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv")

    def schema_of(self, path: Path) -> pa.Schema:
        dialect, names, start = self._start(path)
        rows = _without_first(start, dialect) if self.options.header else start
        learned = learn_types(_as_texts(rows, dialect, texts(names)))
        declared = {name: kind for name, kind in self.options.columns.items() if name in names}
        return with_declared(learned, declared, self.shown(path))

    def joined(self, schemas: list[tuple[Path, pa.Schema]]) -> pa.Schema:
        """Columns of several types are numbers where they can be, else text."""
        known: dict[str, pa.DataType] = {}
        for _, schema in schemas:
            for field in schema:
                known[field.name] = widest(known.get(field.name, field.type), field.type)
        for name in self.options.columns:
            if name not in known:
                raise Refuse(
                    "data.column",
                    f"{self.place.name!r} has no column {name!r} to have a type",
                    f"it has {', '.join(list(known)[:20])}",
                )
        return pa.schema(list(known.items()))

    def batches_of(self, path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        dialect, names, _ = self._start(path)
        wanted = {field.name: field for field in schema}
        own = pa.schema([wanted.get(name, pa.field(name, pa.string())) for name in names])
        parts = ahead(self._blocks(path, dialect), partial(_whole, dialect=dialect, schema=own))
        for block, whole in parts:
            if whole is None:
                records = dialect.records(block)
                yield from _recovered(records, dialect, own, partial(self._report, path, names))
            else:
                yield whole

    def _blocks(self, path: Path, dialect: Dialect) -> Iterator[Block]:
        """The file's rows, without its header."""
        header_is_next = self.options.header
        for block in blocks(path, self.options.encoding, dialect.whole):
            yield _without_first(block, dialect) if header_is_next else block
            header_is_next = False

    def _start(self, path: Path) -> tuple[Dialect, list[str], Block]:
        """How the file is written, its columns, and its first block."""
        options = self.options
        cut = Dialect(",", options.quote, ())
        block = start_of(path, options.encoding, cut.whole)
        first = next(iter(cut.records(_first_lines(block))), None)
        if first is None:
            raise Refuse("data.empty", f"{self.shown(path)} is empty", "leave it out")
        if len(first.data) >= _HEADER_BYTES_MAX:
            raise Refuse(
                "data.header",
                f"{self.shown(path)}:{first.line}: its first row has more than "
                f"{_HEADER_BYTES_MAX:,} bytes",
                "check that it is CSV",
            )
        delimiter = options.delimiter or guess_delimiter(first, options.quote)
        dialect = Dialect(delimiter, options.quote, options.nulls)
        names = header(dialect, first, self.shown(path))
        if not options.header:
            names = [f"column_{place}" for place in range(1, len(names) + 1)]
        elif b"\0" in first.data:
            raise Refuse(
                "data.header",
                f"{self.shown(path)}:{first.line}: there are NUL bytes in its columns' names",
                "if it is UTF-16 say so by the option encoding, like utf-16-le",
            )
        return dialect, names, block

    def _report(self, path: Path, names: list[str], record: Record, reason: str) -> None:
        text = record.data.decode("utf-8", "replace").rstrip("\r\n")
        self.bad(path, record.line, explain(reason, names), text)


class CsvWriteOptions(Options, frozen=True, kw_only=True):
    """Of CSV that is written.

    Args:
        delimiter: between values.
        header: whether the first line has the names.
    """

    delimiter: Character = ","
    header: bool = True


class CsvWriter:
    """Text in quotes, so that an empty one is not null; lists, structs as JSON, bytes as base64."""

    Options: ClassVar[type[Options]] = CsvWriteOptions
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)
    takes: ClassVar[frozenset[Key]] = frozenset({"path"})

    def __init__(self, place: Place, options: Any) -> None:
        self.path, self.options = place.paths[0], options

    def write(self, rows: pa.RecordBatchReader) -> int:
        """As ``Writer.write``."""
        options = pa.csv.WriteOptions(
            include_header=self.options.header, delimiter=self.options.delimiter
        )
        schema, count = flat_schema(rows.schema, is_text=True), 0
        with (
            holding(rows.schema, str(self.path)),
            replaced(self.path) as part,
            pa.csv.CSVWriter(str(part), schema, write_options=options) as file,
        ):
            for batch in rows:
                file.write_batch(flattened(batch, is_text=True))
                count += batch.num_rows
        return count


def _as_texts(block: Block, dialect: Dialect, schema: pa.Schema) -> pa.Table:
    """The good rows of a block, every column a text."""
    whole = _whole(block, dialect, schema)
    if whole is not None:
        return pa.Table.from_batches([whole], schema)
    rows = _recovered(dialect.records(block), dialect, schema, lambda *_: None)
    return pa.Table.from_batches(rows, schema)


def _whole(block: Block, dialect: Dialect, schema: pa.Schema) -> pa.RecordBatch | None:
    """The rows of a block; None where one is bad."""
    if dialect.is_regular(block.data):
        with suppress(pa.ArrowException, UnicodeDecodeError):
            return dialect.parse(block.data, schema)
    return None


def _recovered(
    records: Sequence[Record],
    dialect: Dialect,
    schema: pa.Schema,
    bad: Callable[[Record, str], None],
) -> Iterator[pa.RecordBatch]:
    """The good rows, where the block did not parse as a whole; then the bad ones are told."""
    told: list[tuple[Record, str]] = []

    def parse(some: Sequence[Record], kinds: pa.Schema = schema) -> pa.RecordBatch:
        batch = dialect.parse(b"".join(_ended(record.data) for record in some), kinds)
        if batch.num_rows != len(some):
            raise pa.ArrowInvalid("a quote is not closed")
        return batch

    def aside(record: Record, reason: str) -> None:
        told.append((record, reason))

    rows = []
    for record in _structured(records, dialect, len(schema), aside):
        if _is_utf8(record.data):
            rows.append(record)
        else:
            yield from recover([record], parse, aside)
    with suppress(pa.ArrowException):
        wrong = misfits(parse(rows, texts(schema.names)), schema)
        told.extend((rows[place], reason) for place, reason in wrong.items())
        rows = [record for place, record in enumerate(rows) if place not in wrong]
    yield from recover(rows, parse, aside)
    for record, reason in sorted(told, key=lambda each: each[0].line):
        bad(record, reason)


def _structured(
    records: Sequence[Record],
    dialect: Dialect,
    columns: int,
    bad: Callable[[Record, str], None],
) -> Iterator[Record]:
    """Those that have a value for each column.

    One that has not, and has several lines, has a quote that was never closed: each line counts.
    """
    for record in records:
        if dialect.count(record.data) == columns:
            yield record
            continue
        for number, data in enumerate(record.data.splitlines(keepends=True), record.line):
            if not data.strip():
                continue
            found = dialect.count(data)
            if found == columns:
                yield Record(number, data)
            else:
                why = f"it has {found} values, not {columns}" if found else "a quote is not closed"
                bad(Record(number, data), why)


def _without_first(block: Block, dialect: Dialect) -> Block:
    """The block after its first record, which is the header."""
    first = next(iter(dialect.records(_first_lines(block))))
    end = block.data.index(first.data) + len(first.data)
    return Block(block.line + block.data.count(b"\n", 0, end), block.data[end:])


def _first_lines(block: Block) -> Block:
    return Block(
        block.line, b"".join(block.data[:_HEADER_BYTES_MAX].splitlines(keepends=True)[:100])
    )


def _ended(data: bytes) -> bytes:
    return data if data.endswith(b"\n") else data + b"\n"


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
