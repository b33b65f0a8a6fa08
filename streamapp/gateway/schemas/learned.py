"""What every type of event has looked like: this gateway's part, and what others published.

Each gateway adds up only what itself saw; the whole is the sum.  So no two of them write the same
record, and none has to know the others.
"""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from streamapp.gateway.schemas.shape import Shape

TYPES_MAX = 256
#: Parts of other gateways that are remembered.
PARTS_MAX = 2_048
#: A type seen so rarely makes room for a new one.
RARE = 20
#: A gateway that was silent for so long is gone, and another takes over what it saw.
GONE_US = 7 * 86_400 * 1_000_000
_SHAPE_S, _COUNT_S = 2.0, 60.0
_decode = msgspec.json.Decoder(Shape).decode
_encode = msgspec.json.Encoder().encode


class Part(NamedTuple):
    """What one gateway saw of one type; the key of its record."""

    type: str
    writer: str


_decode_key = msgspec.json.Decoder(Part).decode


class Learned:
    """Types of events by name.

    Args:
        writer: this gateway, among all that write to the same log.
    """

    def __init__(self, writer: str) -> None:
        self._writer = writer
        self._own: dict[str, Shape] = {}
        self._others: dict[Part, Shape] = {}
        self._due_s: dict[str, float] = {}
        self._gone: list[Part] = []
        #: Types of which the topic has a record of ours.
        self._published: set[str] = set()
        #: Goes up with every change of what :meth:`whole` says of fields.
        self.version = 0
        #: Events of types for which there was no room.
        self.unkept = 0

    def own(self, kind: str, now_us: int) -> Shape | None:
        """This gateway's part of a type, to be added to; None when there is no room for a new one.

        One that is seldom seen makes room for it, the one seen longest ago first.
        """
        shape = self._own.get(kind)
        if shape is not None:
            return shape
        if len(self._own) >= TYPES_MAX and not self._make_room():
            self.unkept += 1
            return None
        shape = self._own[kind] = Shape(now_us, now_us)
        return shape

    def touched(self, kind: str, now_s: float, *, is_new: bool) -> None:
        """A type of this gateway's has changed; ``is_new``: more than its counts."""
        due_s = now_s + (_SHAPE_S if is_new else _COUNT_S)
        self._due_s[kind] = min(due_s, self._due_s.get(kind, due_s))
        self.version += is_new

    def whole(self, kind: str) -> Shape | None:
        """All gateways' view of a type; a copy."""
        parts = [shape for part, shape in self._others.items() if part.type == kind]
        return _joined([*([self._own[kind]] if kind in self._own else ()), *parts])

    def all(self) -> dict[str, Shape]:
        """All gateways' view of every type, by name; copies."""
        parts: dict[str, list[Shape]] = {kind: [shape] for kind, shape in self._own.items()}
        for part, shape in self._others.items():
            parts.setdefault(part.type, []).append(shape)
        wholes = ((kind, _joined(parts[kind])) for kind in sorted(parts))
        return {kind: whole for kind, whole in wholes if whole is not None}

    def due(self, now_s: float) -> Iterator[tuple[bytes, bytes | None]]:
        """The records (key, value) that it is time to publish; each is then as good as published.

        What took over others comes before their tombstones.
        """
        for kind in [kind for kind, due_s in self._due_s.items() if due_s <= now_s]:
            del self._due_s[kind]
            if kind in self._own:
                self._published.add(kind)
                yield _encode(Part(kind, self._writer)), _encode(self._own[kind])
        while self._gone:
            yield _encode(self._gone.pop()), None

    def take(self, key: bytes | None, value: bytes | None, *, is_past: bool) -> None:
        """A record that some gateway published.

        Args:
            key: of the record; what is no record of this kind is passed over, as may be written by
                a later version.
            value: None takes a part away.
            is_past: it was there before this gateway began: its own parts are its to go on from.
        """
        try:
            part = _decode_key(key or b"")
            shape = None if value is None else _decode(value)
        except (msgspec.DecodeError, RecursionError):
            return
        if part.writer == self._writer and not is_past:
            return
        self.version += 1
        if shape is None:
            self._others.pop(part, None)
        elif part in self._others or len(self._others) < PARTS_MAX:
            self._others[part] = shape

    def begin(self, now_us: int) -> None:
        """All that was published before has been taken: go on from this writer's own parts."""
        for part in [part for part in self._others if part.writer == self._writer]:
            past = self._others.pop(part)
            self._published.add(part.type)
            shape = self.own(part.type, now_us)
            if shape is not None:
                shape.join(past)

    def take_over(self, now_us: int, now_s: float) -> None:
        """Make the parts of gateways that are gone this one's own."""
        for part, shape in list(self._others.items()):
            own = self._own.get(part.type)
            if now_us - shape.last_us < GONE_US or own is None:
                continue
            own.join(self._others.pop(part))
            self._gone.append(part)
            self._due_s[part.type] = now_s

    def _make_room(self) -> bool:
        rare = [(shape.last_us, kind) for kind, shape in self._own.items() if shape.count < RARE]
        if not rare:
            return False
        _, kind = min(rare)
        del self._own[kind]
        self._due_s.pop(kind, None)
        if kind in self._published:  # else anyone could fill the topic with tombstones
            self._published.discard(kind)
            self._gone.append(Part(kind, self._writer))
        self.version += 1
        return True


def _joined(parts: list[Shape]) -> Shape | None:
    if not parts:
        return None
    whole = Shape(parts[0].first_us, parts[0].last_us)
    for part in parts:
        whole.join(part)
    return whole
