"""Parquet and Arrow: files that say their own schema."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from msgspec import Meta

from streamapp.core.errors import Refuse
from streamapp.workflow.data.contract import BATCH_ROWS, Key, Options, Place
from streamapp.workflow.data.files import FileReader
from streamapp.workflow.data.plain_rows import holding
from streamapp.workflow.data.replacing import replaced

#: An Arrow file begins with it; a stream does not.
_MAGIC = b"ARROW1"
#: Of the first rows, by which columns are known that repeat themselves.
_LOOKED_AT_ROWS = 20_000


class ParquetOptions(Options, frozen=True, kw_only=True):
    """Of Parquet.

    Args:
        columns: to read; none: all.
    """

    columns: tuple[str, ...] = ()


class ParquetReader(FileReader):
    """Parquet files, a row group at a time."""

    Options: ClassVar[type[Options]] = ParquetOptions
    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".pq")

    def schema_of(self, path: Path) -> pa.Schema:
        schema = self.checked(pq.read_schema(path).remove_metadata(), path)
        for name in self.options.columns:
            if name not in schema.names:
                raise Refuse(
                    "data.column",
                    f"{self.shown(path)} has no column {name!r}",
                    f"it has {', '.join(schema.names[:20])}",
                )
        wanted = self.options.columns or schema.names
        return pa.schema([schema.field(name) for name in wanted])

    def batches_of(self, path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        columns = [name for name in schema.names if self.options.columns] or None
        with pq.ParquetFile(path, memory_map=True) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
                batch.validate(full=True)  # Parquet's texts may be any bytes
                yield batch.replace_schema_metadata(None)


class ArrowReader(FileReader):
    """Arrow IPC files, mapped into memory, and streams."""

    suffixes: ClassVar[tuple[str, ...]] = (".arrow", ".arrows", ".feather", ".ipc")

    def schema_of(self, path: Path) -> pa.Schema:
        with _opened(path) as reader:
            return self.checked(reader.schema.remove_metadata(), path)

    def batches_of(self, path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        with _opened(path) as reader:
            if isinstance(reader, pa.ipc.RecordBatchFileReader):
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                batches = iter(reader)
            for batch in batches:
                batch.validate(full=True)  # Arrow trusts offsets, and would read beyond its memory
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    yield batch.slice(start, BATCH_ROWS).replace_schema_metadata(None)


class ParquetWriteOptions(Options, frozen=True, kw_only=True):
    """Of Parquet that is written.

    Args:
        compression: of its pages.
        row_group_rows: of a row group, at most.
    """

    compression: Literal["none", "snappy", "zstd", "gzip", "lz4", "brotli"] = "zstd"
    row_group_rows: Annotated[int, Meta(ge=1, le=10_000_000)] = 122_880


class ParquetWriter:
    """One Parquet file."""

    Options: ClassVar[type[Options]] = ParquetWriteOptions
    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".pq")
    takes: ClassVar[frozenset[Key]] = frozenset({"path"})

    def __init__(self, place: Place, options: Any) -> None:
        self.path, self.options = place.paths[0], options

    def write(self, rows: pa.RecordBatchReader) -> int:
        """As ``Writer.write``."""
        count, size = 0, self.options.row_group_rows
        groups = _groups(rows, size)
        first = next(groups)
        with (
            holding(rows.schema, str(self.path)),
            replaced(self.path) as part,
            pq.ParquetWriter(
                part, rows.schema,
                compression=self.options.compression, use_dictionary=_repetitive(first),
            ) as file,
        ):  # fmt: skip
            for group in chain([first], groups):
                file.write_table(group, row_group_size=size)
                count += group.num_rows
        return count


def _groups(rows: pa.RecordBatchReader, size: int) -> Iterator[pa.Table]:
    """Tables of ``size`` rows or little more, at least one."""
    waiting: list[pa.RecordBatch] = []
    count = groups = 0
    for batch in rows:
        waiting.append(batch)
        count += batch.num_rows
        if count >= size:
            yield pa.Table.from_batches(waiting)
            waiting, count, groups = [], 0, groups + 1
    if waiting or not groups:
        yield pa.Table.from_batches(waiting, rows.schema)


def _repetitive(rows: pa.Table) -> list[str]:
    """Paths of the columns that a dictionary makes smaller, by some rows; others it makes larger.

    It is built, and thrown away, where most values are there once, which takes longer than to write
    them.
    """
    some = rows.slice(0, _LOOKED_AT_ROWS)
    return [
        path
        for field, values in zip(rows.schema, some.columns, strict=True)
        for path in _leaves(field.name, field.type)
        if path != field.name or _repeats(values)
    ]


def _repeats(values: pa.ChunkedArray) -> bool:
    try:
        return bool(pc.count_distinct(values).as_py() <= len(values) / 2)
    except pa.ArrowNotImplementedError:
        return True


def _leaves(path: str, kind: pa.DataType) -> Iterator[str]:
    """The paths of what has values itself, as Parquet calls them."""
    if pa.types.is_struct(kind):
        for child in kind:
            yield from _leaves(f"{path}.{child.name}", child.type)
    elif pa.types.is_map(kind):
        yield from _leaves(f"{path}.key_value.key", kind.key_type)
        yield from _leaves(f"{path}.key_value.value", kind.item_type)
    elif pa.types.is_nested(kind) and hasattr(kind, "value_type"):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    else:
        yield path


class ArrowWriteOptions(Options, frozen=True, kw_only=True):
    """Of Arrow that is written.

    Args:
        compression: of its buffers; without it readers map them as they are.
    """

    compression: Literal["none", "lz4", "zstd"] = "none"


class ArrowWriter:
    """One Arrow IPC file."""

    Options: ClassVar[type[Options]] = ArrowWriteOptions
    suffixes: ClassVar[tuple[str, ...]] = (".arrow", ".feather")
    takes: ClassVar[frozenset[Key]] = frozenset({"path"})

    def __init__(self, place: Place, options: Any) -> None:
        self.path, self.options = place.paths[0], options

    def write(self, rows: pa.RecordBatchReader) -> int:
        """As ``Writer.write``."""
        packed = None if self.options.compression == "none" else self.options.compression
        options = pa.ipc.IpcWriteOptions(compression=packed, unify_dictionaries=True)
        count = 0
        with (
            replaced(self.path) as part,
            pa.ipc.new_file(str(part), rows.schema, options=options) as file,
        ):
            for batch in rows:
                file.write_batch(batch)
                count += batch.num_rows
        return count


def _opened(path: Path) -> Any:
    source = pa.memory_map(str(path))
    is_file = source.read(len(_MAGIC)) == _MAGIC
    source.seek(0)
    return pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
