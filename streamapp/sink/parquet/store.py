"""The Parquet store: one root, its manifest as ledger, each source offset exactly once."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Self, TypeVar

import duckdb
import pyarrow as pa

from streamapp.core import clock
from streamapp.core.errors import Halt, Retry
from streamapp.core.ranges import Ledger
from streamapp.sink import intake, layout, schema
from streamapp.sink.answers import Answers
from streamapp.sink.intake import Intake, StoredRecord
from streamapp.sink.parquet import columns as parquet_columns
from streamapp.sink.parquet import parts, recall, tidy
from streamapp.sink.parquet.commits import Commits, conflict, outside
from streamapp.sink.parquet.manifest import Position, Range
from streamapp.sink.parquet.parts import ORDER, Fragments, Made
from streamapp.sink.parquet.place import Place, open_place, prove_exclusive, unreachable
from streamapp.sink.parquet.queries import Queries, snapshot
from streamapp.sink.search import Search
from streamapp.sink.store import Written
from streamapp.sink.subscribers import Subscribers
from streamapp.sink.window import DedupWindow

_log = logging.getLogger(__name__)
T = TypeVar("T")

#: How often a start looks again when another writer was faster.
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a store is opened; see :meth:`ParquetStore.open`."""

    columns: Mapping[str, pa.DataType]
    dedup_window_s: int
    dedup_window_events: int
    memory_bytes_max: int
    checkpoint_commits: int
    search: Search


