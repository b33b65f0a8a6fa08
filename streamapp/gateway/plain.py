"""Many events of one body to records: those in plain form at once, in C, the others by ``stamp``.

A record that the C extension makes is the one that ``stamp`` makes of the same event
(``topics/records.py``).  It leaves everything else to ``stamp``, which alone says what is wrong
with an event.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from streamapp.core.errors import Reject
from streamapp.core.packed import Packed
from streamapp.core.slice import Headers
from streamapp.gateway.stamp import TYPE_DEFAULT, Stamped, new_id, stamp
from streamapp.topics.records import Made, make_records
from streamapp.transport.bundle import Bundle

#: Read at once, without a look at other requests.
EVENTS_PER_TURN, _BYTES_PER_TURN = 512, 1 << 20

Piece = tuple[int, bytes]
Outcome = Stamped | Reject


class Making(NamedTuple):
    """What the records of a body share; see ``stamp.stamp``."""

    source: str
    received_us: int
    bytes_max: int
    trace: Headers


class Events(Bundle):
    """Records of events, with what is known of each; ``types`` has None where it says none."""

    __slots__ = ("ids", "lines", "types")

    def __init__(self, made: Made, lines: Sequence[int]) -> None:
        super().__init__(made.records)
        self.lines, self.ids, self.types = lines, made.ids, made.types

    def kinds(self) -> list[bytes]:
        """The type of each, as its header has it."""
        return [(kind or TYPE_DEFAULT).encode() for kind in self.types]

    @classmethod
    def together(cls, events: Sequence["Events"]) -> "Events":
        """All of them, in order."""
        made = Made(
            Packed(chain.from_iterable(one.packed.parts for one in events)),
            list(chain.from_iterable(one.ids for one in events)),
            list(chain.from_iterable(one.types for one in events)),
            [],
        )
        return cls(made, list(chain.from_iterable(one.lines for one in events)))

    def each(self) -> Iterator[tuple[int, Stamped]]:
        """The events one by one, with their lines."""
        for line, identity, kind, record in zip(
            self.lines, self.ids, self.types, self, strict=True
        ):
            yield line, Stamped(identity, kind or TYPE_DEFAULT, record, kind is not None)


#: Some events that follow each other: (line, what it became or why it is none) of each.
Group = Events | list[tuple[int, Outcome]]


def groups(pieces: Sequence[Piece], making: Making, *, id_prefix: str | None) -> Iterator[Group]:
    """Every event in order, with its line; some at a time.

    Args:
        pieces: (line, bytes) of each.
        making: what they share.
        id_prefix: ids of events without one are this and their line; random ones when None.
    """
    prefix = id_prefix or new_id()
    for part in _parts(pieces):
        lines, values = zip(*part, strict=True)
        yield group(values, lines, making, id_prefix=prefix)


def group(
    values: Sequence[bytes],
    lines: Sequence[int],
    making: Making,
    *,
    id_prefix: str,
) -> Group:
    """Events that are made at once.

    Args:
        values: of events.
        lines: of each; behind ``id_prefix`` the id of an event without one.
        making: what they share.
        id_prefix: see ``lines``.
    """
    made = make_records(
        values,
        lines,
        source=making.source,
        id_prefix=f"{id_prefix}-",
        received_us=making.received_us // 1000 * 1000,
        event_bytes_max=making.bytes_max,
        more=making.trace,
    )
    if not made.left:
        return Events(made, lines)
    others = set(made.left)
    plain = Events(made, [line for n, line in enumerate(lines) if n not in others]).each()
    return [
        (line, stamped_or_why(line, value, making, id_prefix)) if n in others else next(plain)
        for n, (line, value) in enumerate(zip(lines, values, strict=True))
    ]


def each(found: Iterable[Group]) -> Iterator[tuple[int, Outcome]]:
    """The events of all groups one by one, with their lines."""
    for one in found:
        yield from one.each() if isinstance(one, Events) else one


def _parts(pieces: Sequence[Piece]) -> Iterator[Sequence[Piece]]:
    """Not too many events and bytes at once; one event of any size."""
    first, size = 0, 0
    for at, (_, value) in enumerate(pieces):
        size += len(value)
        if at > first and (at - first == EVENTS_PER_TURN or size > _BYTES_PER_TURN):
            yield pieces[first:at]
            first, size = at, len(value)
    if pieces:
        yield pieces[first:]


def stamped_or_why(line: int, value: bytes, making: Making, id_prefix: str) -> Outcome:
    """One event by ``stamp``."""
    source, received_us, bytes_max, trace = making
    try:
        return stamp(
            value,
            source=source,
            received_us=received_us // 1000 * 1000,  # as the others have it
            bytes_max=bytes_max,
            id_if_none=f"{id_prefix}-{line}",
            trace=trace,
        )
    except Reject as error:
        return error
