"""A type for an event that says none: that of the one learned type whose events look the same.

The rule, on the keys at the top of the event's JSON that are no fields of every event (``id``,
``type``, ``message``, ``time`` and so on are); an event gets a type when

1. at least 20 events that said this type themselves have been examined,
2. it has every key that all of those had, of which there are two at least,
3. it has no key that none of those had, and of no key another JSON type, and
4. this holds for no second type.

Otherwise it has none.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from streamapp.core.event import roles
from streamapp.gateway.schemas.describe import steps_of
from streamapp.gateway.schemas.shape import Shape, is_top, kind_of, path_of
from streamapp.gateway.stamp import TYPE_DEFAULT, Stamped

EXAMINED_MIN = 20
REQUIRED_MIN = 2
#: Larger events are not looked into within a request.
_VALUE_BYTES_MAX = 65_536
#: Header of a record whose type was guessed.
HEADER = ("streamapp.type", b"inferred")
_NOTHING = re.compile(b"(?!)")
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


class _Candidate(NamedTuple):
    type: str
    required: frozenset[str]
    known: Mapping[str, frozenset[str]]

    def takes(self, kinds: Mapping[str, str]) -> bool:
        return self.required <= kinds.keys() and all(
            kind in self.known.get(path, ()) for path, kind in kinds.items()
        )


class Guess:
    """Guesses by what was last learned."""

    def __init__(self) -> None:
        #: By a key that each requires, one that few others do.
        self._candidates: dict[str, list[_Candidate]] = {}
        #: Finds any of these keys in JSON, so that most other events need not be decoded.
        self._hint = _NOTHING

    def __bool__(self) -> bool:
        """Whether any type is known well enough."""
        return bool(self._candidates)

    def learn(self, shapes: Mapping[str, Shape]) -> None:
        """Guess by these types from now on."""
        made = [_candidate(kind, shape) for kind, shape in shapes.items()]
        candidates = [one for one in made if one is not None]
        often = Counter(path for one in candidates for path in one.required)
        self._candidates = {}
        for one in candidates:
            rarest = min(one.required, key=lambda path: (often[path], path))
            self._candidates.setdefault(rarest, []).append(one)
        hints = [re.escape(_encode(steps_of(path)[0])) for path in self._candidates]
        self._hint = re.compile(b"|".join(hints)) if hints else _NOTHING

    def typed(self, stamped: Stamped) -> Stamped:
        """An event without a type with the one that it looks like, if any."""
        kind = self.type_of(stamped.record.value or b"") if self._candidates else None
        if kind is None:
            return stamped
        record = stamped.record
        headers = [
            (name, kind.encode()) if name == "ce_type" else (name, value)
            for name, value in record.headers
        ]
        return stamped._replace(type=kind, record=record._replace(headers=[*headers, HEADER]))

    def type_of(self, value: bytes) -> str | None:
        """The type that a JSON object looks like; None for none, or more than one."""
        if len(value) > _VALUE_BYTES_MAX or self._hint.search(value) is None:
            return None
        members = _decode(value)
        kinds = {
            path_of(key): kind_of(cell)
            for (key, cell), role in zip(members.items(), roles(members), strict=True)
            if role is None
        }
        found = [
            one for path in kinds for one in self._candidates.get(path, ()) if one.takes(kinds)
        ]
        return found[0].type if len(found) == 1 else None


def _candidate(kind: str, shape: Shape) -> _Candidate | None:
    """None for a type that an event cannot be told by."""
    if kind == TYPE_DEFAULT or shape.examined < EXAMINED_MIN or shape.is_cut:
        return None
    tops = {path: field for path, field in shape.fields.items() if is_top(path)}
    names = list(tops)
    mine = [path for path, role in zip(names, roles(names), strict=True) if role is None]
    required = frozenset(path for path in mine if tops[path].count == shape.examined)
    if len(required) < REQUIRED_MIN:
        return None
    return _Candidate(kind, required, {path: _fitting(tops[path].types) for path in mine})


def _fitting(types: list[str]) -> frozenset[str]:
    """Every integer is a number."""
    return frozenset(types) | ({"integer"} if "number" in types else frozenset())
