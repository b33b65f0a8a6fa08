"""Old rows as Parquet, a folder for each day, every row exactly once however often it is killed.

    DIR/events/ingest_day=2026-11-22/source_topic=events.raw/0-00000000000000000000-…4096.parquet
    DIR/dead/…                      dead letters, by the day of their record
    DIR/provenance/….parquet        what the column ``provenance`` refers to
    DIR/answers/….parquet           what a language model said of events
    DIR/read.sql                    views over all of it, for DuckDB

A file's name says which source offsets it answers for: partition, first and next.  What the ledger
covers never changes, so whoever finds the file knows that those offsets of that day are archived,
and the next run writes the others.  Files get their name when they are whole and synced.

Arrow's schema is in the files, so pyarrow (and what builds on it) gets vectors back with their
length; Parquet itself knows only lists, and DuckDB casts them in the views of ``read.sql``.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streamapp.core.errors import Halt, Refuse
from streamapp.core.files import sync
from streamapp.core.ranges import Ledger, RangeSet
from streamapp.core.sql import literal, quoted
from streamapp.sink import recall
from streamapp.sink.keep import Reader, alone, as_files, is_there

#: Rows of a file, and of a row group in it.
FILE_ROWS_MAX = 131_072
_GROUP_ROWS = 16_384
_READ_ROWS = 4096
#: The time that a table's day comes from.
_TIMES = {"events": "ingest_time", "dead": "timestamp"}
_DAY = timedelta(days=1)
_DAY_KEY = "ingest_day"
_TOPIC_KEY = "source_topic"
#: Of a file: partition, first offset and the one after the last.
_NAME = re.compile(r"(\d+)-(\d{20})-(\d{20})", re.ASCII)


class Folder(NamedTuple):
    """The rows of one table, day and topic; of one partition, as files go."""

    table: str
    day: date
    topic: str
    partition: int

    def under(self, root: Path) -> Path:
        """Hive's way to name folders, which DuckDB, pyarrow, polars and Spark read."""
        keys = f"{_DAY_KEY}={self.day.isoformat()}/{_TOPIC_KEY}={quote(self.topic, safe='')}"
        return root / self.table / keys


class Piece(NamedTuple):
    """A file to write: these source offsets of a Folder, which have this many rows."""

    folder: Folder
    first: int
    next: int
    rows: int

    @property
    def name(self) -> str:
        """Sorts as the offsets do."""
        return f"{self.folder.partition}-{self.first:020d}-{self.next:020d}.parquet"


def archive(
    read: Reader, root: Path, *, before: date | None = None, rows_max: int = FILE_ROWS_MAX
) -> Iterator[Mapping[str, Any]]:
    """Write what ``root`` does not have yet.

    Args:
        read: a new cursor on the store.
        root: the folder, made if it is missing.
        before: only what came in before this day (UTC); None: everything, today's too.
        rows_max: rows of a file.

    Yields:
        ``{"file", "at", "of"}`` in rows, then the result.

    Raises:
        Refuse: nothing can be written there, or a stage's column is called ``ingest_day``.
        Retry: another archive of the folder is running.
    """
    if is_there(root) and not root.is_dir():
        what = f"{root} is a file, and an archive is a folder"
        raise Refuse("archive.file", what, "name a folder; it is made if it is missing")
    with as_files(root):
        root.mkdir(parents=True, exist_ok=True)
    with alone(root / "archive"), contextlib.closing(read()) as cursor:
        pieces = list(_plan(cursor, root, before, rows_max))
        total, written = sum(piece.rows for piece in pieces), 0
        for piece in pieces:
            path = piece.folder.under(root) / piece.name
            yield {"file": str(path.relative_to(root)), "at": written, "of": total}
            _write_piece(cursor, piece, path)
            written += piece.rows
        _write_provenance(cursor, root)
        if _write_answers(cursor, root) or pieces or not (root / "read.sql").exists():
            _write_views(root)
    yield {"done": True, "folder": str(root), "rows": written, "files": len(pieces)}


