"""Flight SQL's answers about the server and its tables, as Arrow tables.

The schemas are those of FlightSql.proto (Apache Arrow), which drivers check.
"""

from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from streamapp.core.sql import quoted
from streamapp.flight import info, standard, wire

CATALOGS = pa.schema([pa.field("catalog_name", pa.string(), nullable=False)])
DB_SCHEMAS = pa.schema(
    [
        pa.field("catalog_name", pa.string()),
        pa.field("db_schema_name", pa.string(), nullable=False),
    ]
)
TABLES = pa.schema(
    [
        pa.field("catalog_name", pa.string()),
        pa.field("db_schema_name", pa.string()),
        pa.field("table_name", pa.string(), nullable=False),
        pa.field("table_type", pa.string(), nullable=False),
    ]
)
TABLES_WITH_SCHEMA = TABLES.append(pa.field("table_schema", pa.binary(), nullable=False))
TABLE_TYPES = pa.schema([pa.field("table_type", pa.string(), nullable=False)])

_SCHEMAS_SQL = """
    SELECT database_name AS catalog_name, schema_name AS db_schema_name FROM duckdb_schemas()
    WHERE database_name = current_database()
      AND database_name = coalesce(?, database_name) AND schema_name LIKE coalesce(?, '%')
    ORDER BY ALL"""
_TABLES_SQL = """
    SELECT table_catalog AS catalog_name, table_schema AS db_schema_name, table_name, table_type
    FROM information_schema.tables
    WHERE table_catalog = current_database() AND table_catalog = coalesce(?, table_catalog)
      AND table_schema LIKE coalesce(?, '%') AND table_name LIKE coalesce(?, '%')
    ORDER BY ALL"""

Cursor = duckdb.DuckDBPyConnection


def schema_of(name: str, message: wire.Message) -> pa.Schema | None:
    """The schema of the answer to a metadata command; None for other commands."""
    if name == "CommandGetTables":
        return TABLES_WITH_SCHEMA if wire.flag(message, 5) else TABLES
    return {
        "CommandGetCatalogs": CATALOGS,
        "CommandGetDbSchemas": DB_SCHEMAS,
        "CommandGetTableTypes": TABLE_TYPES,
        "CommandGetSqlInfo": info.SCHEMA,
        **standard.SCHEMAS,
    }.get(name)


def answer(name: str, message: wire.Message, cursor: Cursor) -> pa.Table:
    """The answer to a metadata command that ``schema_of`` knows.

    Raises:
        Refuse: the message is malformed.
    """
    if name in standard.SCHEMAS:
        return standard.answer(name, message)
    makers: dict[str, Callable[[wire.Message, Cursor], pa.Table]] = {
        "CommandGetCatalogs": _catalogs,
        "CommandGetDbSchemas": _db_schemas,
        "CommandGetTables": _tables,
        "CommandGetTableTypes": _table_types,
        "CommandGetSqlInfo": info.answer,
    }
    return makers[name](message, cursor)


def table_names(cursor: Cursor) -> list[str]:
    """Tables and views of the store, sorted."""
    return [str(row[2]) for row in cursor.execute(_TABLES_SQL, [None, None, None]).fetchall()]


def select_from(table: str) -> str:
    """The statement that reads a whole table."""
    return f"FROM {quoted(table)}"


def _catalogs(_message: wire.Message, cursor: Cursor) -> pa.Table:
    return _query(cursor, "SELECT current_database() AS catalog_name", [], CATALOGS)


def _db_schemas(message: wire.Message, cursor: Cursor) -> pa.Table:
    parameters = [wire.first_text(message, 1), wire.first_text(message, 2)]
    return _query(cursor, _SCHEMAS_SQL, parameters, DB_SCHEMAS)


def _tables(message: wire.Message, cursor: Cursor) -> pa.Table:
    parameters = [wire.first_text(message, number) for number in (1, 2, 3)]
    table = _query(cursor, _TABLES_SQL, parameters, TABLES)
    if types := wire.texts(message, 4):
        table = table.filter(pa.array([t in types for t in table["table_type"].to_pylist()]))
    if wire.flag(message, 5):
        schemas = [
            cursor.sql(f"{select_from(name)} LIMIT 0").to_arrow_table().schema.serialize()
            for name in table["table_name"].to_pylist()
        ]
        column = pa.array([schema.to_pybytes() for schema in schemas], pa.binary())
        table = table.append_column(TABLES_WITH_SCHEMA.field(4), column)
    return table


def _table_types(_message: wire.Message, _cursor: Cursor) -> pa.Table:
    return pa.table([["BASE TABLE", "VIEW"]], schema=TABLE_TYPES)


def _query(cursor: Cursor, sql: str, parameters: Sequence[Any], schema: pa.Schema) -> pa.Table:
    return cursor.sql(sql, params=parameters).to_arrow_table().cast(schema)
