"""SQL on the files: a DuckDB in memory whose tables are what the manifest names.

Arrow reads the files and DuckDB asks Arrow, so the instance itself reaches no file and no network
(``enable_external_access`` is off), wherever the store is.
"""

import threading
from collections.abc import Iterable
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from streamapp.core.batch import TIME
from streamapp.sink import duck, schema, views
from streamapp.sink.parquet.columns import of_tables
from streamapp.sink.parquet.manifest import File, Position, Range, Retained, State
from streamapp.sink.parquet.parts import ORDER, Fragments
from streamapp.sink.search import Search

#: Each cursor has its own snapshot under these names; the views that clients see read from them.
_PREFIX = "_snapshot_"


class Snapshot(NamedTuple):
    """What was stored at one moment."""

    schema: pa.Schema
    files: tuple[File, ...]
    ranges: tuple[Range, ...]
    positions: tuple[Position, ...]
    retained: tuple[Retained, ...]


def snapshot(state: State) -> Snapshot:
    """What a manifest amounts to, as readers see it."""
    positions = tuple(state.positions.values())
    files, ranges = tuple(state.files), tuple(state.ranges)
    return Snapshot(state.schema, files, ranges, positions, state.retained)


class Queries:
    """Cursors on snapshots, for any thread.

    Args:
        fragments: the files.
        first: what is stored when the store opens.
        memory_bytes_max: what DuckDB may hold; nothing is spilled.
        search: for ``similar`` and ``near``; None: without them.
    """

    def __init__(
        self,
        fragments: Fragments,
        first: Snapshot,
        *,
        memory_bytes_max: int,
        search: Search | None = None,
    ) -> None:
        self._fragments = fragments
        self._lock = threading.Lock()
        self._newest = first
        self._tables: dict[str, ds.Dataset | pa.Table] | None = None
        self._search = search
        self._root = duck.connect(duck.MEMORY, memory_bytes_max=memory_bytes_max, spill_bytes_max=0)
        try:
            if search is not None:
                search.install(self._root, self.reader)
            self._create()
        except BaseException:
            self._root.close()
            raise

    def _create(self) -> None:
        """The views and macros that clients see; each cursor has its own snapshot under them."""
        with self.reader() as cursor:
            for name in self._made():
                view = f"CREATE OR REPLACE VIEW {name} AS FROM {_PREFIX}{name}"
                cursor.execute(view).fetchall()
            kinds = {str(row[0]).lower(): str(row[1]) for row in _described(cursor)}
            if self._search is None:
                kinds.pop("embedding", None)  # which is what the search is for
            views.create(cursor, kinds, row=ORDER)

    def show(self, newest: Snapshot) -> None:
        """What cursors see from now on."""
        with self._lock:
            widened = newest.schema != self._newest.schema
            self._newest, self._tables = newest, None
        if widened:
            self._create()

    def reader(self) -> duckdb.DuckDBPyConnection:
        """A cursor that sees the newest snapshot, and goes on to see that one."""
        cursor = duck.cursor(self._root)
        for name, table in self._made().items():
            cursor.register(f"{_PREFIX}{name}", table)
        return cursor

    def close(self) -> None:
        """Let go of DuckDB; cursors that are open keep it until they close."""
        if self._search is not None:
            self._search.close()
        self._root.close()

    def _made(self) -> dict[str, ds.Dataset | pa.Table]:
        with self._lock:
            if self._tables is None:
                self._tables = _tables(self._fragments, self._newest)
            return self._tables


def _described(cursor: duckdb.DuckDBPyConnection) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = cursor.execute("DESCRIBE events").fetchall()
    return found


def _tables(fragments: Fragments, newest: Snapshot) -> dict[str, ds.Dataset | pa.Table]:
    schemas = of_tables(newest.schema)
    made: dict[str, ds.Dataset | pa.Table] = {
        table: fragments.dataset([f for f in newest.files if f.table == table], columns)
        for table, columns in schemas.items()
    }
    made["ledger"] = _rows(newest.ranges, schema.LEDGER)
    made["position"] = _rows(newest.positions, schema.POSITION)
    made["retained"] = _rows(newest.retained, schema.RETAINED)
    return made


def _rows(entries: Iterable[Range | Position | Retained], columns: pa.Schema) -> pa.Table:
    rows = list(entries)
    arrays = [
        pa.array([getattr(row, f"{field.name}_us") for row in rows], pa.int64()).cast(TIME)
        if field.type == TIME
        else pa.array([getattr(row, field.name) for row in rows], field.type)
        for field in columns
    ]
    return pa.Table.from_arrays(arrays, schema=columns)
