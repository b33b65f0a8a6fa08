"""New rows as they are stored: ``DoGet`` of a live ticket, without gap and without duplicate.

Each partition's rows come in offset order.  A subscriber starts behind: it reads from the table, a
chunk at a time in transactions of their own, until it stands where the store does; from then on
it takes each commit from its queue, if the commit begins where the one before ended.  When it does
not (the subscriber was slow, or a range came early), it is behind again.
"""

import contextlib
import json
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence

import duckdb
import pyarrow as pa

from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Refuse, Retry
from streamapp.core.ranges import RangeSet
from streamapp.core.sql import quoted
from streamapp.flight.border import short
from streamapp.flight.feed import BehindError, Commit, Feed, Partition, Queue
from streamapp.flight.following import ADDRESS, Following, check_condition
from streamapp.flight.statements import Statements, Tables

_CHUNK_ROWS = 512
_CHUNK_BYTES = 8 << 20
_LOOK_EVERY_S = 0.2
#: An empty batch says where a silent stream stands, and finds out that its client is gone.
_SIGN_EVERY_S = 5.0
_PARTITIONS_NAMED = 8
_JUST_STORED = "just_stored"
_COLUMNS_SQL = """
    SELECT column_name, data_type FROM duckdb_columns()
    WHERE database_name = current_database() AND table_name = 'events'
      AND column_name <> 'stored_order' ORDER BY column_index"""
_RETAINED_SQL = """
    SELECT max(next) FROM retained WHERE topic = ? AND "partition" = ? AND next > ?"""

Windows = dict[Partition, tuple[int, int]]
#: Rows, and where to go on after them: JSON ``{"next": {"events.raw-0": 17}, "behind": false}``.
Sent = tuple[pa.RecordBatch, pa.Buffer]


class Subscription(Iterator[Sent]):
    """What one client gets, for ever; it ends with the last reference to it.

    Flight lets go of it without a word when the client is gone, so nobody else may keep one.
    """

    def __init__(self, follower: "Follower") -> None:
        self.schema = follower.schema
        self._sent = follower.follow()

    def __next__(self) -> Sent:
        """The next rows, or a sign of life.

        Raises:
            Refuse: the place names what the store never had, or has dropped; the condition fails on
            a row, or takes too long.
            Retry: the server stops.
        """
        return next(self._sent)

    def __del__(self) -> None:
        self._sent.close()


