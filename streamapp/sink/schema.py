"""The store's tables, format 1: created, checked and widened when the store opens, never later.

No table has a primary key or an index, and nothing is ever updated.  One UPDATE (an upsert is one)
that commits while a reader is open keeps DuckDB 2.0 from checkpointing, and its WAL then grows
without bound; transactions that only insert into tables without indexes do not.
"""

import contextlib
from collections.abc import Iterable, Mapping
from importlib.metadata import version

import duckdb
import pyarrow as pa

from streamapp.core import clock
from streamapp.core.batch import EVENT_SCHEMA, TIME
from streamapp.core.errors import Refuse
from streamapp.core.sql import quoted
from streamapp.sink import views
from streamapp.sink.answers import ANSWERS

#: Raised when a table's meaning changes; a store of another format is refused.
FORMAT = "1"
#: Rows of a row group.  A transaction of a multiple of it goes past the WAL, straight to the file.
ROW_GROUP_ROWS = 2048

_JSON_COLUMNS = frozenset({"payload", "attachments"})
#: Columns that say where a row came from, and the row's provenance: a key of that table.
ADDRESS_FIELDS = (
    pa.field("source_topic", pa.string(), nullable=False),
    pa.field("source_partition", pa.int32(), nullable=False),
)
PROVENANCE_FIELD = pa.field("provenance", pa.uint64(), nullable=False)
#: What every event row has, in the table's order; the stages' columns follow.
CORE_FIELDS = (*ADDRESS_FIELDS, *EVENT_SCHEMA, PROVENANCE_FIELD)

DEAD = pa.schema(
    [
        *ADDRESS_FIELDS,
        pa.field("source_offset", pa.int64(), nullable=False),
        pa.field("timestamp", TIME, nullable=False),  # as on the source log
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("code", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("stored_at", TIME, nullable=False),
    ]
)
LEDGER = pa.schema(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),
        pa.field("next", pa.int64(), nullable=False),
        pa.field("lost", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("stored_at", TIME, nullable=False),
    ]
)
POSITION = pa.schema(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("next", pa.int64(), nullable=False),
        pa.field("stored_at", TIME, nullable=False),
    ]
)
PROVENANCE = pa.schema(
    [
        pa.field("id", pa.uint64(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("first_seen", TIME, nullable=False),
    ]
)
#: Source ranges whose rows were dropped on purpose.  The ledger still covers them.
RETAINED = pa.schema(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),
        pa.field("next", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("dead", pa.int64(), nullable=False),
        pa.field("before", TIME, nullable=False),  # all of them came in earlier
        pa.field("retained_at", TIME, nullable=False),
    ]
)
#: Columns that ``events`` got, when, and from which version of streamapp.
MIGRATIONS = pa.schema(
    [
        pa.field("at", TIME, nullable=False),
        pa.field("column", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
    ]
)
META = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
    ]
)

#: Tables that stores of this format got later; one that lacks them gets them when it opens.
_LATER = {"retained": RETAINED, "migrations": MIGRATIONS, "answers": ANSWERS}


def prepare(
    connection: duckdb.DuckDBPyConnection, path: str, columns: Mapping[str, pa.DataType]
) -> pa.Schema:
    """Make or widen the tables; return the Arrow schema that rows of ``events`` must have.

    Columns of stages that no longer run stay, and are NULL in new rows.

    Args:
        connection: a connection whose current database is the store.
        path: how messages name the store.
        columns: the stages' columns with their Arrow types.

    Raises:
        Refuse: the file is not a store, is of another format, or a column cannot be what it is
        asked to be.
    """
    check_names(columns)
    wanted = {name: _type_in_duckdb(connection, name, kind) for name, kind in columns.items()}
    connection.begin()
    try:
        check_format(connection, path)
        stored = _stored_types(connection)
        if not stored:
            _create(connection)
            stored = _stored_types(connection)
        there = _tables(connection)
        _create_tables(connection, {name: _LATER[name] for name in _LATER if name not in there})
        _widen(connection, path, stored, wanted)
        views.create(connection, _stored_types(connection))
        connection.commit()
    except BaseException:
        with contextlib.suppress(duckdb.Error):  # a failed COMMIT has ended it already
            connection.rollback()
        raise
    connection.execute("CHECKPOINT").fetchall()  # no DDL is left in the WAL for a crash to replay
    return _row_schema(connection, columns)


def check_names(columns: Mapping[str, pa.DataType], core: Iterable[pa.Field] = CORE_FIELDS) -> None:
    """Refuse stages' columns that are called like one of the core's, or like each other."""
    taken = {field.name for field in core}
    for name in columns:
        if name.lower() in taken:  # DuckDB's names do not tell cases apart
            raise Refuse(
                "store.column_name",
                f"a stage writes a column {name!r}, which the store has already",
                "give the stage's column another name",
            )
        taken.add(name.lower())


