"""Expressions of SQL: one value of a row, or of a group of rows, and nothing else."""

import atexit
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from streamapp.plugin import Refuse
from streamapp.services.pipeline.large import too_much

CHARS_MAX = 10_000
#: Expressions that are known to be some: many calls of one operation have the same ones.
_PARSED_MAX = 256
#: Which DuckDB shows as columns, and which are not the same twice.
_MOMENTS = frozenset({"current_date", "current_time", "current_timestamp", "localtime"})
#: Which DuckDB takes to give the same each time.
_UNSTEADY = frozenset({"current_localtime", "current_localtimestamp"})
#: What gives a row for each value of a list.
_SPREAD = frozenset({"unnest"})
#: What its parser finds that is no expression of one row, and what to do instead.
_FOREIGN = {
    "SUBQUERY": ("a sub-select", "use pipeline.join"),
    "WINDOW": ("an OVER clause", "use pipeline.window or pipeline.aggregate"),
    "STAR": ("a star", "name the columns"),
    "PARAMETER": ("a parameter", "write the value"),
    "POSITIONAL_REFERENCE": ("a column by number", "name the column"),
}


class Expression(NamedTuple):
    """A checked expression.

    ``columns`` are the names that it may read as columns, as they are written; ``key`` is where it
    stands in a config, for messages.
    """

    sql: str
    columns: tuple[str, ...]
    key: str


class Functions(NamedTuple):
    """Names that DuckDB knows: of aggregates, and of what gives another value each time.

    ``macros`` are those that stand for expressions of SQL, with these expressions.
    """

    aggregates: frozenset[str]
    unsteady: frozenset[str]
    macros: Mapping[str, Sequence[str]]


@lru_cache(_PARSED_MAX)
def parse(sql: str, key: str, *, groups: bool = False) -> Expression:
    """An expression that gives one value for each row, from that row alone.

    Args:
        sql: like ``length(content) > 10``.
        key: of the config, like ``config.where``.
        groups: it is over the rows of a group, like ``sum(price) / count(*)``.

    Raises:
        Refuse: it does not parse, is more than one expression, reads anything but columns of its
            row, or gives another value each time.
    """
    if not sql.strip() or len(sql) > CHARS_MAX:
        size = "is empty" if not sql.strip() else f"has more than {CHARS_MAX:,} characters"
        raise _refuse(key, f"the expression {size}", "write one, like length(text) > 10")
    tree = _tree(sql, key)
    nodes = list(_nodes(tree))
    behind = list(_behind(nodes))
    meant = [*nodes, *behind]
    kinds = {node["class"] for node in meant if "class" in node}
    for kind, (what, fix) in _FOREIGN.items():
        if kind in kinds:
            raise _refuse(key, f"{_short(sql)} has {what}", fix)
    if told := too_much(tree):
        raise _refuse(key, f"{_short(sql)} {told[0]}", told[1])
    _check_functions(sql, key, meant, groups=groups)
    for name in _MOMENTS.intersection(_columns(behind)):
        why = f"{_short(sql)} reads {name}, which is another one each time"
        raise _refuse(key, why, "take a column of times")
    return Expression(sql, _columns(nodes), key)


