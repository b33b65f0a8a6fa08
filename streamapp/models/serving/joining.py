"""Requests into one call and its outputs back to each: along the first axis.

Requests may share a call when their inputs have equal types and equal sizes behind the first.
Inputs with a second axis of any length, as token ids have, can be filled up to the longest
(``pads``); then requests of about one length go together.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from streamapp.core.errors import Reject
from streamapp.models.session import Array, Feeds, Session, Tensor


@dataclass(frozen=True, slots=True)
class Pads:
    """``values``: input to what fills its second axis; ``step``: lengths that share a bucket.

    An output with a second axis of any size is cut back to the request's own length.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    step: int = 16


@dataclass(frozen=True, slots=True)
class Joiner:
    """How requests to one model are joined; ``joins`` is False where each goes alone."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    pads: Pads
    joins: bool

    @classmethod
    def of(cls, session: Session, pads: Pads) -> "Joiner":
        """For a model with this signature: every input and output has a first axis of any size."""
        tensors = (*session.inputs, *session.outputs)
        joins = bool(session.inputs) and all(t.shape and t.shape[0] < 0 for t in tensors)
        return cls(session.inputs, session.outputs, pads, joins)

    def rows(self, feeds: Feeds) -> int:
        """How many rows a request has.

        Raises:
            Reject: its inputs differ in it, or there are none.
        """
        if not self.joins:
            return 1
        sizes = {values.shape[0] for values in feeds.values()}
        if len(sizes) != 1 or 0 in sizes:
            said = ", ".join(f"{name} has {values.shape[0]}" for name, values in feeds.items())
            raise Reject("models.feed", f"rows differ or are none: {said}", "give as many of each")
        return int(sizes.pop())

    def key(self, feeds: Feeds, outputs: Sequence[str] | None) -> Hashable:
        """Equal for requests that may share a call."""
        if not self.joins:
            return object()
        wanted = None if outputs is None else tuple(outputs)
        return wanted, tuple(self._shape(name, feeds[name]) for name in sorted(feeds))

    def joined(self, requests: Sequence[Feeds]) -> dict[str, Array]:
        """The feeds of one call."""
        if len(requests) == 1:
            return dict(requests[0])
        return {name: self._stack(name, [one[name] for one in requests]) for name in requests[0]}

    def parted(
        self, found: Mapping[str, Array], requests: Sequence[Feeds], rows: Sequence[int]
    ) -> list[dict[str, Array]] | None:
        """Each request's outputs; None when an output has not one row for each input row."""
        if len(requests) == 1:
            return [dict(found)]
        if any(values.shape[:1] != (sum(rows),) for values in found.values()):
            return None
        parts: list[dict[str, Array]] = []
        first = 0
        for request, count in zip(requests, rows, strict=True):
            length = self._length(request)
            cut = {name: values[first : first + count] for name, values in found.items()}
            parts.append({name: self._shortened(name, part, length) for name, part in cut.items()})
            first += count
        return parts

    def _shape(self, name: str, values: Array) -> Hashable:
        rest = values.shape[1:]
        if name in self.pads.values and rest:
            rest = (-(-rest[0] // self.pads.step), *rest[1:])
        return name, values.dtype.str, rest

    def _stack(self, name: str, arrays: Sequence[Array]) -> Array:
        if name not in self.pads.values:
            return np.concatenate(arrays)
        longest = max(values.shape[1] for values in arrays)
        shape = (sum(len(values) for values in arrays), longest, *arrays[0].shape[2:])
        stacked = np.full(shape, self.pads.values[name], arrays[0].dtype)
        first = 0
        for values in arrays:
            stacked[first : first + len(values), : values.shape[1]] = values
            first += len(values)
        return stacked

    def _length(self, request: Feeds) -> int | None:
        """How long the request's padded inputs are; None without any."""
        return next((request[name].shape[1] for name in self.pads.values if name in request), None)

    def _shortened(self, name: str, part: Array, length: int | None) -> Array:
        declared = next(t.shape for t in self.outputs if t.name == name)
        if length is None or len(declared) < 2 or declared[1] >= 0:
            return part
        return part[:, :length]
