"""How large a statement becomes when DuckDB binds it.

An alias is copied to where the same SELECT list names it, a macro's argument to where it is used,
and a CTE that is not materialized to where it is read.  So each may double what came before, and
nothing interrupts binding: 25 short words would keep a thread for hours.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from streamapp.core.errors import Refuse
from streamapp.sink.bounds import BOUNDED

#: Nodes that binding may add; a thousand take milliseconds.
ADDED_MAX = 100_000
#: What doubles takes seven nodes a time, so these double ten times at most.
_NODES_FEW = 70
#: Macros, DuckDB's and the store's, that name an argument more than once; nests of these are usual
#: for their first one only, which they name once.
_DOUBLING = (BOUNDED - {"lpad", "rpad"}) | {
    "map_contains_entry", "nullif", "split_part", "wavg", "weighted_avg",
}  # fmt: skip


def check(nodes: Sequence[dict[str, Any]]) -> None:
    """Refuse a statement, given all nodes of its parse tree, that would grow too much.

    Raises:
        Refuse: ``sql.depth``.
    """
    if len(nodes) <= _NODES_FEW:
        return
    for node in nodes:
        queries = [
            (str(one["key"]), one["value"])
            for one in (node.get("cte_map") or {}).get("map", ())
            if one["value"].get("materialized") == "CTE_MATERIALIZE_NEVER"
        ]
        columns = [
            (str(one.get("alias", "")), one)
            for one in node.get("select_list", ())
            if isinstance(one, dict)
        ]
        _check_copied(queries)
        _check_copied(columns)


def _check_copied(parts: list[tuple[str, Any]]) -> None:
    """Parts that may name those before them."""
    sizes: dict[str, int] = {}
    for name, part in parts:
        size, added = _size(part, sizes)
        if added > ADDED_MAX:
            raise Refuse(
                "sql.depth",
                "the statement grows too large: aliases, functions or CTEs double each other",
                "compute the parts in a subquery each, or WITH ... AS MATERIALIZED (...)",
            )
        if name:
            sizes[name.lower()] = size


def _size(part: Any, sizes: Mapping[str, int]) -> tuple[int, int]:
    """The nodes of a part once it is bound, and how many more than those written that is."""
    size = written = 0
    waiting: list[tuple[Any, int]] = [(part, 1)]
    while waiting:
        value, times = waiting.pop()
        if isinstance(value, dict):
            written += 1
            size += times * (1 + sizes.get(_named(value), 0))
            if str(value.get("function_name", "")).lower() in _DOUBLING:
                times = min(2 * times, 1 << 60)
            waiting.extend((inner, times) for inner in value.values())
        elif isinstance(value, list):
            waiting.extend((inner, times) for inner in value)
    return size, size - written


def _named(node: Mapping[str, Any]) -> str:
    """The alias or the CTE that a node may stand for, in lower case."""
    names = node.get("column_names") if node.get("type") == "COLUMN_REF" else None
    if names and len(names) == 1:
        return str(names[0]).lower()
    return str(node.get("table_name", "")).lower() if node.get("type") == "BASE_TABLE" else ""
