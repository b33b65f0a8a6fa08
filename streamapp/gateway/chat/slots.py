"""The slots of a type of event: the plain fields at the top of what its events looked like."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from streamapp.core.event import roles
from streamapp.gateway.chat.wire import MESSAGE_CHARS_MAX
from streamapp.gateway.schemas.describe import steps_of
from streamapp.gateway.schemas.shape import Shape, is_top
from streamapp.models.llm.question import Question
from streamapp.models.llm.tasks import slots_question

SLOTS_MAX = 32
_WHOLE_MAX = 2**53
_SCALARS = frozenset({"string", "boolean", "integer", "number"})
_PYTHON: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}


class Form(NamedTuple):
    """A type of event as something to be filled in.

    ``slots``: name to JSON types; ``required``: those that every examined event had.
    """

    kind: str
    slots: Mapping[str, tuple[str, ...]]
    required: tuple[str, ...]

    def question(self, message: str, filled: Mapping[str, Any]) -> Question:
        """What the message says of the slots."""
        return slots_question(message, self.kind, self.slots, self.required, filled)

    def fits(self, name: str, value: Any) -> bool:
        """Whether the value may stand in the slot."""
        kinds = self.slots.get(name, ())
        if isinstance(value, bool):
            return "boolean" in kinds
        return any(isinstance(value, _PYTHON[kind]) for kind in kinds)

    def taken(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Of what a model said, what may stand in the slots; 2.0 is a whole number in JSON.

        A text that is longer than any message is not taken from one.
        """
        whole = {
            name: int(value)
            for name, value in said.items()
            if _is_whole(value) and not self.fits(name, value)
        }
        values = {**said, **whole}
        return {
            name: value
            for name, value in values.items()
            if self.fits(name, value) and len(str(value)) <= MESSAGE_CHARS_MAX
        }

    def missing(self, filled: Mapping[str, Any]) -> list[str]:
        """Required slots without a value, in order."""
        return [name for name in self.required if filled.get(name) is None]


def _is_whole(value: Any) -> bool:
    """Whether a float is a whole number as it was said: beyond 2**53 they are rounded."""
    return isinstance(value, float) and value.is_integer() and abs(value) <= _WHOLE_MAX


def form_of(kind: str, shape: Shape) -> Form:
    """The fields that are no fields of every event, hold plain values, and came most often."""
    tops = {str(steps_of(path)[0]): field for path, field in shape.fields.items() if is_top(path)}
    names = list(tops)
    own = [name for name, role in zip(names, roles(names), strict=True) if role is None]
    fitting = {
        name: tuple(kind for kind in tops[name].types if kind in _SCALARS)
        for name in own
        if not {"object", "array"} & set(tops[name].types)
    }
    chosen = sorted(
        (name for name, kinds in fitting.items() if kinds),
        key=lambda name: (-tops[name].count, name),
    )[:SLOTS_MAX]
    required = tuple(name for name in chosen if tops[name].count == shape.examined)
    return Form(kind, {name: fitting[name] for name in chosen}, required)
