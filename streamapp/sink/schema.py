"""The store's tables, format 1: created, checked and widened when the store opens, never later.

No table has a primary key or an index, and nothing is ever updated.  One UPDATE (an upsert is one)
that commits while a reader is open keeps DuckDB 2.0 from checkpointing, and its WAL then grows
without bound; transactions that only insert into tables without indexes do not.
"""

from collections.abc import Mapping

import duckdb
import pyarrow as pa

from streamapp.core.batch import EVENT_SCHEMA, TIME
from streamapp.core.errors import Refuse

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
META = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
    ]
)

#: The newest events, and the earlier events most like one event (cosine; vectors are unit length).
_LATEST = """CREATE OR REPLACE VIEW latest AS
    SELECT * FROM events
    ORDER BY ingest_time DESC, source_topic, source_partition, source_offset DESC LIMIT 100"""
_NEAR = """CREATE OR REPLACE MACRO near(event_id, k) AS TABLE
    SELECT past.id, past.time, past.conversation, past.text,
           array_inner_product(past.embedding, this.embedding) AS cosine
    FROM events AS past,
         (SELECT time, source_offset, embedding FROM events WHERE id = event_id LIMIT 1) AS this
    WHERE (past.time, past.source_offset) < (this.time, this.source_offset)
      AND past.embedding IS NOT NULL
    ORDER BY cosine DESC LIMIT k"""


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
    _check_names(columns)
    wanted = {name: _type_in_duckdb(connection, name, kind) for name, kind in columns.items()}
    connection.begin()
    try:
        _check_format(connection, path)
        stored = _stored_types(connection)
        if not stored:
            _create(connection)
            stored = _stored_types(connection)
        _widen(connection, path, stored, wanted)
        _create_views(connection, "embedding" in {*stored, *wanted})
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    connection.execute("CHECKPOINT").fetchall()  # no DDL is left in the WAL for a crash to replay
    return _row_schema(connection, columns)


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _check_names(columns: Mapping[str, pa.DataType]) -> None:
    taken = {field.name for field in CORE_FIELDS}
    for name in columns:
        if name.lower() in taken:  # DuckDB's names do not tell cases apart
            raise Refuse(
                "store.column_name",
                f"a stage writes a column {name!r}, which the store has already",
                "give the stage's column another name",
            )
        taken.add(name.lower())


def _check_format(connection: duckdb.DuckDBPyConnection, path: str) -> None:
    tables = {
        str(name)
        for (name,) in connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"
        ).fetchall()
    }
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


def _create(connection: duckdb.DuckDBPyConnection) -> None:
    tables = {
        "events": pa.schema(CORE_FIELDS),
        "dead": DEAD,
        "ledger": LEDGER,
        "position": POSITION,
        "provenance": PROVENANCE,
        "meta": META,
    }
    for table, schema in tables.items():
        connection.execute(f"CREATE TABLE {table} ({_definitions(connection, table, schema)})")
    connection.execute("INSERT INTO meta VALUES ('format', ?)", [FORMAT]).fetchall()


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
        elif before != kind:
            raise Refuse(
                "store.column_type",
                f"column {name!r} of {path} is {before}, the workflow now writes {kind}",
                "give the stage's column another name, or move the file away: "
                "events.enriched fills a new one",
            )


def _create_views(connection: duckdb.DuckDBPyConnection, embedded: bool) -> None:
    connection.execute(_LATEST).fetchall()
    if embedded:
        connection.execute(_NEAR).fetchall()


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
