"""The store: one DuckDB file, one writer, any number of readers in the same process."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Self, TypeVar

import duckdb
import pyarrow as pa

from streamapp.core import clock
from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.core.ranges import Ledger, OffsetRange
from streamapp.sink import duck, intake, recall, schema
from streamapp.sink.answers import Answers
from streamapp.sink.intake import Covered, Intake, StoredRecord, Unfit
from streamapp.sink.layout import Layout
from streamapp.sink.search import Search
from streamapp.sink.subscribers import Subscribers
from streamapp.sink.window import DedupWindow

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Written:
    """What one ``write`` did.

    ``left_out`` counts, per column, the rows whose values had no place: a column that the store did
    not have when it opened (it gets it at the next start), or one of another type.  The enriched
    topic still has those values.  ``holes`` is the number of source ranges not filled yet;
    ``ranges`` are the source ranges that are covered by this write.
    """

    rows: int = 0
    duplicates_by_range: int = 0
    duplicates_by_id: int = 0
    dead: int = 0
    lost: int = 0
    holes: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    ranges: tuple[OffsetRange, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a store is opened; see :meth:`Store.open`."""

    columns: Mapping[str, pa.DataType]
    dedup_window_s: int
    dedup_window_events: int
    memory_bytes_max: int
    spill_bytes_max: int
    search: Search


