"""The store: one DuckDB file, one writer, any number of readers in the same process."""

import contextlib
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import duckdb
import pyarrow as pa

from streamapp.core import clock
from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.core.ranges import Ledger
from streamapp.sink import duck, intake, recall, schema
from streamapp.sink.intake import Covered, Intake, StoredRecord, Unfit
from streamapp.sink.window import DedupWindow, key_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """What one ``write`` did.

    ``left_out`` counts, per column, the rows whose values had no place: a column that the store did
    not have when it opened (it gets it at the next start), or one of another type.  The enriched
    topic still has those values.  ``holes`` is the number of source ranges not filled yet.
    """

    rows: int = 0
    duplicates_by_range: int = 0
    duplicates_by_id: int = 0
    dead: int = 0
    lost: int = 0
    holes: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a store is opened; see :meth:`Store.open`."""

    columns: Mapping[str, pa.DataType]
    dedup_window_s: int
    dedup_window_events: int
    memory_bytes_max: int
    spill_bytes_max: int


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
    ) -> Self:
        """Open or make the store.

        Args:
            path: the DuckDB file, or ``:memory:`` for one that dies with the process.
            columns: the stages' columns, in order; new ones are added to the table.
            dedup_window_s: for how long a stored (source, id) is remembered, by ingest time.
            dedup_window_events: how many are remembered; 0 for either turns ``ids.once`` off.
            memory_bytes_max: DuckDB's memory limit (Arrow's buffers are not in it).
            spill_bytes_max: what queries may spill to ``PATH.tmp``.

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
        with self._lock:
            if self._stale:
                self._recover()
            if self._root is None:
                raise Retry("store.closed", f"{self.path} is closed", "open it again")
            try:
                try:
                    return self._write(records, {})
                except duckdb.ConversionException:
                    rows = self._read(records, {}).rows
                    unfit = recall.bad_json(self._writer, self._table(rows))
                    if not unfit:
                        raise
                    return self._write(records, unfit)
            except duckdb.Error as error:
                raise duck.unwritten(self.path, error) from None

    def close(self) -> None:
        """Checkpoint and let go of the file (readers still open keep it until they close)."""
        with self._lock:
            if self._root is None:
                return
            try:
                self._writer.execute("CHECKPOINT").fetchall()
            except duckdb.Error as error:
                _log.warning(
                    "%s: no checkpoint at close, the next start replays the WAL: %s",
                    self.path,
                    str(error).partition("\n")[0],
                )
            self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _connect(self) -> None:
        options = self._options
        root = duck.connect(
            self.path,
            memory_bytes_max=options.memory_bytes_max,
            spill_bytes_max=options.spill_bytes_max,
        )
        try:
            self._writer = duck.cursor(root)
            self._row_schema = schema.prepare(self._writer, self.path, options.columns)
            recall.compact(self._writer)
            self._load()
        except duckdb.Error as error:
            root.close()
            raise duck.unopened(self.path, error) from None
        except BaseException:
            root.close()
            raise
        self._root = root

    def _disconnect(self) -> None:
        root, self._root = self._root, None
        self._writer.close()
        if root is not None:
            root.close()

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
            self._window.apply((key_of(source, id_), at_us) for source, id_, at_us in rows)
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
        if taken.parts or taken.positions or taken.covered:
            self._transact(taken)
            self._adopt(taken)
        return Written(
            rows=taken.row_count,
            duplicates_by_range=taken.duplicates_by_range,
            duplicates_by_id=taken.duplicates_by_id,
            dead=len(taken.dead),
            lost=sum(part.lost for part in taken.parts),
            holes=len(self._ledger.holes()),
            left_out=dict(taken.left_out),
        )

    def _read(self, records: Sequence[StoredRecord], unfit: Unfit) -> Intake:
        reader = intake.Reader(self._row_schema, self._ledger, self._window, self._positions, unfit)
        return reader.read(records)

    def _transact(self, taken: Intake) -> None:
        self._writer.begin()
        try:
            self._insert(taken)
            self._check(taken.covered)
            self._stale = True  # from here on only the tables know
            self._writer.commit()
            self._stale = False
        except BaseException as error:
            with contextlib.suppress(duckdb.Error):  # a failed COMMIT has ended it already
                self._writer.rollback()
            self._stale = self._stale or not isinstance(error, duckdb.ConversionException)
            raise

    def _insert(self, taken: Intake) -> None:
        now_us = clock.now_us()
        new = {key: text for key, text in taken.provenance.items() if key not in self._provenance}
        recall.insert(self._writer, "provenance", intake.provenance_table(new, now_us))
        recall.insert(self._writer, "events", self._table(taken.rows))
        recall.insert(self._writer, "dead", intake.dead_table(taken, now_us))
        recall.insert(self._writer, "ledger", intake.ledger_table(taken, now_us))
        recall.insert(self._writer, "position", intake.position_table(taken, now_us))

    def _table(self, rows: Sequence[pa.RecordBatch]) -> pa.Table:
        return pa.Table.from_batches(rows, self._row_schema)

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
        self._window.apply(taken.ids.items())
