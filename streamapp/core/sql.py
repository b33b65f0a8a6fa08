"""Pieces of SQL, and what DuckDB's ``json_serialize_sql`` says of a statement."""

from typing import Any


def quoted(name: str) -> str:
    """An identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string."""
    return "'" + text.replace("'", "''") + "'"


def without_arguments(tree: dict[str, Any]) -> Any:
    """A statement's shape: its parse tree with the selected functions' arguments only counted."""
    node = dict(tree["statements"][0]["node"])
    node["select_list"] = [
        {**call, "arguments": len(call.get("arguments", []))}
        for call in node.get("select_list", [])
    ]
    return _unlocated(node)


def _unlocated(value: Any) -> Any:
    if isinstance(value, dict):
        located = ("query_location", "query_location_length")
        return {name: _unlocated(part) for name, part in value.items() if name not in located}
    return [_unlocated(part) for part in value] if isinstance(value, list) else value
