"""A new store out of the enriched topic, made beside the old one and put in its place when whole.

No model runs: the topic has every row.  The new file is a store from its first transaction, so a
rebuild that was killed goes on where it was.  What was dropped on purpose (``retain``) stays
dropped.  Until the last step, one rename, the old store is where it was, as it was; its file is
kept under another name by a hard link, which costs nothing.
"""

import asyncio
import contextlib
import fcntl
import heapq
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from streamapp.core import clock
from streamapp.core.errors import Refuse
from streamapp.core.files import sync
from streamapp.core.ranges import Ledger, OffsetRange
from streamapp.core.slice import RecordLike
from streamapp.sink import keep, recall, schema
from streamapp.sink.intake import StoredRecord
from streamapp.sink.store import Store
from streamapp.sink.verify import Window, failure, verify
from streamapp.topics.enriched import cover_of, decode
from streamapp.transport import Reader as LogReader

#: What a rebuild writes, and where the old file goes.
NEW, OLD = ".rebuild", ".before-rebuild"
_LISTED_MAX = 20
_READ_BYTES_MAX = 2 << 20
#: Rows of one transaction of the new store.
_ROWS_AT_ONCE = 4 * schema.ROW_GROUP_ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The enriched topic, and how to read it.

    ``columns`` are those of the workflow; those that only the old store has are added.
    """

    reader: LogReader
    topic: str
    partitions: int
    columns: Mapping[str, pa.DataType]
    window: Window


@dataclass(slots=True)
class _Old:
    """What the old store says, as far as it can be read."""

    ledger: Ledger = field(default_factory=Ledger)
    retained: pa.Table | None = None
    columns: Mapping[str, pa.DataType] = field(default_factory=dict)
    exists: bool = True
    why_not: str = ""


@dataclass(slots=True)
class _Gone:
    """Where each partition of the topic begins, and which source offsets that leaves out.

    ``unknown`` are ranges of the topic itself, where nothing is left to say what they held.
    """

    begins: list[int] = field(default_factory=list)
    ranges: list[OffsetRange] = field(default_factory=list)
    unknown: list[OffsetRange] = field(default_factory=list)


async def rebuild(
    path: Path, source: Source, *, accept_gap: bool = False, replace: bool = False
) -> AsyncGenerator[Mapping[str, Any], None]:
    """Make the store at ``path`` anew.

    Args:
        path: the store's file; it may be missing or damaged.
        source: where the rows are; its reader is started.
        accept_gap: go on although the topic's beginning is gone, and count the loss in the ledger.
        replace: keep nothing of the old file.

    Yields:
        ``{"at", "of"}`` in enriched records, the checks of the verification, the result.

    Raises:
        Refuse: the store runs, or the topic's beginning is gone (it says which source ranges).
        Retry: the log does not answer, or the disk is full; run it again to go on.
        Reject, Halt: the new store is not sound; the old one is where it was.
    """
    path = await asyncio.to_thread(path.resolve)  # a link stays one, and the store on its disk
    new = path.with_name(path.name + NEW)
    with contextlib.ExitStack() as stack:
        stack.enter_context(keep.alone(new))
        old = await asyncio.to_thread(_look, path)
        stack.enter_context(_locked(path))
        gone = await _gone(source, old)
        if (gone.ranges or gone.unknown) and not accept_gap:
            raise _gap(source.topic, gone)
        columns = {**old.columns, **source.columns}
        with _open(new, columns, source, old, gone) as store:
            async for step in _fill(store, source):
                yield step
        report: Mapping[str, Any] = {}
        with keep.opened(str(new)) as read, contextlib.closing(read()) as cursor:
            for report in verify(cursor, source.window):
                if not report.get("done"):
                    yield report
        if error := failure(report, str(new)):
            raise error
        (_swap if old.exists else _place)(new, path)
    if replace:
        for left in (old_file(path), Path(f"{old_file(path)}.wal")):
            left.unlink(missing_ok=True)
    kept = str(old_file(path)) if old.exists and not replace else None
    lost = [str(range_) for range_ in (*gone.ranges, *gone.unknown)]
    yield {**report, "store": str(path), "kept": kept, "gone": lost, "old": old.why_not}


def old_file(path: Path) -> Path:
    """Where a rebuild keeps the store that it took the place of."""
    return path.with_name(path.name + OLD)


def _look(path: Path) -> _Old:
    """Bring the old store's WAL into its file, and read what it says of the past."""
    if not path.exists():
        return _Old(exists=False, why_not="there was none")
    try:
        with Store.open(str(path), columns={}, dedup_window_events=0) as store:
            cursor = store.reader()
            try:
                retained = cursor.sql("FROM retained").to_arrow_table()
                stored = cursor.sql("SELECT * FROM events LIMIT 0").to_arrow_table().schema
            finally:
                cursor.close()
            core = {one.name for one in schema.CORE_FIELDS}
            columns = {one.name: one.type for one in stored if one.name not in core}
            return _Old(store.ledger, retained, columns)
    except Refuse as refusal:
        if refusal.code == "store.locked":
            fix = "stop the store's process first"
            raise Refuse(refusal.code, refusal.message, fix) from None
        if refusal.code in {"store.foreign", "store.path"}:
            raise
        return _Old(why_not=refusal.message)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold DuckDB's own lock on the old file: no store starts on it before it is replaced."""
    if not path.exists():
        yield
        return
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refuse(
                "store.locked", f"{path} is open in another process", "stop the store first"
            ) from None
        yield


