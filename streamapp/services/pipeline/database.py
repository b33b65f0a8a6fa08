"""DuckDB, shut off from everything but the rows that it is given."""

import atexit
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from os import getpid
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from streamapp.plugin import Refuse
from streamapp.services.pipeline.expression import Expression, quoted, resolved
from streamapp.services.pipeline.large import TOO_LARGE, limit

#: Below that DuckDB cannot sort or group anything.
MEMORY_BYTES_MIN = 64 << 20
SPILL_BYTES_MAX = 64 << 30
IDLE_MAX = 4
#: Expressions whose types are known: many calls of one operation plan the same ones.
_PLANNED_MAX = 256
#: A name that no column of anybody's has.
ROW = " row"
#: Types that Arrow has not, or that few formats hold, and what stands for them.
_PLAINER = {
    "HUGEINT": "BIGINT",
    "UHUGEINT": "UBIGINT",
    "UUID": "VARCHAR",
    "BIGNUM": "VARCHAR",
    "BIT": "VARCHAR",
    "TIMETZ": "VARCHAR",
    "TIME WITH TIME ZONE": "VARCHAR",
    "JSON": "VARCHAR",
}
#: What only rows can show, and what a caller may set aside.
_OF_ROWS = (duckdb.ConversionException, duckdb.InvalidInputException, duckdb.OutOfRangeException)
#: What DuckDB makes of Ctrl-C.
_INTERRUPTED = "Query interrupted"


class BadRows(Exception):  # caught where rows can be set aside
    """An expression fails at a row; the message says how, without the row's values."""


class Database:
    """Answers queries about tables that are given with each.

    One thread at a time works on a query, so that sums of floats are the same every time; several
    threads may ask.

    Args:
        memory_bytes_max: beyond it rows are spilled to a temporary folder.
        spills: whether they may be.
    """

    def __init__(self, memory_bytes_max: int, *, spills: bool = True) -> None:
        self._memory_bytes_max = max(memory_bytes_max, MEMORY_BYTES_MIN)
        self._spill = TemporaryDirectory(prefix="streamapp-spill-") if spills else None
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "enable_external_access": "false",
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "python_enable_replacements": "false",
                "threads": 1,
                "memory_limit": f"{self._memory_bytes_max}B",
                "temp_directory": self._spill.name if self._spill else "",
                "max_temp_directory_size": f"{SPILL_BYTES_MAX}B",
            },
        )
        self._connection.execute("SET TimeZone = 'UTC'")
        # What two expressions share would be worked out before either, outside of TRY.
        self._connection.execute("SET disabled_optimizers = 'common_subexpressions'")
        self._connection.execute("SET lock_configuration = true")
        limit(self._connection)

    def close(self) -> None:
        """Let go of everything."""
        self._connection.close()
        if self._spill:
            self._spill.cleanup()

    def query(self, sql: str, /, **tables: pa.Table) -> pa.Table:
        """The result of SQL of ours over tables, by the names it calls them.

        Raises:
            BadRows: an expression fails at a row.
            Refuse: there is not enough memory.
        """
        cursor = self._connection.cursor()
        with self._errors():
            try:
                for name, table in tables.items():
                    cursor.register(name, table)
                return cursor.sql(sql).to_arrow_table()
            finally:
                cursor.close()

    def types(self, sql: str, /, **tables: pa.Table) -> list[str]:
        """DuckDB's types of a query's columns; nothing is run."""
        cursor = self._connection.cursor()
        try:
            for name, table in tables.items():
                cursor.register(name, table)
            return [str(kind) for kind in cursor.sql(sql).types]
        finally:
            cursor.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except duckdb.OutOfMemoryException:
            raise Refuse(
                "operation.memory",
                f"the rows of this stage need more than its {self._memory_bytes_max >> 20} MiB",
                "give it more by resources: memory, or cut its input before it",
            ) from None
        except RuntimeError as error:
            if str(error) != _INTERRUPTED:
                raise
            raise KeyboardInterrupt from None
        except _OF_ROWS as error:
            large = TOO_LARGE in str(error)
            raise BadRows(TOO_LARGE if large else str(error).partition(":")[0]) from None


