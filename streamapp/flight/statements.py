"""Statements that run: each on a cursor of its own, in a read-only transaction, within limits.

One watcher thread looks at all of them 20 times a second, since a blocking query yields nothing
that could notice a deadline or a client that went away.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import duckdb
import pyarrow as pa

from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Refuse, Retry, StreamappError
from streamapp.flight import guard
from streamapp.flight.complaints import refusal

_LOOK_EVERY_S = 0.05
_BATCH_ROWS = 8192
#: Behind a batch of this size the next one is read while it is sent; a thread costs 50 us.
_AHEAD_BYTES_MIN = 1 << 20
#: How long statements that are interrupted may take to end when the server stops.
_CLOSE_S_MAX = 5.0
#: Has ready what a statement that calls these functions needs; calls back between its pieces.
Prepare = Callable[[frozenset[str], Callable[[], None]], None]

Parameters = Sequence[Any] | Mapping[str, Any] | None
Tables = Mapping[str, pa.Table]
_NO_TABLES: Tables = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client statement, and all of them together, may take.

    ``batch_bytes_max`` stays below the 16 MiB that ADBC's driver takes as one message.  A row alone
    may be larger, up to ``row_bytes_max``: gRPC copies a message several times.
    ``seconds_max`` counts from the start until the client has the last row, because a statement
    that is open keeps old rows alive.
    """

    rows_max: int = 10_000_000
    seconds_max: float = 60.0
    batch_bytes_max: int = 8 << 20
    row_bytes_max: int = 64 << 20
    statements_max: int = 8
    wait_seconds_max: float = 5.0