async def _gone(source: Source, old: _Old) -> _Gone:
    """What was enriched and is no more in the topic, but for what was retained."""
    covered = Ledger(_retained(old))
    gone = _Gone()
    for partition in range(source.partitions):
        begin, _ = await source.reader.bounds(source.topic, partition)
        gone.begins.append(begin)
        if begin == 0:
            continue
        slice_ = await source.reader.read(source.topic, partition, begin, records_max=1)
        ends = dict(_ends(slice_.records, old, partition))
        if not ends:
            gone.unknown.append(OffsetRange(source.topic, partition, 0, begin))
        for (topic, source_partition), next_ in ends.items():
            for hole in covered.of(topic, source_partition).missing(0, next_):
                gone.ranges.append(OffsetRange(topic, source_partition, *hole))
    return gone


def _ends(
    first: Sequence[RecordLike], old: _Old, partition: int
) -> Iterator[tuple[tuple[str, int], int]]:
    """(Source topic, partition) and the offset before which the topic says nothing any more.

    Enriched partition p holds source partition p.
    """
    for range_ in old.ledger:
        if range_.partition == partition:
            yield (range_.topic, partition), old.ledger.of(range_.topic, partition).end
    for record in first:
        cover = cover_of(record)
        yield (cover.topic, cover.partition), cover.first


def _retained(old: _Old) -> list[OffsetRange]:
    rows = old.retained.to_pylist() if old.retained is not None else []
    return [OffsetRange(row["topic"], row["partition"], row["first"], row["next"]) for row in rows]


def _gap(topic: str, gone: _Gone) -> Refuse:
    listed = [*map(str, gone.ranges), *(f"whatever {range_} held" for range_ in gone.unknown)]
    more = f" and {len(listed) - _LISTED_MAX} more" if len(listed) > _LISTED_MAX else ""
    return Refuse(
        "rebuild.gap",
        f"the beginning of {topic} is gone (its retention); these source offsets would not be "
        f"stored again: {', '.join(listed[:_LISTED_MAX])}{more}",
        "keep the old store, or add --accept-gap: an archive or a backup may have them",
    )


@contextlib.contextmanager
def _open(
    new: Path, columns: Mapping[str, pa.DataType], source: Source, old: _Old, gone: _Gone
) -> Iterator[Store]:
    """The new store.  A fresh one begins with what is not to be stored again."""

    def opened() -> Store:
        return Store.open(str(new), columns=columns, **source.window._asdict())

    if not _goes_on(new, columns, source, old, gone):
        for path in (new, Path(f"{new}.wal")):
            path.unlink(missing_ok=True)
        with opened() as store:
            store.exclusively(_seed(source, old, gone))
    with opened() as store:  # which reads the ledger
        yield store


def _goes_on(
    new: Path, columns: Mapping[str, pa.DataType], source: Source, old: _Old, gone: _Gone
) -> bool:
    """Is there a rebuild that was killed, which fits?

    It does when it has these columns, began without all that was dropped until now, and the topic
    still has what follows it.
    """
    try:
        with keep.opened(str(new)) as read, contextlib.closing(read()) as cursor:
            names = {str(row[0]) for row in cursor.execute("DESCRIBE events").fetchall()}
            known = recall.read_positions(cursor)
            began_without = _ranges(cursor.sql("FROM retained").to_arrow_table())
    except Refuse as refusal:
        if refusal.code == "store.locked":
            raise
        return False
    at = [known.get((source.topic, partition), 0) for partition in range(source.partitions)]
    fits = names >= set(columns) and began_without == _ranges(old.retained)
    return fits and all(map(int.__le__, gone.begins, at))


