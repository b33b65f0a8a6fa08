"""SQLite, by ADBC.

Its values have types of their own, and a driver learns a column's from the first rows.  Here a
column's type is the one that its table declares; what does not fit it is a bad row.  A column
without one (of an expression, or declared as DATE and the like) is looked at in every row.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import adbc_driver_sqlite
import pyarrow as pa
from adbc_driver_manager import AdbcConnection, AdbcStatement

from streamapp.core.errors import Refuse, Retry
from streamapp.workflow.data.contract import BadRow, Key, Options, Place
from streamapp.workflow.data.databases import guarded, quoted, write_table
from streamapp.workflow.data.replacing import make_folder

if TYPE_CHECKING:
    from adbc_driver_manager import dbapi

_WAIT_S = 5.0
_BATCH = "adbc.sqlite.query.batch_rows"
_ROWS = 16_384


class _Kind(NamedTuple):
    """How a column is read."""

    arrow: pa.DataType
    fits: tuple[str, ...]  # what typeof() says of its values; empty: anything, as text
    sample: str  # a value from which the driver learns the type


_INTEGER = _Kind(pa.int64(), ("integer",), "0")
_REAL = _Kind(pa.float64(), ("real", "integer"), "0.0")
_TEXT = _Kind(pa.string(), ("text",), "''")
_BLOB = _Kind(pa.binary(), ("blob",), "x''")
_ANY = _Kind(pa.string(), (), "''")


class SqliteReader:
    """Rows of a table or a query of a SQLite file, which is only read."""

    Options: ClassVar[type[Options]] = Options
    suffixes: ClassVar[tuple[str, ...]] = (".sqlite", ".sqlite3", ".db")
    takes: ClassVar[frozenset[Key]] = frozenset({"path", "table", "query"})

    def __init__(self, place: Place, options: Any) -> None:
        self.place, self.options = place, options
        self._uri = f"{place.paths[0].as_uri()}?mode=ro"
        self._rows_of = place.query.rstrip().rstrip(";") or f"SELECT * FROM {quoted(place.table)}"  # noqa: S608
        self._kinds: dict[str, _Kind] | None = None

    def schema(self) -> pa.Schema:
        """As ``Reader.schema``."""
        return pa.schema([pa.field(name, kind.arrow) for name, kind in self._columns().items()])

    def read(self) -> pa.RecordBatchReader:
        """As ``Reader.read``."""
        return pa.RecordBatchReader.from_batches(self.schema(), self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        columns, schema = self._columns(), self.schema()
        samples = ", ".join(f"{kind.sample} AS {_name(name)}" for name, kind in columns.items())
        values = ", ".join(_read_as(name, kind) for name, kind in columns.items())
        sql = (
            f"SELECT {samples} UNION ALL SELECT {values} FROM ({self._rows_of}\n){_where(columns)}"  # noqa: S608
        )
        with ExitStack() as opened:

            def step(make: Callable[[], Any]) -> Any:
                return opened.enter_context(guarded(self.place, make))

            database = step(lambda: adbc_driver_sqlite.connect(self._uri))
            connection = step(lambda: AdbcConnection(database))
            statement = step(lambda: AdbcStatement(connection))
            statement.set_options(**{_BATCH: _ROWS})
            statement.set_sql_query(sql)
            stream, _ = guarded(self.place, statement.execute_query)
            reader = step(lambda: pa.RecordBatchReader.from_stream(stream))
            skip, good = 1, -1  # the samples
            while (batch := guarded(self.place, lambda: next(reader, None))) is not None:
                good += batch.num_rows
                yield pa.RecordBatch.from_arrays(
                    [column.cast(field.type) for column, field in zip(batch, schema, strict=True)],
                    schema=schema,
                ).slice(skip)
                skip = 0
        self._report_bad(columns, good)

    def _columns(self) -> dict[str, _Kind]:
        if self._kinds is None:
            with closing(self._open()) as connection:
                self._kinds = self._learn(connection)
        return self._kinds

    def _learn(self, connection: sqlite3.Connection) -> dict[str, _Kind]:
        self._run(connection, f"CREATE TEMP VIEW streamapp_rows AS {self._rows_of}")
        found = self._run(connection, "PRAGMA table_info(streamapp_rows)")
        declared = {str(row[1]): str(row[2]).upper() for row in found}
        kinds = {name: _declared_kind(kind) for name, kind in declared.items()}
        for name in [name for name, kind in kinds.items() if kind is None]:
            sql = f"SELECT DISTINCT typeof({_name(name)}) FROM streamapp_rows"  # noqa: S608
            kinds[name] = _seen_kind({row[0] for row in self._run(connection, sql)})
        return {name: kind for name, kind in kinds.items() if kind is not None}

    def _report_bad(self, columns: dict[str, _Kind], good: int) -> None:
        """Look for bad rows; only where there are more than good ones, as it takes another scan."""
        where = _where(columns)
        if not where or self._count() <= good:
            return
        number = "rowid" if self.place.table and not self.place.query else "NULL"
        sql = f"SELECT {number}, * FROM ({self._rows_of}\n) WHERE NOT ({where[7:]})"  # noqa: S608
        if number == "rowid":
            sql = f"SELECT rowid, * FROM {quoted(self.place.table)} WHERE NOT ({where[7:]})"  # noqa: S608
        with closing(self._open()) as connection:
            try:
                found = connection.execute(sql)
            except sqlite3.Error:  # a table WITHOUT ROWID, or a view
                sql = f"SELECT NULL, * FROM ({self._rows_of}\n) WHERE NOT ({where[7:]})"  # noqa: S608
                found = self._run(connection, sql)
            for number, *values in found:
                row = dict(zip(columns, values, strict=True))
                self.place.on_bad(
                    BadRow(self.place.shown, number, _reason(row, columns), repr(row))
                )

    def _count(self) -> int:
        with closing(self._open()) as connection:
            sql = f"SELECT count(*) FROM ({self._rows_of}\n)"  # noqa: S608
            return int(self._run(connection, sql).fetchone()[0])

    def _open(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self._uri, uri=True, timeout=_WAIT_S)
            connection.text_factory = lambda data: data.decode("utf-8", "replace")
        except sqlite3.Error as error:
            raise self._refuse(error) from None
        return connection

    def _run(self, connection: sqlite3.Connection, sql: str) -> Any:
        try:
            return connection.execute(sql)
        except sqlite3.Error as error:
            raise self._refuse(error) from None

    def _refuse(self, error: sqlite3.Error) -> Refuse | Retry:
        if _is_busy(error):
            return Retry(
                "data.busy", f"{self.place.shown} is locked by another process", "wait for its end"
            )
        return Refuse(
            "data.database", f"{self.place.shown}: {error}", "check its path, table and query"
        )


class SqliteWriter:
    """One table of a SQLite file; the file's other tables stay as they are."""

    Options: ClassVar[type[Options]] = Options
    suffixes: ClassVar[tuple[str, ...]] = (".sqlite", ".sqlite3", ".db")
    takes: ClassVar[frozenset[Key]] = frozenset({"path", "table"})

    def __init__(self, place: Place, options: Any) -> None:
        self.place, self.options, self.path = place, options, place.paths[0]

    def write(self, rows: pa.RecordBatchReader) -> int:
        """As ``Writer.write``; lists and structs are JSON."""
        make_folder(self.path)
        return write_table(self.place, self._connect, rows)

    def _connect(self) -> "dbapi.Connection":
        from adbc_driver_sqlite.dbapi import connect  # which imports polars, and pandas if it can

        connection: dbapi.Connection = connect(self.path.as_uri())
        return connection