class Statement:
    """One statement on its cursor: what its answer reads from and what the watcher looks at."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        limits: Limits,
        is_cancelled: Callable[[], bool],
        on_close: Callable[["Statement"], None],
    ) -> None:
        self._cursor = cursor
        self._limits = limits
        self._deadline_s = monotonic_s() + limits.seconds_max
        self._is_cancelled: Callable[[], bool] | None = is_cancelled
        self._on_close = on_close
        self._work = threading.Lock()  # held while DuckDB works for this statement
        self._look = threading.Lock()  # held while the watcher asks about the call
        self._stopped: StreamappError | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._rows = 0
        self.schema: pa.Schema = pa.schema([])

    def start(
        self,
        sql: str,
        parameters: Parameters,
        *,
        execute: bool,
        tables: Tables = _NO_TABLES,
        prepare: Prepare = lambda _functions, _check: None,
    ) -> None:
        """Check and bind; and begin to execute unless only the schema is wanted.

        ``tables`` are there for this statement beside the store's.

        Raises:
            Refuse: the statement is not allowed, or DuckDB refuses it, or it needs too much.
            Retry: the client has cancelled.
        """
        with self._work:
            try:
                tree = guard.check(self._cursor, sql)
                if execute:  # nothing interrupts Python inside DuckDB
                    prepare(guard.functions(tree), self._check)
                for name, table in tables.items():
                    self._cursor.register(name, table)
                self._cursor.execute("BEGIN TRANSACTION READ ONLY").fetchall()
                relation = self._cursor.sql(sql, params=parameters)
                if execute:
                    reader = relation.to_arrow_reader(_BATCH_ROWS)
                else:
                    reader = relation.limit(0).to_arrow_reader(_BATCH_ROWS)
                self.schema = _plain_schema(reader.schema, relation.columns)
                self._batches = self._cut(reader)
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                raise self._stopped or refusal(error) from None

    def next(self) -> pa.RecordBatch | None:
        """The next batch; None after the last.

        Raises:
            Refuse: as ``start``; or the answer has too many rows, or takes too long.
            Retry: the client has cancelled.
        """
        with self._work:
            if self._stopped:
                raise self._stopped
            try:
                return next(self._batches, None)
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                raise self._stopped or refusal(error) from None

    def close(self) -> None:
        """Let go of the cursor, also while it works; its transaction ends."""
        with self._look:
            self._is_cancelled = None
        if not self._work.acquire(blocking=False):
            self._interrupt()
            while not self._work.acquire(timeout=_LOOK_EVERY_S):
                self._interrupt()  # the one before came too early
        try:
            self._let_go()
        finally:
            self._work.release()

    def look(self) -> None:
        """The watcher's visit: stop what is late, or whose client is gone."""
        with self._look:  # the call outlives this statement only while it is held
            cancelled = self._is_cancelled is not None and self._is_cancelled()
        if cancelled:
            self.stop(Retry("sql.cancelled", "the client has cancelled"))
        elif monotonic_s() > self._deadline_s:
            self.stop(
                Refuse(
                    "sql.time",
                    f"the statement took longer than {self._limits.seconds_max:g} s",
                    "ask for less: a time range, an aggregate, a LIMIT",
                )
            )

    def stop(self, reason: StreamappError) -> None:
        """Interrupt DuckDB; or, when it is the client that does not read, let go of the cursor."""
        self._stopped = self._stopped or reason
        self._interrupt()
        if self._work.acquire(blocking=False):
            try:
                self._let_go()
            finally:
                self._work.release()

    def _check(self) -> None:
        if self._stopped:
            raise self._stopped

    def _interrupt(self) -> None:
        with contextlib.suppress(duckdb.ConnectionException):  # it has been closed meanwhile
            self._cursor.interrupt()

    def _let_go(self) -> None:
        self._batches = iter(())
        self._cursor.close()
        self._on_close(self)

    def _cut(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        """Batches small enough for one message, until there are too many rows."""
        try:
            for batch in reader:
                self._rows += batch.num_rows
                if self._rows > self._limits.rows_max:
                    raise Refuse(
                        "sql.rows",
                        f"the answer has more than {self._limits.rows_max:,} rows",
                        "add a LIMIT, or read a time range at a time",
                    )
                yield from _sliced(_plain(batch, self.schema), self._limits)
        finally:
            reader.close()


class Answer(Iterator[pa.RecordBatch]):
    """The batches of one statement's answer; of large ones the next is read while one is sent.

    Flight lets go of it without a word when it was sent, or when the client is gone, and the call's
    context dies next.  So nobody else may keep a reference, and the statement is closed with it.
    """

    def __init__(self, statement: Statement, pool: ThreadPoolExecutor) -> None:
        self._statement = statement
        self._pool = pool
        self._ahead: Future[pa.RecordBatch | None] | None = None
        self.schema = statement.schema

    def __next__(self) -> pa.RecordBatch:
        """The next batch; raises as :meth:`Statement.next` does."""
        ahead, self._ahead = self._ahead, None
        batch = ahead.result() if ahead else self._statement.next()
        if batch is None:
            raise StopIteration
        if batch.nbytes >= _AHEAD_BYTES_MIN:
            self._ahead = self._pool.submit(self._statement.next)
        return batch

    def close(self) -> None:
        """Stop reading."""
        self._statement.close()

    def __del__(self) -> None:
        self._statement.close()


class Statements:
    """Everything that runs for clients.

    Args:
        reader: a new cursor on the store; may raise Retry.
        limits: for one statement and for all.
        prepare: has ready what a statement needs, within its limits.
    """

    def __init__(
        self,
        reader: Callable[[], duckdb.DuckDBPyConnection],
        limits: Limits,
        prepare: Prepare = lambda _functions, _check: None,
    ) -> None:
        self._reader = reader
        self._prepare = prepare
        self.limits = limits
        self._places = threading.BoundedSemaphore(limits.statements_max)
        self._running: set[Statement] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._emptied = threading.Event()
        self._watcher = threading.Thread(
            target=self._watch, name="streamapp-flight-watcher", daemon=True
        )
        self._watcher.start()
        self._pool = ThreadPoolExecutor(limits.statements_max, "streamapp-flight-ahead")

    def schema(
        self, sql: str, parameters: Parameters = None, is_cancelled: Callable[[], bool] = bool
    ) -> pa.Schema:
        """What a statement would answer; nothing is executed."""
        statement = self._open(is_cancelled)
        try:
            statement.start(sql, parameters, execute=False)
            return statement.schema
        finally:
            statement.close()

    def run(
        self,
        sql: str,
        parameters: Parameters = None,
        is_cancelled: Callable[[], bool] = bool,
        tables: Tables = _NO_TABLES,
    ) -> Answer:
        """Begin a statement; close what is returned, or let go of it.

        Raises:
            Refuse: the statement is not allowed, wrong, or needs too much.
            Retry: too many run already, or the store is closed.
        """
        statement = self._open(is_cancelled)
        try:
            statement.start(sql, parameters, execute=True, tables=tables, prepare=self._prepare)
        except BaseException:
            statement.close()
            raise
        return Answer(statement, self._pool)

    def __len__(self) -> int:
        """How many run now."""
        return len(self._running)

    def close(self) -> None:
        """Stop all of them, and take no more."""
        self._closing.set()
        self._watcher.join()
        deadline_s = monotonic_s() + _CLOSE_S_MAX
        while (running := self._snapshot()) and monotonic_s() < deadline_s:
            for statement in running:
                statement.stop(Retry("flight.closing", "the server is stopping", "try again"))
            self._emptied.wait(_LOOK_EVERY_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, is_cancelled: Callable[[], bool]) -> Statement:
        if self._closing.is_set():
            raise Retry("flight.closing", "the server is stopping", "try again")
        if not self._places.acquire(timeout=self.limits.wait_seconds_max):
            raise Retry(
                "flight.busy",
                f"{self.limits.statements_max} statements are running already",
                "try again when one has ended",
            )
        try:
            statement = Statement(self._reader(), self.limits, is_cancelled, self._closed)
        except BaseException:
            self._places.release()
            raise
        with self._lock:
            self._running.add(statement)
            self._emptied.clear()
        return statement

    def _closed(self, statement: Statement) -> None:
        with self._lock:
            if statement in self._running:
                self._running.remove(statement)
                self._places.release()
                if not self._running:
                    self._emptied.set()

    def _watch(self) -> None:
        while not self._closing.wait(_LOOK_EVERY_S):
            for statement in self._snapshot():
                statement.look()

    def _snapshot(self) -> list[Statement]:
        with self._lock:
            return list(self._running)


def _plain_schema(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """Enums as strings: Flight's stream cannot send dictionaries (apache/arrow#38480).

    Names are the statement's: under a LIMIT, DuckDB gives columns of one name different ones.
    """
    kinds = [field.with_type(_plain_type(field.type)) for field in schema]
    return pa.schema([field.with_name(name) for field, name in zip(kinds, names, strict=True)])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_nested(kind) and "dictionary<" in str(kind):
        raise Refuse("sql.invalid", "an ENUM inside a list or struct cannot be sent", "cast it")
    return kind


def _plain(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    if batch.schema.equals(schema):
        return batch
    arrays = [column.cast(field.type) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _sliced(batch: pa.RecordBatch, limits: Limits) -> Iterator[pa.RecordBatch]:
    """Slices of at most ``batch_bytes_max``, or of one row when that alone is larger."""
    if batch.nbytes <= limits.batch_bytes_max:
        yield batch
        return
    if batch.num_rows <= 1:
        if batch.nbytes > limits.row_bytes_max:
            raise Refuse(
                "sql.row_bytes",
                f"a row of the answer has {batch.nbytes:,} bytes, "
                f"{limits.row_bytes_max:,} are sent at most",
                "ask for rows, not for a list of them",
            )
        yield batch
        return
    middle = batch.num_rows // 2
    yield from _sliced(batch.slice(0, middle), limits)
    yield from _sliced(batch.slice(middle), limits)