class _Idle:
    """Databases that nobody uses: to open one takes as long as many queries.

    They hold no rows.  A process that was forked opens its own: folders of spilled rows are not to
    be shared.
    """

    def __init__(self) -> None:
        self._free: list[tuple[int, int, Database]] = []
        self._lock = Lock()

    def take(self, memory_bytes_max: int) -> Database:
        wanted = getpid(), memory_bytes_max
        with self._lock:
            for at, (*key, database) in enumerate(self._free):
                if tuple(key) == wanted:
                    del self._free[at]
                    return database
        return Database(memory_bytes_max)

    def give(self, memory_bytes_max: int, database: Database) -> None:
        with self._lock:
            if len(self._free) < IDLE_MAX:
                self._free.append((getpid(), memory_bytes_max, database))
                return
        database.close()

    def close(self) -> None:
        with self._lock:
            for pid, _, database in self._free:
                if pid == getpid():
                    database.close()
            self._free.clear()


#: Where transforms get theirs, and leave it.
idle = _Idle()
atexit.register(idle.close)


@cache
def planner() -> Database:
    """The one that is only asked for types."""
    return Database(MEMORY_BYTES_MIN, spills=False)


atexit.register(planner.cache_clear)  # DuckDB's binding lists what outlives Python


@lru_cache(_PLANNED_MAX)
def typed(expression: Expression, schema: pa.Schema, origin: str) -> tuple[str, pa.DataType]:
    """An expression as SQL whose type Arrow has, and that type.

    Args:
        expression: of a row, or of a group.
        schema: of its rows.
        origin: where the rows come from.

    Raises:
        Refuse: it reads columns that are not there, or of types that it cannot take.
    """
    database, columns = planner(), resolved(expression, schema, origin)
    rows = given(schema.empty_table(), columns)
    sql = f"({expression.sql}\n)"
    try:
        [kind] = database.types(f"SELECT {sql} AS x FROM rows", rows=rows)  # noqa: S608  # checked
        if plainer := _PLAINER.get(kind):
            sql = f"CAST({sql} AS {plainer})"
        found = database.query(f"SELECT {sql} AS x FROM rows LIMIT 0", rows=rows)  # noqa: S608
    except (duckdb.Error, BadRows) as error:
        why = str(error).splitlines()[0]
        of = ", ".join(f"{name} is {schema.field(name).type}" for name in columns)
        raise Refuse(
            "operation.expression",
            f"{expression.key}: {expression.sql!r}: {why}",
            f"of {origin!r}: {of}" if of else "see DuckDB's functions",
        ) from None
    return sql, found.schema.field(0).type


def given(table: pa.Table, columns: Sequence[str], **more: Any) -> pa.Table:
    """What a query is given: the columns that it reads, and always at least one.

    Raises:
        Refuse: two of the columns differ in nothing but their case, which SQL does not tell apart.
    """
    names = list(dict.fromkeys(columns))
    check_apart(names)
    arrays = [_readable(table.column(name)) for name in names] + list(more.values())
    if not arrays:
        return pa.table({" ": pa.nulls(table.num_rows, pa.int8())})
    return pa.table(arrays, names=[*names, *more])


def check_apart(names: Iterable[str]) -> None:
    """Refuse names of columns that are one name to SQL; the same name may come again."""
    known: dict[str, str] = {}
    for name in names:
        if known.get(name.lower(), name) != name:
            raise Refuse(
                "operation.column",
                f"config: {known[name.lower()]!r} and {name!r} differ only by case, and are one "
                "column to SQL",
                "rename one of them before, by pipeline.map",
            )
        known[name.lower()] = name


def _readable(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """DuckDB has no halves of floats."""
    return values.cast(pa.float32()) if pa.types.is_float16(values.type) else values


def numbered(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """As ``given``, with a column ``ROW`` from 0 to n - 1."""
    return given(table, columns, **{ROW: pa.array(np.arange(table.num_rows, dtype=np.int64))})


def selected(named: Mapping[str, str]) -> str:
    """A list of expressions of SQL under names."""
    return ", ".join(f"{sql} AS {quoted(name)}" for name, sql in named.items())