def resolved(expression: Expression, schema: pa.Schema, origin: str) -> list[str]:
    """The columns of a schema that an expression reads.

    Names are matched as SQL does, without regard to case, unless one is exactly the same.

    Raises:
        Refuse: there is no such column, or there are two.
    """
    found: dict[str, None] = {}
    for name in expression.columns:
        same = [one for one in schema.names if one.lower() == name.lower()]
        exact = [one for one in same if one == name]
        if len(exact or same) == 1:
            found[(exact or same)[0]] = None
            continue
        if name.lower() in _MOMENTS:
            raise _refuse(
                expression.key, f"{name} is another one each time", "take a column of times"
            )
        many = "two" if same else "no"
        raise Refuse(
            "operation.column",
            f"{expression.key}: {origin!r} has {many} {name!r} column"
            f" ({_short(expression.sql)} reads it)",
            f"it has {', '.join(schema.names[:20]) or 'none'}",
        )
    return list(found)


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: object) -> str:
    """A plain value as SQL writes it.

    Raises:
        Refuse: it is none of text, number, boolean and None.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float) and value == value and abs(value) != float("inf"):  # noqa: PLR0124  # nan
        return repr(value)
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    raise _refuse("value", f"{value!r} cannot stand in an expression", "give text or a number")


def _tree(sql: str, key: str) -> dict[str, Any]:
    """The one expression's node in DuckDB's syntax tree."""
    statement = f"SELECT ({sql}\n)"  # a comment in it ends with the line
    try:
        [told] = _parser().cursor().execute(
            "SELECT json_serialize_sql(?::VARCHAR)", [statement]
        ).fetchone() or [""]
    except duckdb.Error as error:
        raise _refuse(key, f"{_short(sql)}: {_first(error)}", "see SQL expressions") from None
    try:
        tree = json.loads(told)
    except RecursionError:
        why = f"{_short(sql)} is nested too deep"
        raise _refuse(key, why, "work out a part of it in a column of its own before") from None
    if tree["error"]:
        at = int(tree.get("position", 8)) - 7
        where = f" at character {at}" if 0 < at <= len(sql) else ""
        why = f"{_short(sql)} does not parse{where}: {tree['error_message']}"
        fix = 'write an expression of SQL; a column whose name is a word of SQL is written "at"'
        raise _refuse(key, why, fix)
    node = tree["statements"][0]["node"]
    clauses = [node.get(name) for name in ("where_clause", "group_expressions", "having")]
    from_nowhere = node.get("from_table", {}).get("type") == "EMPTY"
    selected = node.get("select_list", [])
    if any(clauses) or not from_nowhere or len(selected) != 1 or len(tree["statements"]) != 1:
        why = f"{_short(sql)} is more than one expression"
        raise _refuse(key, why, "write each under a name of its own")
    found: dict[str, Any] = selected[0]
    return found


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every node of a syntax tree, the outermost first."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _behind(nodes: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The nodes of the expressions that DuckDB puts in the place of the macros that are called."""
    macros, seen = _functions().macros, set[str]()
    waiting = _called(nodes)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for sql in macros.get(name, ()):
            found = list(_nodes(_tree(sql, name)))
            waiting += _called(found)
            yield from found


def _called(nodes: Sequence[dict[str, Any]]) -> list[str]:
    return [str(node["function_name"]).lower() for node in nodes if "function_name" in node]


def _check_functions(sql: str, key: str, nodes: Sequence[dict[str, Any]], *, groups: bool) -> None:
    known = _functions()
    for name in _called(nodes):
        if name in _SPREAD:
            why = f"{_short(sql)} calls {name}(), which gives several values for a row"
            raise _refuse(key, why, "take one of the list, like list_first(tags)")
        if name in known.unsteady:
            why = f"{_short(sql)} calls {name}(), which gives another value each time"
            raise _refuse(key, why, "take a value from a column")
        if name in known.aggregates and not groups:
            why = f"{_short(sql)} calls {name}(), which is over many rows"
            raise _refuse(key, why, "use pipeline.aggregate")


def _columns(nodes: list[dict[str, Any]]) -> tuple[str, ...]:
    """What may be columns: all names but those of parameters of functions in it."""
    bound = {
        reference["column_names"][0]
        for node in nodes
        if node.get("class") == "LAMBDA"
        for reference in _nodes(node["lhs"])
        if reference.get("class") == "COLUMN_REF"
    }
    names = [node["column_names"][0] for node in nodes if node.get("class") == "COLUMN_REF"]
    return tuple(dict.fromkeys(name for name in names if name not in bound))


@cache
def _parser() -> duckdb.DuckDBPyConnection:
    """A database that holds nothing; it only parses and knows functions."""
    return duckdb.connect(
        ":memory:",
        config={
            "enable_external_access": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "threads": 1,
        },
    )


atexit.register(_parser.cache_clear)  # DuckDB's binding lists what outlives Python


@cache
def _functions() -> Functions:
    rows = (
        _parser()
        .cursor()
        .execute(
            "SELECT lower(function_name), function_type, stability, macro_definition "
            "FROM duckdb_functions()"
        )
        .fetchall()
    )
    scalar = {name for name, kind, *_ in rows if kind == "scalar"}
    macros: dict[str, list[str]] = {}
    for name, kind, _, meaning in rows:
        if kind == "macro":
            macros.setdefault(name, []).append(meaning)
    unsteady = {name for name, _, steady, _ in rows if steady not in {None, "CONSISTENT"}}
    return Functions(
        frozenset(name for name, kind, *_ in rows if kind == "aggregate") - scalar,
        _UNSTEADY.union(unsteady),
        macros,
    )


def _refuse(key: str, why: str, fix: str) -> Refuse:
    return Refuse("operation.expression", f"{key}: {why}", fix)


def _short(sql: str) -> str:
    text = " ".join(sql.split())
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _first(error: Exception) -> str:
    return str(error).splitlines()[0]