def read_back(root: Path, table: str) -> str:
    """SQL of the rows of one table, with the types that they had in the store, for DuckDB."""
    columns: dict[str, str] = {}
    for path in sorted((root / table).rglob("*.parquet")):
        for field in pq.read_schema(path):
            if cast := _cast(field):
                columns[field.name] = cast
    casts = ", ".join(f"{quoted(name)}::{kind} AS {quoted(name)}" for name, kind in columns.items())
    pattern = f"{root.resolve()}/{table}/**/*.parquet".replace("'", "''")
    hive = f"hive_types = {{'{_DAY_KEY}': DATE, '{_TOPIC_KEY}': VARCHAR}}"
    options = f", hive_partitioning = true, {hive}" if table in _TIMES else ""
    replaced = f" REPLACE ({casts})" if casts else ""
    files = f"read_parquet('{pattern}', union_by_name = true{options})"
    return f"SELECT *{replaced} FROM {files}"  # noqa: S608  # for its reader to run


def _cast(field: pa.Field) -> str | None:
    if field.name in {"payload", "attachments", "detail"}:
        return "JSON"
    if pa.types.is_fixed_size_list(field.type) and pa.types.is_float32(field.type.value_type):
        return f"FLOAT[{field.type.list_size}]"
    return None


def _plan(
    cursor: duckdb.DuckDBPyConnection, root: Path, before: date | None, rows_max: int
) -> Iterator[Piece]:
    """What is missing, day by day.

    The ledger is read first: what is stored afterwards is for the next run.
    """
    ledger = recall.read_ledger(cursor)
    _check_columns(cursor)
    for table, time in _TIMES.items():
        days = (
            cursor.table(table)
            .filter(f"{time} < {_literal(before)}")
            .aggregate(
                f"{time}::DATE AS day, source_topic, source_partition, min(source_offset), "
                "max(source_offset) + 1"
            )
            .order("ALL")
            .fetchall()
        )
        for day, topic, partition, first, next_ in days:
            folder = Folder(table, day, topic, partition)
            archived = _archived(cursor, folder, root)
            for missing in _missing(ledger, archived, folder, (first, next_)):
                yield from _pieces(cursor, folder, missing, rows_max)


