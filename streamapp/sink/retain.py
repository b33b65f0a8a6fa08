"""Old rows dropped, and never stored again: the ledger goes on covering them.

:class:`Dropping` does it in DuckDB's file, and one of its name in :mod:`streamapp.sink.parquet`.
Here, what goes is whole runs of source offsets, the oldest first, in short transactions of the
writer: each deletes some ranges and writes them into table ``retained`` at once, so that a kill
between or within them leaves rows and ledger agreeing.  A DELETE from a table without indexes does
not keep DuckDB from checkpointing, whoever reads (an UPDATE does); the space becomes free when the
last reader that may still see the rows is done, and the next rows go there.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import duckdb
import pyarrow as pa

from streamapp.core import clock
from streamapp.core.errors import Halt, Refuse
from streamapp.core.ranges import OffsetRange
from streamapp.sink import recall, schema
from streamapp.sink.archive import archive
from streamapp.sink.store import Store
from streamapp.sink.verify import Window

#: Rows that a transaction deletes, and so how long the writer waits for it.
STEP_ROWS = 16_384
#: Ranges that a transaction deletes: where events came out of order, there are many small ones.
_STEP_RANGES = 64

#: Runs of old addresses without a younger one between them, in pieces.  A run stays within one
#: range of the ledger: a hole that is filled later is not part of it.
_RUNS = """
    WITH addresses AS (
        SELECT source_topic, source_partition, source_offset, ingest_time AS came, 0 AS dead
        FROM events
        UNION ALL
        SELECT source_topic, source_partition, source_offset, "timestamp", 1 FROM dead),
    marked AS (
        SELECT a.*, l."first" AS island, a.came < $before AS old,
               count(*) FILTER (a.came >= $before) OVER (
                   PARTITION BY source_topic, source_partition, island ORDER BY source_offset
               ) AS run
        FROM addresses AS a ASOF JOIN ledger AS l ON a.source_topic = l.topic
            AND a.source_partition = l."partition" AND a.source_offset >= l."first"
        WHERE a.source_offset < l."next"),
    numbered AS (
        SELECT *, (row_number() OVER (
            PARTITION BY source_topic, source_partition, island, run ORDER BY source_offset
        ) - 1) // $step AS piece FROM marked WHERE old)
    SELECT source_topic, source_partition, min(source_offset), max(source_offset) + 1,
           count(*) - sum(dead)::BIGINT, sum(dead)::BIGINT
    FROM numbered GROUP BY source_topic, source_partition, island, run, piece
    ORDER BY min(came), source_topic, source_partition, min(source_offset)"""
#: Rows that came in earlier are not in the dedup window that a restart would read back.
_WINDOW_START = """
    SELECT greatest(max(ingest_time) - to_seconds($span_s), (
        SELECT min(ingest_time) FROM (SELECT ingest_time FROM events ORDER BY {row} DESC
                                      LIMIT $events_max))) FROM events"""
#: The day of the nth newest row, and how many are of later days: nothing so large is sorted.
_DAY_OF = """
    SELECT day, newer FROM (
        SELECT day, sum(here) OVER (ORDER BY day DESC) - here AS newer
        FROM (SELECT ingest_time::DATE AS day, count(*) AS here FROM events GROUP BY day))
    WHERE newer < ? ORDER BY newer DESC LIMIT 1"""
_WITHIN = """
    SELECT ingest_time FROM events
    WHERE ingest_time >= ?::DATE AND ingest_time < ?::DATE + INTERVAL 1 DAY
    ORDER BY ingest_time DESC LIMIT 1 OFFSET ?"""
_DELETE_EVENTS = """DELETE FROM events WHERE source_topic = ? AND source_partition = ?
    AND source_offset >= ? AND source_offset < ?"""
_DELETE_DEAD = _DELETE_EVENTS.replace("events", "dead")
#: As many as there are: an event may have several answers, or none.
_DELETE_ANSWERS = _DELETE_EVENTS.replace("events", "answers")


class Run(NamedTuple):
    """A range to drop, with what is in it."""

    range: OffsetRange
    rows: int
    dead: int


class Bound(NamedTuple):
    """What came in before ``before`` goes; ``asked`` was later, within the dedup window."""

    before: datetime
    asked: datetime


class Retainable(Protocol):
    """An open store of either kind."""

    def reader(self) -> duckdb.DuckDBPyConnection:
        """A new cursor on it."""
        ...


class Droppable(Protocol):
    """How a store drops rows: all that is settled when this is made, in steps."""

    rows: int
    dead: int

    def __iter__(self) -> Iterator[Mapping[str, int]]:
        """Drop; ``{"at", "of"}`` before each step.  ``rows`` and ``dead`` count what is gone."""
        ...


def bound(
    store: Retainable,
    window: Window,
    *,
    days: int | None = None,
    before: datetime | None = None,
    keep_rows: int | None = None,
) -> Bound | None:
    """Where to cut, from one of the three; None when there is nothing to drop.

    Rows that the dedup window needs stay: a restart reads their ids back from the table.
    """
    cursor = store.reader()
    try:
        if days is not None:
            before = _days_ago(days)
        elif keep_rows is not None:
            before = _kept_from(cursor, keep_rows)
        if before is None:
            return None
        if not all(window):
            return Bound(before, before)
        names = {"span_s": window.dedup_window_s, "events_max": window.dedup_window_events}
        query = _WINDOW_START.format(row=_kind(store).row)
        ((start,),) = cursor.execute(query, names).fetchall()
        return Bound(before if start is None else min(start, before), before)
    finally:
        cursor.close()


def retain(
    store: Retainable,
    cut: Bound | None,
    *,
    archive_to: Path | None = None,
    step_rows: int | None = None,
) -> Iterator[Mapping[str, Any]]:
    """Drop every event and dead letter that came in before ``cut``.

    Args:
        store: open, with or without a writer at work.
        cut: see :func:`bound`; None drops nothing.
        archive_to: write them there first; nothing is dropped before all of it is on the disk.
        step_rows: rows of a step; None: as many as is good for the store.

    Yields:
        What :func:`archive` says, then ``{"at", "of"}`` in rows, then the result.
    """
    # What is dropped is settled before the archive: what comes in meanwhile is in other ranges.
    kind, steps = _kind(store), () if step_rows is None else (step_rows,)
    dropping = kind(store, cut.before, *steps) if cut else None
    archived: Mapping[str, Any] = {}
    if archive_to is not None:
        for said in archive(store.reader, archive_to, before=_day_after(cut)):
            archived = said
            if not said.get("done"):
                yield said
    if dropping:
        yield from dropping
    yield {"done": True, **_result(store, dropping, cut), **_only(archived, "folder", "files")}


def _kind(store: Retainable) -> Any:
    """What drops rows of this store."""
    if isinstance(store, Store):
        return Dropping
    from streamapp.sink.parquet import retain as parquet

    return parquet.Dropping


def _days_ago(days: int) -> datetime:
    try:
        return datetime.fromtimestamp(clock.now_us() / 1e6, UTC) - timedelta(days=days)
    except OverflowError:
        fix = "no event is that old: there is nothing to drop"
        raise Refuse("store.before", f"{days:,} days are before the first year", fix) from None


def _kept_from(cursor: duckdb.DuckDBPyConnection, rows: int) -> datetime | None:
    """When the oldest of the newest ``rows`` came in."""
    found: list[Any] = []
    if rows == 0:
        query = "SELECT max(ingest_time) + to_microseconds(1) FROM events"
        found = cursor.execute(query).fetchall()
    for day, newer in cursor.execute(_DAY_OF, [rows]).fetchall():
        found = cursor.execute(_WITHIN, [day, day, rows - 1 - int(newer)]).fetchall()
    return found[0][0] if found else None


class Dropping:
    """What came in before ``before`` and is in DuckDB's file now, dropped step by step.

    Args:
        store: open, with or without a writer at work.
        before: what came in earlier goes.
        step_rows: rows of a transaction.
    """

    #: The column that numbers rows in the order they were stored.
    row = "rowid"

    def __init__(self, store: Store, before: datetime, step_rows: int = STEP_ROWS) -> None:
        self._store = store
        self._before = before
        self._step_rows = step_rows
        with contextlib.closing(store.reader()) as cursor:
            rows = cursor.execute(_RUNS, {"before": before, "step": step_rows}).fetchall()
        self._runs = [Run(OffsetRange(*row[:4]), row[4], row[5]) for row in rows]
        self.rows = 0
        self.dead = 0

    def __iter__(self) -> Iterator[Mapping[str, int]]:
        """Drop; ``{"at", "of"}`` in rows dropped, before each step.

        Raises:
            Retry, Halt: as a store's ``write``; what was dropped before stays so.
        """
        total = sum(run.rows + run.dead for run in self._runs)
        for step in _steps(self._runs, self._step_rows):
            yield {"at": self.rows + self.dead, "of": total}
            _drop(self._store, step, self._before)
            self.rows += sum(run.rows for run in step)
            self.dead += sum(run.dead for run in step)
        if self._runs:
            self._store.checkpoint()


def _steps(runs: Sequence[Run], step_rows: int) -> Iterator[list[Run]]:
    step: list[Run] = []
    for run in runs:
        size = sum(one.rows + one.dead for one in step) + run.rows + run.dead
        if step and (size > step_rows or len(step) == _STEP_RANGES):
            yield step
            step = []
        step.append(run)
    if step:
        yield step


def _drop(store: Store, step: Sequence[Run], before: datetime) -> None:
    """One transaction: rows gone and said to be gone."""
    now = datetime.fromtimestamp(clock.now_us() / 1e6, UTC)
    said = [
        {**run.range._asdict(), "rows": run.rows, "dead": run.dead}
        | {"before": before, "retained_at": now}
        for run in step
    ]
    table = pa.Table.from_pylist(said, schema=schema.RETAINED)

    def work(writer: duckdb.DuckDBPyConnection) -> None:
        for run in step:
            for delete, expected in ((_DELETE_EVENTS, run.rows), (_DELETE_DEAD, run.dead)):
                ((deleted,),) = writer.execute(delete, list(run.range)).fetchall()
                if deleted != expected:
                    raise Halt(
                        "store.retain",
                        f"{run.range} has {deleted:,} rows and had {expected:,}",
                        "nothing of it was dropped; run `streamapp store verify`",
                    )
            writer.execute(_DELETE_ANSWERS, list(run.range)).fetchall()
        recall.insert(writer, "retained", table)

    store.exclusively(work)


def _day_after(cut: Bound | None) -> date | None:
    """Files hold whole days of what the ledger covers, so the day of the cut is written too."""
    if cut is None:
        return None
    newest = cut.before.astimezone(UTC) - timedelta(microseconds=1)
    return newest.date() + timedelta(days=1)


def _result(store: Retainable, dropped: Droppable | None, cut: Bound | None) -> dict[str, Any]:
    if cut is None or dropped is None:
        return {"rows": 0, "dead": 0, "before": None, "kept_for_dedup": 0}
    cursor = store.reader()
    try:
        ((kept,),) = cursor.execute(
            "SELECT count(*) FROM events WHERE ingest_time < ?", [cut.asked]
        ).fetchall()
    finally:
        cursor.close()
    return {
        "rows": dropped.rows,
        "dead": dropped.dead,
        "before": cut.before.astimezone(UTC).isoformat(),
        "kept_for_dedup": kept,
    }


def _only(step: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: step[name] for name in names if name in step}


def parse_before(text: str) -> datetime:
    """``2026-11-22``, or a time with its zone (UTC when it names none).

    Raises:
        Refuse: it is neither.
    """
    try:
        parsed = datetime.fromisoformat(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):  # the latter: before the first year, once it is in UTC
        raise Refuse(
            "store.before", f"{text!r} is no date", "write 2026-11-22, or 2026-11-22T13:00:00Z"
        ) from None
