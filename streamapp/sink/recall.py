"""What the tables remember: ledger, positions, provenance and ids, read back when a store opens."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from streamapp.core.batch import TIME
from streamapp.core.ranges import Ledger, OffsetRange
from streamapp.sink.window import keys_of

#: Ranges that touch or overlap as one: a row starts an island when it begins past all before it.
_MERGED = """
    SELECT topic, "partition", min("first") AS "first", max("next") AS "next",
           sum(lost)::BIGINT AS lost, sum("rows")::BIGINT AS "rows", max(stored_at) AS stored_at
    FROM (SELECT *, count(*) FILTER (starts) OVER this AS island
          FROM (SELECT *, coalesce("first" > max("next") OVER before, true) AS starts FROM ledger
                WINDOW before AS (PARTITION BY topic, "partition" ORDER BY "first", "next"
                                  ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))
          WINDOW this AS (PARTITION BY topic, "partition" ORDER BY "first", "next"
                          ROWS UNBOUNDED PRECEDING))
    GROUP BY topic, "partition", island ORDER BY topic, "partition", "first" """
_NEWEST = """
    SELECT topic, "partition", max("next") AS "next", max(stored_at) AS stored_at
    FROM position GROUP BY ALL ORDER BY ALL"""
#: In the order they were stored, which is that of rowid.
_IDS = """
    SELECT source, id, epoch_us(ingest_time) AS at_us FROM
        (SELECT source, id, ingest_time, rowid AS number FROM events
         WHERE ingest_time >= (SELECT max(ingest_time) FROM events) - to_seconds(?)
         ORDER BY number DESC LIMIT ?)
    ORDER BY number"""
_ROWS_AT_ONCE = 65_536


def compact(connection: duckdb.DuckDBPyConnection) -> None:
    """Rewrite ledger and position to what they amount to, in one transaction; safe when killed."""
    connection.begin()
    try:
        for table, merged in (("ledger", _MERGED), ("position", _NEWEST)):
            kept = connection.sql(merged).to_arrow_table()
            ((stored,),) = connection.sql(f"FROM {table}").count("*").fetchall()
            if stored > kept.num_rows:
                connection.execute(f"TRUNCATE {table}").fetchall()
                insert(connection, table, kept)
        connection.commit()
    except BaseException:
        with contextlib.suppress(duckdb.Error):  # a failed COMMIT has ended it already
            connection.rollback()
        raise


class Inserting:
    """Appends Arrow rows to several tables by column name, in one statement, again and again.

    It is planned once.  To parse, bind and plan an INSERT takes longer than to insert a row, and
    one statement of many tables takes less than one for each.

    Args:
        connection: its only user.
        schemas: of all rows, by table; the tables are ours.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, schemas: Mapping[str, pa.Schema]
    ) -> None:
        self._connection = connection
        # Made once: it takes Arrow a call for each column.
        self._nothing = {table: schema.empty_table() for table, schema in schemas.items()}
        self._sources = {table: _Rows(nothing) for table, nothing in self._nothing.items()}
        for table, source in self._sources.items():
            connection.register(f"incoming_{table}", source)
        *others, last = (f"INSERT INTO {table} BY NAME FROM incoming_{table}" for table in schemas)
        beside = ", ".join(f"part_{number} AS ({query})" for number, query in enumerate(others))
        connection.execute(f"PREPARE inserting AS WITH {beside} {last}").fetchall()
        (self._statement,) = connection.extract_statements("EXECUTE inserting")

    def insert(self, rows: Mapping[str, pa.Table]) -> None:
        """Append the rows of each table, in the running transaction."""
        for table, given in rows.items():
            self._sources[table].table = given
        try:
            self._connection.execute(self._statement).fetchall()
        finally:
            for table in rows:
                self._sources[table].table = self._nothing[table]


