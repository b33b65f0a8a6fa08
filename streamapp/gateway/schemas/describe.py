"""What was learned, written as a JSON Schema that takes all of it: a draft to go on from."""

import re
from typing import Any

import msgspec

from streamapp.gateway.schemas.shape import Shape

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_STEP = re.compile(r'\[\]|\["(?:[^"\\]|\\.)*"\]|\.?([\w@$:-]+)')


def json_schema(kind: str, shape: Shape) -> dict[str, Any]:
    """A JSON Schema of a type; ``required`` is what every examined event had."""
    root: dict[str, Any] = {"$schema": _DIALECT, "title": kind, "type": "object"}
    for path in sorted(shape.fields):  # parents come before their children
        node = root
        for step in steps_of(path):
            if step is None:
                node = node.setdefault("items", {})
            else:
                node = node.setdefault("properties", {}).setdefault(step, {})
        field = shape.fields[path]
        types = [kind for kind in field.types if kind != "integer" or "number" not in field.types]
        node["type"] = types[0] if len(types) == 1 else types
        if field.count == shape.examined and len(steps_of(path)) == 1:
            root.setdefault("required", []).append(steps_of(path)[0])
    return root


def steps_of(path: str) -> list[str | None]:
    """The keys of a path; None for the elements of an array."""
    return [_key(found) for found in _STEP.finditer(path)]


def _key(found: re.Match[str]) -> str | None:
    if found[1] is not None:
        return found[1]
    return None if found[0] == "[]" else str(msgspec.json.decode(found[0][1:-1]))
