"""The types of a statement's parameters, as far as it says them.

DuckDB knows them only when values are bound, and JDBC binds nothing without a type.  So the parse
tree is read: a parameter beside a column has the column's type, one under a CAST the cast's, LIMIT
takes a number.  Everything else is text, which DuckDB casts.
"""

from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa

from streamapp.flight import guard

_COLUMNS_SQL = """
    SELECT lower(column_name), min(data_type) FROM duckdb_columns()
    WHERE database_name = current_database()
    GROUP BY ALL HAVING count(DISTINCT data_type) = 1"""
#: DuckDB's types that every driver binds.
_TYPES = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "INT": pa.int32(),
    "BIGINT": pa.int64(),
    "UBIGINT": pa.int64(),  # JDBC has no unsigned numbers
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "DATE": pa.date32(),
    "TIMESTAMP": pa.timestamp("us"),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", tz="UTC"),
    "TIMESTAMPTZ": pa.timestamp("us", tz="UTC"),
    "BLOB": pa.binary(),
}


def types(cursor: duckdb.DuckDBPyConnection, sql: str) -> dict[str, pa.DataType]:
    """Parameter name (a position's digits for question marks) to type, in order.

    Raises:
        Refuse: the statement is not one that clients may run.
    """
    tree = guard.check(cursor, sql)
    if not any(map(_is_parameter, guard.walk(tree))):
        return {}  # what columns there are costs more than most statements
    found: dict[str, str] = {}
    columns: dict[str, str] = dict(cursor.execute(_COLUMNS_SQL).fetchall())
    for node in guard.walk(tree):
        for name, kind in _typed(node, columns):
            found.setdefault(name, kind)
        if _is_parameter(node):
            found.setdefault(str(node["identifier"]), "")
    ordered = sorted(
        found, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)
    )
    return {name: _TYPES.get(found[name], pa.string()) for name in ordered}


def _typed(node: dict[str, Any], columns: dict[str, str]) -> Iterator[tuple[str, str]]:
    if node.get("type") == "LIMIT_MODIFIER":
        limits = [part for part in (node.get("limit"), node.get("offset")) if _is_parameter(part)]
        yield from ((str(part["identifier"]), "BIGINT") for part in limits if part)
    elif node.get("class") == "CAST" and _is_parameter(node.get("child")):
        yield str(node["child"]["identifier"]), str(node["type_expr"]["type_name"]).upper()
    elif node.get("class") in {"COMPARISON", "BETWEEN", "OPERATOR"}:
        beside = [child for child in _children(node) if isinstance(child, dict)]
        kinds = {kind for child in beside if (kind := _column_type(child, columns))}
        if len(kinds) == 1:
            (kind,) = kinds
            yield from (
                (str(child["identifier"]), kind) for child in beside if _is_parameter(child)
            )


def _children(node: dict[str, Any]) -> list[Any]:
    named = [node.get(name) for name in ("left", "right", "input", "lower", "upper")]
    return [*named, *node.get("children", [])]


def _is_parameter(node: Any) -> bool:
    return isinstance(node, dict) and node.get("class") == "PARAMETER"


def _column_type(node: dict[str, Any], columns: dict[str, str]) -> str | None:
    if node.get("class") != "COLUMN_REF" or not node.get("column_names"):
        return None
    return columns.get(str(node["column_names"][-1]).lower())
