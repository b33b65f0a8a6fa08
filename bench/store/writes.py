"""The sink beside others that store the same rows: they take turns, some transactions each.

All are durable when a turn ends, and all are handed the same rows, as many in a transaction.  The
sink gets them as decoded batches and looks for repeats; the store agent gets the log's records and
decodes them, too; the others get the Arrow table that ours makes of them and look for nothing.
"""

import asyncio
import contextlib
import itertools
import os
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from store.records import decoded, encoded, enrichment

from streamapp.agents.store import StoreAgent
from streamapp.core.metrics import Metrics
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.sink import Store, StoredRecord
from streamapp.sink.schema import CORE_FIELDS


class Transaction(NamedTuple):
    """The same rows: as the log has them, decoded, and as they end up in table ``events``."""

    records: Sequence[Record]
    batches: Sequence[StoredRecord]
    table: pa.Table


Take = Callable[[Sequence[Transaction]], None]
#: As records come from a worker: many rows each when there are many.
RECORD_ROWS_MAX = 256
#: Turns that do not count.
WARM_UP = 1


@contextlib.contextmanager
def sink(folder: Path) -> Iterator[Take]:
    """``Store.write`` of decoded batches: dedup, Ledger, position and all."""
    with Store.open(str(folder / "sink.duckdb"), columns=enrichment().columns) as store:

        def take(transactions: Sequence[Transaction]) -> None:
            for _, batches, table in transactions:
                _check(store.write(batches).rows, table)

        yield take


@contextlib.contextmanager
def agent(folder: Path) -> Iterator[Take]:
    """The store agent, handed Slices as Faust does; it decodes the next while it writes one."""
    store = Store.open(str(folder / "agent.duckdb"), columns=enrichment().columns)
    told: list[int] = []
    store.subscribe(lambda rows, _: told.append(rows.num_rows))
    with asyncio.Runner() as runner:
        stream, working = Stream(), runner.run(_agent(store))

        async def store_all(transactions: Sequence[Transaction]) -> None:
            body = asyncio.ensure_future(working.run(stream))
            slices = [Event(records) for records, _, _ in transactions]
            for event in slices:
                stream.queue.put_nowait(event)
            for event in slices:
                await event.acked.wait()
            body.cancel()

        def take(transactions: Sequence[Transaction]) -> None:
            told.clear()
            runner.run(store_all(transactions))
            _check(sum(told), *(table for _, _, table in transactions))

        yield take
        runner.run(working.stop())


async def _agent(store: Store) -> StoreAgent:
    made = StoreAgent(
        lambda: store, lambda _: lambda: None, Metrics(), lambda: 1, flush_rows=1, flush_ms_max=0
    )
    await made.open()
    return made


class Event:
    """A Slice as Faust delivers it."""

    generation_id = 1

    def __init__(self, records: Sequence[Record]) -> None:
        range_ = OffsetRange("events.enriched", 0, records[0].offset, records[-1].offset + 1)
        self.value = Slice(range_, list(records))
        self.message = self
        self.acked = asyncio.Event()

    def ack(self) -> bool:
        self.acked.set()
        return True


class Stream:
    """Hands out what is put into its queue."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Event] = asyncio.Queue()

    def noack(self) -> "Stream":
        return self

    async def events(self) -> AsyncIterator[Event]:
        while True:
            yield await self.queue.get()


@contextlib.contextmanager
def _bare(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB as a careful user has it: our table, small row groups."""
    Store.open(str(path), columns=enrichment().columns).close()  # the same columns and types
    with duckdb.connect() as root:
        root.execute("SET TimeZone = 'UTC'")
        root.execute(f"ATTACH '{path}' AS db (ROW_GROUP_SIZE 2048)")
        root.execute("USE db")
        yield root


@contextlib.contextmanager
def bare_duckdb(folder: Path) -> Iterator[Take]:
    """One transaction for each table, by the statement that DuckDB's documentation has for it."""
    with _bare(folder / "bare.duckdb") as root:

        def take(transactions: Sequence[Transaction]) -> None:
            for _, _, table in transactions:
                root.begin()
                root.register("incoming", table)
                root.execute("INSERT INTO events BY NAME FROM incoming")
                root.unregister("incoming")
                root.commit()

        yield take


class _Incoming:
    """Whatever table it has when DuckDB runs a query over it."""

    table: pa.Table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


@contextlib.contextmanager
def planned_duckdb(folder: Path) -> Iterator[Take]:
    """The same by a prepared statement: DuckDB plans it once, which its users can have, too."""
    with _bare(folder / "planned.duckdb") as root:
        incoming = _Incoming()

        def take(transactions: Sequence[Transaction]) -> None:
            for _, _, table in transactions:
                is_first, incoming.table = not hasattr(incoming, "table"), table
                if is_first:
                    root.register("incoming", incoming)
                    root.execute("PREPARE ins AS INSERT INTO events BY NAME FROM incoming")
                root.begin()
                root.execute("EXECUTE ins")
                root.commit()

        yield take


