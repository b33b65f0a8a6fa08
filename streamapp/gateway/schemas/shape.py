"""What events of one type have looked like: the fields that any of them had, and with what.

A field is named by its path: ``order.items[].sku``; a key that is no plain name is quoted.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from streamapp.gateway.schemas.sample import Sample, redacted

FIELDS_MAX = 200
DEPTH_MAX = 6
#: Of one event: cells that are looked at, and of an array elements.
CELLS_MAX, ELEMENTS_MAX = 2_000, 16
_PATH_CHARS_MAX = 200
_CONTEXTS_MAX, _CONTEXT_BYTES_MAX = 4, 2_048
_PLAIN = re.compile(r"[\w@$:-]+")
_TOP = re.compile(r'[\w@$:-]+|\["(?:[^"\\]|\\.)*"\]')
_KINDS: Mapping[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    dict: "object",
    list: "array",
    type(None): "null",
}
_encode = msgspec.json.Encoder(order="deterministic").encode


class Field(msgspec.Struct):
    """``count`` events had it, with JSON values of these ``types`` (sorted)."""

    count: int
    types: list[str]


class Shape(msgspec.Struct):
    """The union of the events of a type.

    ``count`` are all; ``examined`` those whose fields are counted; ``inferred`` those whose type
    was guessed, which are not examined.  Times are Unix microseconds.  ``is_cut``: some had more
    fields than are kept.  ``contexts``: JSON-LD's ``@context`` values.
    """

    first_us: int
    last_us: int
    count: int = 0
    examined: int = 0
    inferred: int = 0
    fields: dict[str, Field] = {}
    is_cut: bool = False
    contexts: list[Any] = []
    sample: Sample | None = None

    def examine(self, value: Mapping[str, Any], *, keep_sample: bool) -> bool:
        """Add one event's fields; True when it differed from all before it.

        It had a field or a type that none had, or none of a field that all had.
        """
        found: dict[str, set[str]] = {}
        for path, kind in cells_of(value):
            found.setdefault(path, set()).add(kind)
        in_all = sum(field.count == self.examined for field in self.fields.values())
        self.examined += 1
        news = [self._add(path, 1, kinds) for path, kinds in found.items()]
        still = sum(field.count == self.examined for field in self.fields.values())
        is_new = any(news) or still < in_all
        if "@context" in value:
            is_new |= self._add_context(value["@context"])
        if keep_sample and (self.sample is None or self.sample.fields < len(found)):
            self.sample = Sample(redacted(value), len(found))
            is_new = True
        return is_new

    def join(self, other: "Shape") -> None:
        """Add what another one saw."""
        self.first_us = min(self.first_us, other.first_us)
        self.last_us = max(self.last_us, other.last_us)
        self.count += other.count
        self.examined += other.examined
        self.inferred += other.inferred
        self.is_cut |= other.is_cut
        for path, field in other.fields.items():
            self._add(path, field.count, field.types)
        for context in other.contexts:
            self._add_context(context)
        if other.sample and (self.sample is None or self.sample.fields < other.sample.fields):
            self.sample = other.sample

    def _add(self, path: str, count: int, kinds: set[str] | list[str]) -> bool:
        """Count a field; True when it is new, or has a new type."""
        field = self.fields.get(path)
        if field is None:
            if len(self.fields) >= FIELDS_MAX:
                self.is_cut = True
                return False
            self.fields[path] = Field(count, sorted(kinds))
            return True
        field.count += count
        if set(kinds).issubset(field.types):
            return False
        field.types = sorted({*field.types, *kinds})
        return True

    def _add_context(self, context: Any) -> bool:
        """Keep a ``@context``; True for one that is new."""
        is_known = context in self.contexts or len(self.contexts) >= _CONTEXTS_MAX
        if is_known or len(_encode(context)) > _CONTEXT_BYTES_MAX:
            return False
        self.contexts.append(context)
        return True


def path_of(key: str) -> str:
    """The path of a key at the top."""
    return key if _PLAIN.fullmatch(key) else f"[{_encode(key).decode()}]"


def is_top(path: str) -> bool:
    """Whether it is the path of a key at the top."""
    return _TOP.fullmatch(path) is not None


def kind_of(value: Any) -> str:
    """JSON's name for the type of a value; ``integer`` for a number that is one."""
    return _KINDS[type(value)]


def cells_of(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(path, type) of what an object holds, breadth first, within the limits; keys may repeat."""
    level: list[tuple[str, Any]] = [("", value)]
    left = CELLS_MAX
    for _ in range(DEPTH_MAX):
        below: list[tuple[str, Any]] = []
        for path, parent in level:
            for child_path, child in _children(path, parent):
                left -= 1
                if left < 0:
                    return
                yield child_path, _KINDS[type(child)]
                if isinstance(child, dict | list):
                    below.append((child_path, child))
        level = below


def _children(path: str, parent: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(parent, list):
        for child in parent[:ELEMENTS_MAX]:
            yield f"{path}[]", child
        return
    for key, child in parent.items():
        step = path_of(key)
        dot = "." if path and not step.startswith("[") else ""
        child_path = f"{path}{dot}{step}"
        if len(child_path) <= _PATH_CHARS_MAX:
            yield child_path, child