class Follower:
    """One client's place in every partition.

    Args:
        following: what it wants.
        feed: the store's.
        reader: a new cursor on the store.
        statements: where its SQL runs, within their limits.
        is_cancelled: whether the client is gone.

    Raises:
        Refuse: the condition or a column is wrong.
        Retry: too many follow already.
    """

    def __init__(
        self,
        following: Following,
        feed: Feed,
        reader: Callable[[], duckdb.DuckDBPyConnection],
        statements: Statements,
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._feed = feed
        self._reader = reader
        self._statements = statements
        self._is_cancelled = is_cancelled
        with contextlib.closing(reader()) as cursor:
            check_condition(cursor, following.where)
            columns = dict(cursor.execute(_COLUMNS_SQL).fetchall())
        self._following = following.with_columns(columns)
        self._just_stored = _as_events(columns)
        empty = self._following.select("events", {})
        self.schema = statements.schema(empty, None, is_cancelled)
        self._next: dict[Partition, int] = {}

    def follow(self) -> Generator[Sent, None, None]:
        """Behind, then live, then behind again."""
        queue = self._feed.subscribe()
        try:
            stored = self._feed.catch_up(queue)
            self._begin(stored)
            while True:
                yield from self._read_table(stored)
                with contextlib.suppress(BehindError):
                    yield from self._read_queue(queue)
                stored = self._feed.catch_up(queue)
        finally:
            self._feed.unsubscribe(queue)

    def _begin(self, stored: Mapping[Partition, RangeSet]) -> None:
        start = self._following.start
        if isinstance(start, dict):
            _check_known(start, stored)
            self._next = dict(start)
        elif start == "now":
            self._next = {key: done.prefix_end(_first(done)) for key, done in stored.items()}

    def _read_table(self, stored: Mapping[Partition, RangeSet]) -> Iterator[Sent]:
        """Everything that is stored and not sent, a chunk at a time."""
        for key, done in sorted(stored.items()):
            first = max(self._next.get(key, 0), _first(done))
            end = done.prefix_end(first)
            while first < end:
                windows = {key: (first, end)}
                batches, is_last = self._chunk(windows)
                self._check_kept(key)
                for number, batch in enumerate(batches, 1):
                    self._move(windows, None if is_last and number == len(batches) else batch)
                    yield self._told(batch, behind=True)
                if is_last:
                    break
                first = self._next[key]
            self._next[key] = max(first, end)
        yield self._sign()

    def _check_kept(self, key: Partition) -> None:
        """Refuse to go on where rows that were not sent are gone, as they were from the beginning.

        Asked after they were read: what was dropped before that is known now.
        """
        first = self._next.get(key)
        if first is None:
            return
        with contextlib.closing(self._reader()) as cursor:
            ((end,),) = cursor.execute(_RETAINED_SQL, [*key, first]).fetchall()
        if end is not None:
            name = f"{key[0]}-{key[1]}"
            raise Refuse(
                "live.retained",
                f"rows of {name} from {first} to {end - 1} were dropped by retain",
                f"go on from {name}={end}, or from the beginning of what is there",
            )

    def _chunk(self, windows: Windows) -> tuple[list[pa.RecordBatch], bool]:
        """The first rows of a window in the table, and whether those are all."""
        batches: list[pa.RecordBatch] = []
        for batch in self._rows("events", windows, {}, f" LIMIT {_CHUNK_ROWS}"):
            batches.append(batch)
            if sum(taken.nbytes for taken in batches) >= _CHUNK_BYTES:
                return batches, False
        return batches, sum(taken.num_rows for taken in batches) < _CHUNK_ROWS

    def _read_queue(self, queue: Queue) -> Iterator[Sent]:
        """Commits as they come.

        Raises:
            BehindError: one was dropped, does not begin where this stands, or filled a hole.
        """
        sign_s = monotonic_s() + _SIGN_EVERY_S
        while True:
            commit = queue.get(_LOOK_EVERY_S)
            if self._is_cancelled():
                raise Retry("sql.cancelled", "the client has cancelled")
            sent = False
            if commit is not None:
                for told in self._read_commit(commit):
                    yield told
                    sent = True
            if sent:
                sign_s = monotonic_s() + _SIGN_EVERY_S
            elif monotonic_s() > sign_s:
                sign_s = monotonic_s() + _SIGN_EVERY_S
                yield self._sign()

    def _read_commit(self, commit: Commit) -> Iterator[Sent]:
        windows = self._windows(commit)
        batches: list[pa.RecordBatch] = []
        if windows and commit.rows.num_rows:
            tables = {_JUST_STORED: commit.rows}
            batches = list(self._rows(self._just_stored, windows, tables))
        for number, batch in enumerate(batches, 1):
            self._move(windows, None if number == len(batches) else batch)
            yield self._told(batch, behind=False)
        self._move(windows, None)
        if any(commit.ends[key] > next_ for key, (_, next_) in windows.items()):
            raise BehindError  # it filled a hole: what comes after that is in the table

    def _windows(self, commit: Commit) -> Windows:
        """What of a commit is new, if it goes on where this stands."""
        windows: Windows = {}
        for topic, partition, first, next_ in sorted(commit.ranges):
            key = (topic, partition)
            at = windows[key][1] if key in windows else self._next.get(key, first)
            if next_ <= at:
                continue
            if first > at:
                raise BehindError
            windows[key] = (windows.get(key, (at, at))[0], next_)
        return windows

    def _move(self, windows: Windows, last: pa.RecordBatch | None) -> None:
        """Stand behind a batch of these windows; behind all of them after the last one."""
        if last is None:
            self._next |= {key: next_ for key, (_, next_) in windows.items()}
            return
        topic, partition, offset = (last.column(name)[-1].as_py() for name in ADDRESS)
        done = {key: next_ for key, (_, next_) in windows.items() if key < (topic, partition)}
        self._next |= {**done, (topic, partition): offset + 1}

    def _rows(
        self, source: str, windows: Windows, tables: Tables, limit: str = ""
    ) -> Iterator[pa.RecordBatch]:
        """Wanted rows by partition and offset, in a transaction that ends with the iteration."""
        sql = f"{self._following.select(source, windows)} ORDER BY {', '.join(ADDRESS)}{limit}"
        answer = self._statements.run(sql, None, self._is_cancelled, tables)
        try:
            for batch in answer:
                if batch.num_rows:
                    columns = zip(batch.columns, self.schema, strict=True)
                    arrays = [column.cast(field.type) for column, field in columns]
                    yield pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        finally:
            answer.close()

    def _sign(self) -> Sent:
        arrays = [pa.array([], field.type) for field in self.schema]
        return self._told(pa.RecordBatch.from_arrays(arrays, schema=self.schema), behind=False)

    def _told(self, batch: pa.RecordBatch, *, behind: bool) -> Sent:
        next_ = {f"{topic}-{partition}": n for (topic, partition), n in self._next.items()}
        about = {"next": next_, "behind": behind}
        return batch, pa.py_buffer(json.dumps(about).encode())


def _check_known(place: Collection[Partition], stored: Collection[Partition]) -> None:
    """Refuse a place of which the store has never had anything: it would mean everything.

    A store that has nothing yet cannot tell.
    """
    strange = sorted(set(place) - set(stored))
    if stored and strange:
        raise Refuse(
            "live.place",
            f"the store never had anything of {_names(strange)}",
            f"it has {_names(sorted(stored))}",
        )


def _names(partitions: Sequence[Partition]) -> str:
    names = [f"{topic}-{partition}" for topic, partition in partitions[:_PARTITIONS_NAMED]]
    return short(", ".join(names), 200) + (" ..." if len(partitions) > len(names) else "")


def _first(done: RangeSet) -> int:
    return next(iter(done))[0]


def _as_events(columns: Mapping[str, str]) -> str:
    """The rows of a commit with the types of the table: JSON comes as text."""
    casts = [
        f"CAST({quoted(name)} AS JSON) AS {quoted(name)}"
        for name, kind in columns.items()
        if kind == "JSON"
    ]
    replaced = f" REPLACE ({', '.join(casts)})" if casts else ""
    return f"(SELECT *{replaced} FROM {_JUST_STORED}) AS events"  # noqa: S608  # our names