@contextlib.contextmanager
def sqlite(folder: Path) -> Iterator[Take]:
    """SQLite in WAL mode, a BLOB for each vector; durable on power loss (FULL) as DuckDB is."""
    db = sqlite3.connect(folder / "rows.sqlite", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    names = ", ".join(f'"{field.name}"' for field in CORE_FIELDS)
    names += "".join(f', "{name}"' for name in enrichment().columns)
    db.execute(f"CREATE TABLE events ({names})")

    def take(transactions: Sequence[Transaction]) -> None:
        for _, _, table in transactions:
            columns = [_sqlite_column(column) for column in table.columns]
            marks = ", ".join("?" * table.num_columns)
            db.execute("BEGIN")
            db.executemany(f"INSERT INTO events VALUES ({marks})", zip(*columns, strict=True))
            db.execute("COMMIT")

    with contextlib.closing(db):
        yield take


def _sqlite_column(column: pa.ChunkedArray) -> Sequence[Any]:
    kind = column.type
    if pa.types.is_fixed_size_list(kind):
        width, array = kind.list_size * 4, column.combine_chunks()
        flat = memoryview(pa.array(array.values).to_numpy(zero_copy_only=False)).cast("B")
        start = array.offset * width
        return [bytes(flat[start + n * width : start + (n + 1) * width]) for n in range(len(array))]
    if pa.types.is_timestamp(kind):
        return column.cast(pa.int64()).to_pylist()
    if kind == pa.uint64():  # SQLite's integers have a sign
        return column.combine_chunks().view(pa.int64()).to_pylist()
    return column.to_pylist()


@contextlib.contextmanager
def parquet(folder: Path) -> Iterator[Take]:
    """A Parquet file (zstd) for each table: written, synced, renamed, and its folder synced."""
    place = folder / "parquet"
    place.mkdir()
    number = itertools.count()
    directory = os.open(place, os.O_RDONLY)

    def take(transactions: Sequence[Transaction]) -> None:
        for _, _, table in transactions:
            new = place / f"{next(number)}.new"
            with new.open("wb") as file:
                pq.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            new.rename(new.with_suffix(".parquet"))
            os.fsync(directory)

    try:
        yield take
    finally:
        os.close(directory)


CONTENDERS = {
    "sink": sink,
    "agent": agent,
    "duckdb": bare_duckdb,
    "planned": planned_duckdb,
    "sqlite": sqlite,
    "parquet": parquet,
}


class Spent(TypedDict):
    """Of one transaction, by turn."""

    ms: list[float]
    cpu_ms: list[float]  # in all threads


def measure(rows: int, transactions: int, turns: int) -> dict[str, Spent]:
    """What a transaction of ``rows`` takes, in turns of some transactions.

    Everyone has one turn in each round, and each round begins with another.
    """
    found: dict[str, Spent] = {name: {"ms": [], "cpu_ms": []} for name in CONTENDERS}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        takes = {
            name: stack.enter_context(contender(folder)) for name, contender in CONTENDERS.items()
        }
        work = _transactions(rows, stack)
        names = list(CONTENDERS)
        for number in range(WARM_UP + turns):
            given = list(itertools.islice(work, transactions))
            first = number % len(names)
            for name in names[first:] + names[:first]:
                cpu_s, started_s = time.process_time(), time.perf_counter()
                takes[name](given)
                spent_s = time.perf_counter() - started_s, time.process_time() - cpu_s
                if number >= WARM_UP:
                    for kind, seconds in zip(("ms", "cpu_ms"), spent_s, strict=True):
                        found[name][kind].append(round(seconds * 1000 / transactions, 4))
    return found


def _transactions(rows: int, stack: contextlib.ExitStack) -> Iterator[Transaction]:
    store = stack.enter_context(Store.open(":memory:", columns=enrichment().columns))
    made: list[pa.Table] = []
    store.subscribe(lambda table, _: made.append(table))
    per_record = min(rows, RECORD_ROWS_MAX)
    log = encoded(per_record)
    while True:
        records = list(itertools.islice(log, rows // per_record))
        batches = decoded(records)
        store.write(batches)
        yield Transaction(records, batches, made.pop())


def _check(stored: int, *tables: pa.Table) -> None:
    given = sum(table.num_rows for table in tables)
    if stored != given:
        raise AssertionError(f"{stored} rows of {given} were stored")