class Store:
    """Enriched records in, each source offset exactly once; SQL out.

    Rows, ledger and position are one transaction, and what this object knows of them in memory
    changes only after the commit.  ``write`` may be called from any thread, one at a time;
    ``reader`` from any thread at any time.
    """

    def __init__(self, path: str, options: Options) -> None:
        self.path = path
        self._options = options
        self._lock = threading.Lock()
        self._root: duckdb.DuckDBPyConnection | None = None
        self._subscribers = Subscribers[pa.Table, Written]()
        self._connect()

    @classmethod
    def open(
        cls,
        path: str,
        *,
        columns: Mapping[str, pa.DataType],
        dedup_window_s: int = 86_400,
        dedup_window_events: int = 1_000_000,
        memory_bytes_max: int = 2 << 30,
        spill_bytes_max: int = 8 << 30,
        search: Search | None = None,
    ) -> Self:
        """Open or make the store.

        Args:
            path: the DuckDB file, or ``:memory:`` for one that dies with the process.
            columns: the stages' columns, in order; new ones are added to the table.
            dedup_window_s: for how long a stored (source, id) is remembered, by ingest time.
            dedup_window_events: how many are remembered; 0 for either turns ``ids.once`` off.
            memory_bytes_max: DuckDB's memory limit (Arrow's buffers are not in it).
            spill_bytes_max: what queries may spill to ``PATH.tmp``.
            search: what ``similar`` and ``near`` ask; without it no text can be searched.

        Raises:
            Refuse: the file is locked, damaged, someone else's, of another format, or a column
            changed its type.
        """
        return cls(
            path,
            Options(
                columns=dict(columns),
                dedup_window_s=dedup_window_s,
                dedup_window_events=dedup_window_events,
                memory_bytes_max=memory_bytes_max,
                spill_bytes_max=spill_bytes_max,
                search=search or Search(),
            ),
        )

    @property
    def ledger(self) -> Ledger:
        """The source ranges that are stored.  Read it only while no ``write`` runs."""
        return self._ledger

    def positions(self) -> dict[tuple[str, int], int]:
        """Where to go on reading: (enriched topic, partition) to the offset after the last."""
        return dict(self._positions)

    def reader(self) -> duckdb.DuckDBPyConnection:
        """A cursor for queries, for one thread; close it soon: an open result keeps old rows."""
        root = self._root
        if root is None:
            raise Retry("store.closed", f"{self.path} is not open", "wait for the store")
        return duck.cursor(root)

    def prepare(self, functions: AbstractSet[str], check: Callable[[], None]) -> None:
        """Have ready what a statement that calls these functions searches; see ``Search``."""
        self._options.search.prepare(functions, check)

    def write(self, records: Sequence[StoredRecord]) -> Written:
        """Store the records in one transaction; when it returns they are durable, or were before.

        Records of one enriched partition come in log order; what was stored already is skipped, so
        any record may come again.  A row whose JSON DuckDB cannot keep goes to ``dead``.

        Raises:
            Retry: the disk is full or DuckDB is out of memory; nothing is lost, call again with the
            same records.
            Halt: a source offset comes with another event than the one stored there (the source
            topic was made anew), or a record contradicts itself.  Nothing of it is stored.
        """
        with self._writing():
            try:
                return self._write(records, {})
            except duckdb.ConversionException:
                rows = self._table(self._read(records, {}).rows)
                unfit = recall.bad_json(self._writer, rows)
                if not unfit:
                    raise
                return self._write(records, unfit)

    def write_answers(self, answers: Answers) -> int:
        """Append rows to table ``answers`` and move its position, in one transaction.

        Rows that are stored already are left out.

        Raises:
            Retry, Halt: as ``write``.
        """
        key = answers.topic, answers.partition
        with self._writing():
            new = answers.after(self._positions.get(key, 0))
            if new is None:
                return 0
            moved = intake.position_table({key: answers.next}, clock.now_us())

            def insert() -> None:
                recall.insert(self._writer, "answers", new)
                recall.insert(self._writer, "position", moved)

            self._transact(insert)
            self._positions[key] = answers.next
            return int(new.num_rows)

    def exclusively(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Run ``work`` in one transaction of the writer, between two ``write``; what it returned.

        It must leave ``ledger``, ``position`` and ``provenance`` as they are.

        Raises:
            Retry, Halt: as ``write``; and whatever ``work`` raises, after a rollback.
        """
        with self._writing():
            return self._transact(lambda: work(self._writer))

    def checkpoint(self) -> bool:
        """Bring the WAL into the file; False when DuckDB cannot just now, which harms nothing."""
        with self._writing():
            return self._checkpoint()

    def subscribe(self, callback: Callable[[pa.Table, Written], None]) -> Callable[[], None]:
        """Be told after each commit, in commit order; returns how to end that.

        ``callback(rows, written)`` gets the rows as table ``events`` has them now.  It runs in the
        writer's thread, which waits for it: take what is needed and return, write nothing.  One
        that raises is logged and dropped.  A commit that was durable though it failed (the disk was
        full just then) is found by the next ``write`` and told to nobody: who must miss nothing
        compares with table ``ledger``.
        """
        return self._subscribers.add(callback)

    def close(self) -> None:
        """Checkpoint and let go of the file (readers still open keep it until they close)."""
        with self._lock:
            if self._root is None:
                return
            self._checkpoint()
            self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the writer, which knows what is stored; DuckDB's errors come out as ours."""
        with self._lock:
            if self._stale:
                self._recover()
            if self._root is None:
                raise Retry("store.closed", f"{self.path} is closed", "open it again")
            try:
                yield
            except duckdb.Error as error:
                raise duck.unwritten(self.path, error) from None

    def _checkpoint(self) -> bool:
        try:
            self._writer.execute("CHECKPOINT").fetchall()
        except duckdb.Error as error:
            first_line = str(error).partition("\n")[0]
            _log.warning("%s: no checkpoint, the WAL stays: %s", self.path, first_line)
            return False
        return True

    def _connect(self) -> None:
        options = self._options
        root = duck.connect(
            self.path,
            memory_bytes_max=options.memory_bytes_max,
            spill_bytes_max=options.spill_bytes_max,
        )
        try:
            options.search.install(root)
            self._writer = duck.cursor(root)
            self._layout = Layout(schema.prepare(self._writer, self.path, options.columns))
            recall.compact(self._writer)
            tables = {"ledger": schema.LEDGER, "position": schema.POSITION}
            tables["events"] = self._layout.schema
            self._inserting = recall.Inserting(self._writer, tables)
            self._load()
        except duckdb.Error as error:
            duck.close(root)
            raise duck.unopened(self.path, error) from None
        except BaseException:
            duck.close(root)
            raise
        self._root = root

    def _disconnect(self) -> None:
        root, self._root = self._root, None
        self._options.search.close()
        self._writer.close()
        # Whoever still holds this object holds no part of DuckDB.
        del self._inserting, self._writer
        if root is not None:
            duck.close(root)

    def _load(self) -> None:
        """Read back what the tables say: at open, and after a commit whose outcome is not known."""
        options = self._options
        self._ledger = recall.read_ledger(self._writer)
        self._positions = recall.read_positions(self._writer)
        self._provenance = recall.read_provenance(self._writer)
        self._window = DedupWindow(options.dedup_window_s, options.dedup_window_events)
        if self._window.enabled:
            rows = recall.read_ids(
                self._writer, options.dedup_window_s, options.dedup_window_events
            )
            self._window.apply(rows)
        self._stale = False

    def _recover(self) -> None:
        """After a failure: it may be committed all the same, or DuckDB gave up the file."""
        try:
            if self._root is None:
                self._connect()
            else:
                self._load()
        except Refuse as refusal:  # a reader that still has the dead instance open, most likely
            raise Retry(refusal.code, refusal.message, refusal.fix) from None
        except duckdb.Error as error:
            if duck.is_invalidated(error):
                self._disconnect()
            raise duck.unwritten(self.path, error) from None

    def _write(self, records: Sequence[StoredRecord], unfit: Unfit) -> Written:
        taken = self._read(records, unfit)
        if not (taken.parts or taken.positions or taken.covered):
            return self._written(taken)
        rows = self._table(taken.rows)
        self._transact(lambda: self._insert(taken, rows))
        self._adopt(taken)
        written = self._written(taken)
        self._subscribers.tell(rows, written)
        return written

    def _written(self, taken: Intake) -> Written:
        return Written(
            rows=taken.row_count,
            duplicates_by_range=taken.duplicates_by_range,
            duplicates_by_id=taken.duplicates_by_id,
            dead=len(taken.dead),
            lost=sum(part.lost for part in taken.parts),
            holes=len(self._ledger.holes()),
            left_out=dict(taken.left_out),
            ranges=tuple(part.range for part in taken.parts),
        )

    def _read(self, records: Sequence[StoredRecord], unfit: Unfit) -> Intake:
        reader = intake.Reader(self._layout, self._ledger, self._window, self._positions, unfit)
        return reader.read(records)

    def _transact(self, work: Callable[[], T]) -> T:
        self._writer.begin()
        try:
            done = work()
            self._stale = True  # from here on only the tables know
            self._writer.commit()
            self._stale = False
        except BaseException as error:
            with contextlib.suppress(duckdb.Error):  # a failed COMMIT has ended it already
                self._writer.rollback()
            self._stale = self._stale or not isinstance(error, duckdb.ConversionException)
            raise
        return done

    def _insert(self, taken: Intake, rows: pa.Table) -> None:
        """One statement for what nearly every transaction has, others for what few have."""
        now_us, writer = clock.now_us(), self._writer
        new = {key: text for key, text in taken.provenance.items() if key not in self._provenance}
        if new:
            recall.insert(writer, "provenance", intake.provenance_table(new, now_us))
        self._inserting.insert(
            {
                "events": rows,
                "ledger": intake.ledger_table(taken, now_us),
                "position": intake.position_table(taken.positions, now_us),
            }
        )
        if taken.dead:
            recall.insert(writer, "dead", intake.dead_table(taken, now_us))
        self._check(taken.covered)

    def _table(self, rows: Sequence[pa.RecordBatch]) -> pa.Table:
        """In one piece: DuckDB takes half as long again for pieces that are no whole vectors."""
        return pa.Table.from_batches(rows, self._layout.schema).combine_chunks()

    def _check(self, covered: Sequence[Covered]) -> None:
        """Halt when a covered row is not the one that is stored at its address."""
        partitions: dict[tuple[str, int], list[pa.RecordBatch]] = {}
        for item in covered:
            partitions.setdefault((item.topic, item.partition), []).append(item.rows)
        for (topic, partition), rows in partitions.items():
            table = pa.Table.from_batches(rows)
            other = recall.other_event(self._writer, topic, partition, table)
            if other:
                offset, stored, given = other
                raise Halt(
                    "store.recreated",
                    f"{topic}-{partition} offset {offset} is event {stored!r} in {self.path} and "
                    f"now comes as {given!r}: the topic was made anew",
                    "give the new topic another name, or move the store away to begin again",
                )

    def _adopt(self, taken: Intake) -> None:
        """What was committed is now known."""
        for part in taken.parts:
            self._ledger.add(part.range)
        self._positions.update(taken.positions)
        self._provenance.update(taken.provenance)
        self._window.adopt(taken.ids)