class _Rows:
    """What DuckDB asks for rows each time that it runs a query over them."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_schema__(self) -> object:
        return self.table.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


def insert(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    """Append Arrow rows by column name.  ``table`` is one of ours, never a client's word."""
    if rows.num_rows == 0:
        return
    _execute_with(connection, rows, f"INSERT INTO {table} BY NAME FROM incoming")


def _execute_with(
    connection: duckdb.DuckDBPyConnection,
    rows: pa.Table,
    query: str,
    parameters: Sequence[Any] = (),
) -> list[Any]:
    """Run a query over Arrow rows, which it calls ``incoming``.

    When it fails the name stays, until the next call takes it: an aborted transaction can give
    nothing back.
    """
    connection.register("incoming", rows)
    found = connection.execute(query, parameters).fetchall()
    connection.unregister("incoming")
    return found


def read_ledger(connection: duckdb.DuckDBPyConnection) -> Ledger:
    """Every source range that is stored."""
    rows = connection.execute(_MERGED).fetchall()
    return Ledger(OffsetRange(row[0], row[1], row[2], row[3]) for row in rows)


def read_positions(connection: duckdb.DuckDBPyConnection) -> dict[tuple[str, int], int]:
    """(Enriched topic, partition) to the offset to go on with."""
    rows = connection.execute(_NEWEST).fetchall()
    return {(row[0], row[1]): row[2] for row in rows}


def read_provenance(connection: duckdb.DuckDBPyConnection) -> set[int]:
    """The ids that table ``provenance`` explains."""
    return {row[0] for row in connection.execute("SELECT id FROM provenance").fetchall()}


def read_ids(
    connection: duckdb.DuckDBPyConnection, span_s: int, events_max: int
) -> Iterator[tuple[bytes, int]]:
    """The newest rows' keys in the dedup window and ingest times in Unix us, oldest first."""
    relation = connection.sql(_IDS, params=[span_s, events_max])
    for batch in relation.to_arrow_reader(_ROWS_AT_ONCE):
        sources, ids, times_us = batch.columns
        keys = keys_of(sources.cast(pa.string()), ids.cast(pa.string()))
        yield from zip(keys, times_us.to_pylist(), strict=True)


def other_event(
    connection: duckdb.DuckDBPyConnection, topic: str, partition: int, rows: pa.Table
) -> tuple[int, str, str] | None:
    """Find a row that is not the one stored at its address.

    Args:
        connection: where the store is the current database.
        topic: the source topic.
        partition: the source partition.
        rows: source_offset, id, ingest_time.

    Returns:
        (offset, stored id, given id) of the first, or None.  A row with no counterpart is fine: it
        was a duplicate by id, or went to ``dead``.
    """
    rows = rows.cast(
        pa.schema([("source_offset", pa.int64()), ("id", pa.string()), ("ingest_time", TIME)])
    )
    offsets = rows.column("source_offset").to_numpy()
    found = _execute_with(
        connection,
        rows,
        "SELECT stored.source_offset, stored.id, given.id FROM incoming AS given "
        "JOIN events AS stored USING (source_offset) "
        "WHERE stored.source_topic = ? AND stored.source_partition = ? "
        "AND stored.source_offset BETWEEN ? AND ? "
        "AND (stored.id <> given.id OR stored.ingest_time <> given.ingest_time) "
        "ORDER BY 1 LIMIT 1",
        [topic, partition, int(offsets.min()), int(offsets.max())],
    )
    return found[0] if found else None


def bad_json(
    connection: duckdb.DuckDBPyConnection, rows: pa.Table
) -> dict[tuple[str, int, int], str]:
    """Why rows of ``events`` have JSON that DuckDB's parser refuses, by source address."""
    found = _execute_with(
        connection,
        rows,
        "SELECT source_topic, source_partition, source_offset, "
        "CASE WHEN json_valid(payload) THEN 'attachments' ELSE 'payload' END "
        "FROM incoming WHERE NOT json_valid(payload) OR NOT json_valid(attachments)",
    )
    return {(row[0], row[1], row[2]): f"{row[3]} is not JSON that DuckDB can keep" for row in found}