def _missing(
    ledger: Ledger, archived: RangeSet, folder: Folder, extent: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    """Ranges that the ledger covers and the files do not; each within one range of the ledger."""
    for first, next_ in ledger.of(folder.topic, folder.partition):
        yield from archived.missing(max(first, extent[0]), min(next_, extent[1]))


def _archived(cursor: duckdb.DuckDBPyConnection, folder: Folder, root: Path) -> RangeSet:
    """What the files of a folder answer for.

    Raises:
        Refuse: one is none of ours: of another program, or of another store's rows.
        Halt: one cannot be read, and would pass for rows that nobody has.
    """
    found = RangeSet()
    for path in sorted(folder.under(root).glob("*.parquet")):
        named = _NAME.fullmatch(path.stem)
        if named is None:
            fix = "move it away: readers would take it for archived rows"
            raise Refuse("archive.foreign", f"{path} is no file of this archive", fix)
        partition, first, next_ = map(int, named.groups())
        if partition == folder.partition:
            _check_file(path, _rows(cursor, folder, first, next_), _TIMES[folder.table])
            found.add(first, next_)
    return found


def _check_file(path: Path, stored: duckdb.DuckDBPyRelation, time: str) -> None:
    """A file must have every row that the store still has of its range."""
    columns = [name for name in ("source_offset", time, "id") if name in stored.columns]
    ours = stored.project(", ".join(columns)).order("source_offset").to_arrow_table()
    try:
        rows = pq.ParquetFile(path).read(columns)
        asked = ours["source_offset"].combine_chunks()
        theirs = rows.filter(pc.is_in(rows["source_offset"], asked)).sort_by("source_offset")
    except (pa.ArrowException, KeyError, OSError) as error:
        raise Halt(
            "archive.damaged",
            f"{path} cannot be read: {str(error).partition(chr(10))[0]}",
            "remove it: its rows are written again as far as the store still has them",
        ) from None
    if not all(theirs[name].equals(ours[name]) for name in columns):
        fix = "give each store a folder of its own"
        raise Refuse("archive.other", f"{path} has rows of another store", fix)


def _pieces(
    cursor: duckdb.DuckDBPyConnection, folder: Folder, range_: tuple[int, int], rows_max: int
) -> Iterator[Piece]:
    numbered = _rows(cursor, folder, *range_).project(
        f"source_offset, (row_number() OVER (ORDER BY source_offset) - 1) // {rows_max} AS piece"
    )
    bounds = numbered.aggregate(
        "min(source_offset), max(source_offset) + 1, count(*)", "piece"
    ).order("ALL")
    for first, next_, rows in bounds.fetchall():
        yield Piece(folder, first, next_, rows)


def _rows(
    cursor: duckdb.DuckDBPyConnection, folder: Folder, first: int, next_: int
) -> duckdb.DuckDBPyRelation:
    """Conditions on columns as they are, so that DuckDB skips row groups by their extremes."""
    time = _TIMES[folder.table]
    return cursor.table(folder.table).filter(
        f"source_topic = {literal(folder.topic)} AND source_partition = {folder.partition} "
        f"AND source_offset >= {first} AND source_offset < {next_} "
        f"AND {time} >= {_literal(folder.day)} AND {time} < {_literal(folder.day + _DAY)}"
    )


def _literal(day: date | None) -> str:
    return f"TIMESTAMPTZ '{day.isoformat()} 00:00:00Z'" if day else "TIMESTAMPTZ 'infinity'"


def _write_piece(cursor: duckdb.DuckDBPyConnection, piece: Piece, path: Path) -> None:
    rows = _rows(cursor, piece.folder, piece.first, piece.next).project("* EXCLUDE (source_topic)")
    written = _write(rows.to_arrow_reader(_READ_ROWS), path)
    if written != piece.rows:
        path.unlink()
        raise Halt(
            "archive.changed",
            f"{path.name} should have {piece.rows:,} rows and got {written:,}",
            "run `streamapp store verify`; what the ledger covers does not change",
        )


def _write(rows: pa.RecordBatchReader, path: Path) -> int:
    """Write a file and give it its name when it is on the disk; returns how many rows."""
    part = path.with_name(f".{path.name}.part")
    with as_files(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        count, held = 0, list[pa.RecordBatch]()
        with part.open("wb") as file:
            with pq.ParquetWriter(file, rows.schema, compression="zstd") as writer:
                for batch in rows:
                    held.append(batch)
                    count += batch.num_rows
                    if sum(one.num_rows for one in held) >= _GROUP_ROWS:
                        writer.write_table(pa.Table.from_batches(held))
                        held = []
                if held:
                    writer.write_table(pa.Table.from_batches(held))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync(path.parent)
    return count


def _write_provenance(cursor: duckdb.DuckDBPyConnection, root: Path) -> None:
    for (identity,) in cursor.execute("SELECT id FROM provenance ORDER BY id").fetchall():
        path = root / "provenance" / f"{identity:016x}.parquet"
        if not path.exists():
            found = cursor.sql("FROM provenance WHERE id = ?", params=[identity])
            _write(found.to_arrow_reader(_READ_ROWS), path)


def _write_answers(cursor: duckdb.DuckDBPyConnection, root: Path) -> bool:
    """Those that came since, as one file; they are numbered by their topic's offsets."""
    names = [path.stem for path in (root / "answers").glob("*.parquet")]
    done = max((int(name.partition("-")[2]) for name in names), default=0)
    new = cursor.sql("FROM answers WHERE log_offset >= ? ORDER BY log_offset", params=[done])
    first, last = new.aggregate("min(log_offset), max(log_offset)").fetchall()[0]
    if first is None:
        return False
    path = root / "answers" / f"{first:020d}-{last + 1:020d}.parquet"
    _write(new.to_arrow_reader(_READ_ROWS), path)
    return True


def _write_views(root: Path) -> None:
    there = (*_TIMES, "provenance", "answers")
    tables = [table for table in there if any((root / table).rglob("*.parquet"))]
    text = "".join(
        f"CREATE OR REPLACE VIEW archived_{table} AS\n    {read_back(root, table)};\n"
        for table in tables
    )
    path, part = root / "read.sql", root / ".read.sql.part"
    with as_files(path):
        part.write_text(text)
        part.replace(path)


def _check_columns(cursor: duckdb.DuckDBPyConnection) -> None:
    names = [str(row[0]) for row in cursor.execute("DESCRIBE events").fetchall()]
    if _DAY_KEY in (name.lower() for name in names):
        raise Refuse(
            "archive.column",
            f"a stage writes a column {_DAY_KEY!r}, which the archive's folders are named by",
            "give the stage's column another name",
        )
