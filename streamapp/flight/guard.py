"""What clients may ask: one statement that only reads.

DuckDB also calls SELECT what inserts in a CTE, checkpoints in a table function or takes a raw
pointer (``arrow_scan``).  So the parse tree is read: which kinds of node it has and which functions
it calls.  Statements also run in a read-only transaction.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import duckdb

from streamapp.core.errors import Refuse
from streamapp.flight import expansion
from streamapp.sink.bounds import BOUNDED

SQL_BYTES_MAX = 1 << 20

_EXPLAIN = re.compile(r"\s*explain(\s+analyze)?\s+", re.IGNORECASE)
#: Kinds of query; the ones left out insert, update, delete or merge.
_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
#: Table functions that read nothing but the store and their arguments.
_TABLE_FUNCTIONS = frozenset(
    {
        "duckdb_columns", "duckdb_constraints", "duckdb_functions", "duckdb_indexes",
        "duckdb_keywords", "duckdb_schemas", "duckdb_tables", "duckdb_types", "duckdb_views",
        "generate_series", "json_each", "json_tree", "near", "pragma_show", "pragma_storage_info",
        "pragma_table_info", "pragma_version", "range", "repeat", "repeat_row", "similar",
        "summary", "unnest", "velocity",
    }
)  # fmt: skip
#: DuckDB's own views, which are named as the functions behind them; those of these families tell
#: about the machine where the functions do.
_OWN_VIEWS = ("duckdb_", "pragma_", "pg_settings")
#: Functions that do something, or tell about the machine; ``reservoir_quantile`` takes as much
#: memory as it is told to, and where there is not as much DuckDB gives up the file.
_FUNCTIONS_REFUSED = frozenset(
    {"write_log", "nextval", "setseed", "current_setting", "getenv", "reservoir_quantile"}
)


def check(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    """Let a statement pass, or say why not; its parse tree.

    Raises:
        Refuse: ``sql.syntax`` with DuckDB's words, or ``sql.not_allowed``.
        InterruptException: DuckDB's, when the connection was interrupted meanwhile.
    """
    if len(sql.encode(errors="replace")) > SQL_BYTES_MAX:
        raise Refuse("sql.too_large", f"the statement is longer than {SQL_BYTES_MAX:,} bytes")
    explained = _EXPLAIN.match(sql)
    tree = _parsed(connection, sql[explained.end() :] if explained else sql)
    nodes = list(walk(tree))
    for node in nodes:
        kind = str(node.get("type"))
        if kind.endswith("_NODE") and kind not in _NODES:
            raise _not_allowed(f"{kind.removesuffix('_QUERY_NODE')} changes data")
        name = str(node.get("function_name", "")).lower()
        if kind == "TABLE_FUNCTION":
            name = str(node["function"].get("function_name", "")).lower()
            if name not in _TABLE_FUNCTIONS:
                raise _not_allowed(
                    f"table function {name} is not one of those that clients may call"
                )
        elif kind == "BASE_TABLE":
            view = str(node.get("table_name", "")).lower()
            if view.startswith(_OWN_VIEWS) and view not in _TABLE_FUNCTIONS:
                raise _not_allowed(f"view {view} is not one of those that clients may read")
        elif name in _FUNCTIONS_REFUSED:
            raise _not_allowed(f"function {name} is not one that clients may call")
        elif name in BOUNDED and node.get("schema"):  # past the store's, which has a limit
            raise _not_allowed(f"function {name} is called with a schema's name")
    expansion.check(nodes)
    return tree


def _parsed(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    try:
        ((text,),) = connection.execute(
            "SELECT json_serialize_sql(CAST(? AS VARCHAR))", [sql]
        ).fetchall()
        tree: dict[str, Any] = json.loads(text)
    except RecursionError:
        raise Refuse("sql.depth", "the statement is nested too deeply") from None
    except duckdb.InterruptException:  # the caller knows who stopped it
        raise
    except duckdb.Error as error:  # some statements its parser knows and its serializer does not
        raise Refuse("sql.syntax", str(error).partition("\n")[0]) from None
    if tree["error"]:
        if tree["error_type"] == "not implemented":
            raise _not_allowed("it is not a SELECT")
        raise Refuse("sql.syntax", f"{tree['error_type']} error: {tree['error_message']}")
    if not tree["statements"]:
        raise Refuse("sql.empty", "the statement is empty", "send one SELECT")
    if len(tree["statements"]) != 1:
        raise _not_allowed(f"these are {len(tree['statements'])} statements")
    return tree


def functions(tree: dict[str, Any]) -> frozenset[str]:
    """The names of all functions that a statement calls, in lower case."""
    return frozenset(str(node.get("function_name", "")).lower() for node in walk(tree))


def walk(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a parse tree."""
    waiting: list[Any] = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _not_allowed(why: str) -> Refuse:
    return Refuse(
        "sql.not_allowed",
        f"{why}",
        "send one SELECT, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN; the server is read only",
    )