def _is_busy(error: sqlite3.Error) -> bool:
    """Whether it is another one's lock, which ends; see https://www.sqlite.org/rescode.html."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _declared_kind(declared: str) -> _Kind | None:
    """By the rules of https://www.sqlite.org/datatype3.html#determination_of_column_affinity."""
    if "INT" in declared:
        return _INTEGER
    if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
        return _TEXT
    if any(word in declared for word in ("REAL", "FLOA", "DOUB")):
        return _REAL
    return _BLOB if "BLOB" in declared else None


def _seen_kind(types: set[str]) -> _Kind:
    """What holds all values that were seen."""
    types = types - {"null"}
    if not types:
        return _TEXT
    if types <= {"integer"}:
        return _INTEGER
    if types <= {"integer", "real"}:
        return _REAL
    return _BLOB if types == {"blob"} else _ANY


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _read_as(name: str, kind: _Kind) -> str:
    return f"CAST({_name(name)} AS TEXT)" if kind is _ANY else _name(name)


def _where(columns: dict[str, _Kind]) -> str:
    """The condition of a good row."""
    tests = []
    for name, kind in columns.items():
        if kind.fits:
            # the commonest first; IN looks all of them up in a table, which takes twice as long
            fits = " OR ".join(f"typeof({_name(name)}) = '{one}'" for one in kind.fits)
            tests.append(f"({fits} OR {_name(name)} IS NULL)")
    return f" WHERE {' AND '.join(tests)}" if tests else ""


def _reason(row: dict[str, Any], columns: dict[str, _Kind]) -> str:
    python = {"integer": int, "real": float, "text": str, "blob": bytes}
    for name, kind in columns.items():
        fits = tuple(python[one] for one in kind.fits)
        if kind.fits and row[name] is not None and not isinstance(row[name], fits):
            return f"column {name!r} is {kind.arrow}, not {type(row[name]).__name__}"
    return "a value does not fit its column"