def check_format(connection: duckdb.DuckDBPyConnection, path: str) -> None:
    """Refuse a file that is of someone else, or a store of another format; an empty one is fine."""
    tables = _tables(connection)
    if not tables:
        return
    if "meta" not in tables:
        raise Refuse(
            "store.foreign",
            f"{path} is a DuckDB file of someone else (it has {', '.join(sorted(tables)[:3])})",
            "give the store a file of its own (STREAMAPP_DB_PATH)",
        )
    found = connection.execute("SELECT value FROM meta WHERE name = 'format'").fetchall()
    if found != [(FORMAT,)]:
        value = found[0][0] if found else "none"
        raise Refuse(
            "store.format",
            f"{path} has store format {value}, this version of streamapp reads {FORMAT}",
            "use the version that wrote it, or move it away: events.enriched fills a new one",
        )


def _tables(connection: duckdb.DuckDBPyConnection) -> set[str]:
    return {
        str(name)
        for (name,) in connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"
        ).fetchall()
    }


def _create(connection: duckdb.DuckDBPyConnection) -> None:
    tables = {
        "events": pa.schema(CORE_FIELDS),
        "dead": DEAD,
        "ledger": LEDGER,
        "position": POSITION,
        "provenance": PROVENANCE,
        "meta": META,
    }
    _create_tables(connection, tables)
    connection.execute("INSERT INTO meta VALUES ('format', ?)", [FORMAT]).fetchall()


def _create_tables(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, pa.Schema]) -> None:
    for table, schema in tables.items():
        definitions = _definitions(connection, table, schema)
        connection.execute(f"CREATE TABLE {table} ({definitions})").fetchall()


def _definitions(connection: duckdb.DuckDBPyConnection, table: str, schema: pa.Schema) -> str:
    json_columns = {"events": _JSON_COLUMNS, "provenance": {"detail"}}.get(table, set())
    return ", ".join(
        f"{quoted(field.name)} "
        + (
            "JSON"
            if field.name in json_columns
            else _type_in_duckdb(connection, field.name, field.type)
        )
        + ("" if field.nullable else " NOT NULL")
        for field in schema
    )


def _widen(
    connection: duckdb.DuckDBPyConnection,
    path: str,
    stored: Mapping[str, str],
    wanted: Mapping[str, str],
) -> None:
    for name, kind in wanted.items():
        before = stored.get(name.lower())
        if before is None:
            connection.execute(f"ALTER TABLE events ADD COLUMN {quoted(name)} {kind}").fetchall()
            connection.execute(
                "INSERT INTO migrations VALUES (make_timestamptz(?), ?, ?, ?)",
                [clock.now_us(), name, kind, version("streamapp")],
            ).fetchall()
        elif before != kind:
            raise Refuse(
                "store.column_type",
                f"column {name!r} of {path} is {before}, the workflow now writes {kind}",
                "give the stage's column another name, or move the file away: "
                "events.enriched fills a new one",
            )


def _stored_types(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    rows = connection.execute(
        "SELECT lower(column_name), data_type FROM duckdb_columns() "
        "WHERE database_name = current_database() AND table_name = 'events' ORDER BY column_index"
    ).fetchall()
    return {str(name): str(kind) for name, kind in rows}


def _type_in_duckdb(connection: duckdb.DuckDBPyConnection, name: str, kind: pa.DataType) -> str:
    """DuckDB's own answer to what it makes of an Arrow type."""
    try:
        column = pa.array([], kind)
        connection.register("asked", pa.table({"asked": column}))
        (row,) = connection.execute("DESCRIBE SELECT * FROM asked").fetchall()
        connection.unregister("asked")
    except (duckdb.Error, pa.ArrowException, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise Refuse(
            "store.column_type",
            f"column {name!r} has Arrow type {kind}, which DuckDB cannot store: {reason}",
            "write another type",
        ) from None
    if row[1] == '"NULL"':
        raise Refuse(
            "store.column_type", f"column {name!r} has Arrow type null", "write a type with values"
        )
    return str(row[1])


def _row_schema(
    connection: duckdb.DuckDBPyConnection, columns: Mapping[str, pa.DataType]
) -> pa.Schema:
    """Types as they are declared; as DuckDB exports them for columns of stages that are gone."""
    declared = {field.name: field for field in CORE_FIELDS}
    declared |= {name: pa.field(name, kind) for name, kind in columns.items()}
    table = connection.sql("SELECT * FROM events LIMIT 0").to_arrow_table()
    by_lower = {name.lower(): field for name, field in declared.items()}
    return pa.schema([by_lower.get(field.name.lower(), field) for field in table.schema])