class ParquetStore:
    """Enriched records in, Parquet files and a manifest out; SQL on them.  A :class:`Sink`.

    A commit is: data files written, each durable; then one entry of the manifest created, which
    names them.  Killed before that, they are files that nothing names; killed after, it is stored.
    """

    def __init__(self, place: Place, options: Options) -> None:
        self._place = place
        self._options = options
        self._lock = threading.Lock()
        self._commits = Commits(place)
        self._fragments = Fragments(place)
        self._subscribers = Subscribers[pa.Table, Written]()
        self._litter: list[str] = []
        self._stale = False
        self._queries: Queries | None = None
        parquet_columns.check_owner(place)
        place.lock()
        try:
            self._schema = self._prepare()
            self._load()
            self._queries = Queries(
                self._fragments,
                snapshot(self._commits.state),
                memory_bytes_max=options.memory_bytes_max,
                search=options.search,
            )
        except BaseException:
            place.unlock()
            raise

    @classmethod
    def open(
        cls,
        url: str,
        *,
        columns: Mapping[str, pa.DataType],
        dedup_window_s: int = 86_400,
        dedup_window_events: int = 1_000_000,
        memory_bytes_max: int = 2 << 30,
        checkpoint_commits: int = 100,
        search: Search | None = None,
    ) -> Self:
        """Open or make the store.

        Args:
            url: a directory, or an fsspec URL such as ``s3://bucket/path``.
            columns: the stages' columns, in order; new ones are added.
            dedup_window_s: for how long a stored (source, id) is remembered, by ingest time.
            dedup_window_events: how many are remembered; 0 for either turns ``ids.once`` off.
            memory_bytes_max: what queries may hold in memory (Arrow's buffers are not in it).
            checkpoint_commits: commits after which the manifest is written anew as one entry.
            search: for ``similar`` and ``near``, by rows numbered ``stored_order``.

        Raises:
            Refuse: the place cannot be written, has another writer, cannot create exclusively, is
            someone else's, damaged, of another format, or a column changed its type.
        """
        place = open_place(url)
        options = Options(
            columns=dict(columns),
            dedup_window_s=dedup_window_s,
            dedup_window_events=dedup_window_events,
            memory_bytes_max=memory_bytes_max,
            checkpoint_commits=checkpoint_commits,
            search=search or Search(row=ORDER),
        )
        try:
            return cls(place, options)
        except OSError as error:
            raise unreachable(url, error) from None
        except pa.ArrowException as error:
            raise parquet_columns.damaged(url, error) from None

    @property
    def path(self) -> str:
        """The root, as messages name it."""
        return self._place.url

    @property
    def ledger(self) -> Ledger:
        """The source ranges that are stored.  Read it only while no ``write`` runs."""
        return self._ledger

    def positions(self) -> dict[tuple[str, int], int]:
        """Where to go on reading: (enriched topic, partition) to the offset after the last."""
        return dict(self._positions)

    def reader(self) -> duckdb.DuckDBPyConnection:
        """A cursor for queries, for one thread; it sees what is stored now and nothing later."""
        queries = self._queries
        if queries is None:
            raise Retry("store.closed", f"{self.path} is not open", "wait for the store")
        return queries.reader()

    def prepare(self, functions: AbstractSet[str], check: Callable[[], None]) -> None:
        """Have ready what a statement that calls these functions searches; see ``Search``."""
        self._options.search.prepare(functions, check)

    def exclusively(self, work: Callable[[Commits], T]) -> T:
        """Run ``work``, which may write a checkpoint, between two ``write``; what it returned.

        It must leave ranges and positions as they are.

        Raises:
            Retry, Halt: as ``write``.
        """
        with self._writing():
            number, self._stale = self._commits.state.number, True
            done = work(self._commits)
            self._stale = False
            if self._commits.state.number != number:
                self._fragments.keep(self._commits.state.files)
                self._show()
            return done

    def subscribe(self, callback: Callable[[pa.Table, Written], None]) -> Callable[[], None]:
        """Have ``callback(rows, written)`` called after each commit; returns how to end that."""
        return self._subscribers.add(callback)

    def write(self, records: Sequence[StoredRecord]) -> Written:
        """Store the records as one commit; when it returns they are durable, or were before.

        Raises:
            Retry: the place does not take it, or another writer was faster; call again with the
            same records.
            Halt: a source offset comes with another event than the one stored there (the source
            topic was made anew), or a record contradicts itself.  Nothing of it is stored.
        """
        with self._writing():
            return self._write(records)

    def write_answers(self, answers: Answers) -> int:
        """Append rows to table ``answers`` and move its position, as one commit.

        Raises:
            Retry, Halt: as ``write``.
        """
        with self._writing():
            return self._write_answers(answers)

    def close(self) -> None:
        """Let go of the place; there is nothing to finish."""
        with self._lock:
            queries, self._queries = self._queries, None
            if queries is not None:
                queries.close()
                self._place.unlock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the writer, which knows what is stored; what goes wrong comes out as our errors."""
        with self._lock:
            if self._queries is None:
                raise Retry("store.closed", f"{self.path} is closed", "open it again")
            looked = self._place.alone or self._stale
            with outside(self.path):
                if self._stale:
                    self._recover()
                try:
                    yield
                except FileNotFoundError:
                    if looked:
                        raise
                    self._stale = True  # another writer may have merged it long ago
                    raise conflict(self.path) from None

    def _prepare(self) -> pa.Schema:
        """Check or begin the manifest, widen the columns, and sweep."""
        prove_exclusive(self._place)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                schema = self._begin()
                break
            except Retry:  # somebody else starts at the same time
                if attempt == _ATTEMPTS:
                    raise
        tidy.remove_retired(self._place, self._commits.state, None)
        swept = tidy.sweep(self._place, self._commits.state)
        if swept:
            _log.info("%s: removed %d files that no commit names", self.path, len(swept))
        return schema

    def _begin(self) -> pa.Schema:
        self._commits.load()
        state = self._commits.state
        wanted = parquet_columns.widened(self.path, state.schema, self._options.columns)
        parts.check_writable(self.path, wanted)
        if state.number != state.checkpoint or state.schema != wanted:
            self._commits.checkpoint(wanted, state.files, state.retired)
        return wanted

    def _load(self) -> None:
        """Take over what the manifest says: at open, and when a commit's outcome is not known."""
        options, state = self._options, self._commits.state
        self._layout = layout.Layout(pa.schema([f for f in self._schema if f.name != ORDER]))
        self._ledger = state.ledger()
        self._positions = {key: one.next for key, one in state.positions.items()}
        self._provenance = recall.read_provenance(state, self._fragments, schema.PROVENANCE)
        self._window = DedupWindow(options.dedup_window_s, options.dedup_window_events)
        if self._window.enabled:
            rows = recall.read_ids(
                state, self._fragments, options.dedup_window_s, options.dedup_window_events
            )
            self._window.apply(rows)

    def _recover(self) -> None:
        self._commits.load()
        stored, columns = self._commits.state.schema, self._options.columns
        self._schema = parquet_columns.widened(self.path, stored, columns)  # another may have
        self._load()
        named = {file.path for file in self._commits.state.files}
        if self._place.alone:  # else a commit that is still on its way may yet name them
            for path in self._litter:
                if path not in named:
                    self._place.remove(path)
        self._litter.clear()
        self._stale = False
        self._show()

    def _show(self) -> None:
        if self._queries is not None:
            self._queries.show(snapshot(self._commits.state))

    def _write(self, records: Sequence[StoredRecord]) -> Written:
        reader = intake.Reader(self._layout, self._ledger, self._window, self._positions, {})
        taken = reader.read(records)
        taken_rows = pa.Table.from_batches(taken.rows, self._layout.schema)
        rows = parts.numbered(taken_rows, self._schema, self._commits.state.next_order)
        if taken.covered:
            self._check(taken, rows)
        changed = bool(taken.parts or taken.positions)
        if changed:
            now_us = clock.now_us()
            self._commit(
                parts.commit_files(
                    taken, rows, self._provenance, now_us, self._commits.state.number + 1
                ),
                parts.ranges(taken, now_us),
                [Position(*key, next_, now_us) for key, next_ in taken.positions.items()],
                rows.num_rows,
            )
            self._adopt(taken)
        written = Written(
            rows=taken.row_count,
            duplicates_by_range=taken.duplicates_by_range,
            duplicates_by_id=taken.duplicates_by_id,
            dead=len(taken.dead),
            lost=sum(part.lost for part in taken.parts),
            holes=len(self._ledger.holes()),
            left_out=dict(taken.left_out),
            ranges=tuple(part.range for part in taken.parts),
        )
        if changed and self._subscribers:
            self._subscribers.tell(rows.drop_columns(ORDER), written)
        return written

    def _check(self, taken: Intake, rows: pa.Table) -> None:
        """Halt when a covered row is not the one that is stored at its address."""
        other = recall.other_event(self._commits.state, self._fragments, rows, taken.covered)
        if other:
            topic, partition, offset, stored, given = other
            raise Halt(
                "store.recreated",
                f"{topic}-{partition} offset {offset} is event {stored!r} in {self.path} and "
                f"now comes as {given!r}: the topic was made anew",
                "give the new topic another name, or use another root to begin again",
            )

    def _write_answers(self, answers: Answers) -> int:
        key, now_us = (answers.topic, answers.partition), clock.now_us()
        new = answers.after(self._positions.get(key, 0))
        if new is None:
            return 0
        number = self._commits.state.number + 1
        made = [parts.table_file("answers", new, "answers", number)] if new.num_rows else []
        self._commit(made, positions=[Position(*key, answers.next, now_us)])
        self._positions[key] = answers.next
        self._checkpoint_when_due()
        self._show()
        return int(new.num_rows)

    def _commit(
        self,
        made: Sequence[Made],
        ranges: Sequence[Range] = (),
        positions: Sequence[Position] = (),
        rows: int = 0,
    ) -> None:
        started_s = clock.monotonic_s()
        self._put(made)
        if not self._place.alone and clock.monotonic_s() - started_s > tidy.ORPHAN_S / 2:
            raise OSError("the data files took too long; another writer may have removed them")
        next_order = self._commits.state.next_order + rows
        self._stale = True  # from here on only the manifest knows
        self._commits.commit([one.file for one in made], ranges, positions, next_order)
        self._stale = False
        self._litter.clear()

    def _put(self, made: Sequence[Made]) -> None:
        """Write data files; those of a failed attempt are of no use."""
        try:
            for one in made:
                self._litter.append(one.file.path)
                self._place.put(one.file.path, one.data)
        except OSError:
            tidy.discard(self._place, self._litter)
            self._litter.clear()
            raise

    def _adopt(self, taken: Intake) -> None:
        """What was committed is now known."""
        for part in taken.parts:
            self._ledger.add(part.range)
        self._positions.update(taken.positions)
        self._provenance.update(taken.provenance)
        self._window.adopt(taken.ids)
        self._checkpoint_when_due()
        self._show()

    def _checkpoint_when_due(self) -> None:
        """Write the manifest anew and tidy up; what fails here is tried again by the next one."""
        state = self._commits.state
        if state.number - state.checkpoint < self._options.checkpoint_commits:
            return
        schemas = parquet_columns.of_tables(self._schema)
        try:
            removed = tidy.remove_retired(self._place, state)
            merged = list(tidy.merges(state, self._fragments, schemas, state.number + 1))
            self._put([one.made for one in merged])
            self._stale = True
            self._commits.checkpoint(self._schema, *tidy.after_merging(state, merged, removed))
            self._stale = False
            self._litter.clear()
            self._fragments.keep(self._commits.state.files)
        except (OSError, Retry, pa.ArrowException) as error:
            _log.warning("%s: no checkpoint, the next commit tries again: %s", self.path, error)