def _ranges(retained: pa.Table | None) -> set[tuple[Any, ...]]:
    names = ["topic", "partition", "first", "next"]
    rows = [] if retained is None else retained.select(names).to_pylist()
    return {tuple(row.values()) for row in rows}


def _seed(source: Source, old: _Old, gone: _Gone) -> Callable[[duckdb.DuckDBPyConnection], None]:
    now = {"stored_at": datetime.fromtimestamp(clock.now_us() / 1e6, UTC)}
    ranges = [{**one._asdict(), "lost": one.size, "rows": 0, **now} for one in gone.ranges]
    for row in old.retained.to_pylist() if old.retained is not None else []:
        kept = {name: row[name] for name in ("topic", "partition", "first", "next", "rows")}
        ranges.append({**kept, "lost": 0, **now})
    positions = [
        {"topic": source.topic, "partition": partition, "next": begin, **now}
        for partition, begin in enumerate(gone.begins)
    ]

    def work(writer: duckdb.DuckDBPyConnection) -> None:
        recall.insert(writer, "ledger", pa.Table.from_pylist(ranges, schema=schema.LEDGER))
        recall.insert(writer, "position", pa.Table.from_pylist(positions, schema=schema.POSITION))
        if old.retained is not None:
            recall.insert(writer, "retained", old.retained)

    return work


async def _fill(store: Store, source: Source) -> AsyncIterator[Mapping[str, Any]]:
    """Store everything that the topic has now, in the order it was published."""
    bounds = [await source.reader.bounds(source.topic, p) for p in range(source.partitions)]
    of = sum(end - begin for begin, end in bounds)
    known = store.positions()
    starts = [
        max(begin, known.get((source.topic, partition), 0))
        for partition, (begin, _) in enumerate(bounds)
    ]
    at = sum(start - begin for start, (begin, _) in zip(starts, bounds, strict=True))
    held: list[StoredRecord] = []
    ends = [end for _, end in bounds]
    yield {"at": at, "of": of}
    async for partition, record in _merged(source, starts, ends):
        held.append(StoredRecord(decode(record), source.topic, partition, record.offset + 1))
        at += 1
        if sum(one.enriched.rows.num_rows for one in held) >= _ROWS_AT_ONCE:
            await asyncio.to_thread(store.write, held)
            held = []
            yield {"at": at, "of": of}
    await asyncio.to_thread(store.write, held)


async def _merged(
    source: Source, starts: Sequence[int], ends: Sequence[int]
) -> AsyncIterator[tuple[int, RecordLike]]:
    """Records of all partitions by their time, as the dedup window first saw them."""
    streams = [
        _records(source, partition, start, end)
        for partition, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
    heap: list[tuple[int, int, RecordLike]] = []
    for partition, stream in enumerate(streams):
        async for record in stream:
            heap.append((record.timestamp, partition, record))
            break
    heapq.heapify(heap)
    while heap:
        _, partition, record = heap[0]
        yield partition, record
        following = await anext(streams[partition], None)
        if following is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (following.timestamp, partition, following))


async def _records(
    source: Source, partition: int, start: int, end: int
) -> AsyncIterator[RecordLike]:
    at = start
    while at < end:
        slice_ = await source.reader.read(source.topic, partition, at, bytes_max=_READ_BYTES_MAX)
        if not slice_.records:
            return  # what is left are the log's own records
        for record in slice_.records:
            if record.offset < end:
                yield record
        at = slice_.range.next


def _place(new: Path, path: Path) -> None:
    """Put the new file where none was."""
    try:
        os.link(new, path)
    except FileExistsError:
        fix = f"stop its process and rebuild again; {new} is whole"
        raise Refuse("store.locked", f"a store was made at {path} meanwhile", fix) from None
    new.unlink()
    sync(path.parent)


def _swap(new: Path, path: Path) -> None:
    """Put the new file in the old one's place by one rename, the old one beside it."""
    kept, wal = old_file(path), Path(f"{path}.wal")
    kept_wal = Path(f"{kept}.wal")
    for left in (kept, kept_wal):
        left.unlink(missing_ok=True)
    os.link(path, kept)
    if wal.exists():  # only a store that cannot be opened has one now
        wal.replace(kept_wal)
    new.replace(path)
    sync(path.parent)
