"""Many events of one body to records: those in plain form at once, in C, the others by ``stamp``.

A record that the C extension makes is the one that ``stamp`` makes of the same event
(``topics/records.py``), or ``cloudevents.stamp_envelope`` of the same CloudEvent.  It leaves
everything else to these, which alone say what is wrong with an event.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from streamapp.core.errors import Reject
from streamapp.core.packed import PLACE, Packed, Part
from streamapp.core.slice import Headers
from streamapp.gateway.cloudevents import stamp_envelope
from streamapp.gateway.packing import replaced
from streamapp.gateway.stamp import TYPE_DEFAULT, Stamped, new_id, stamp
from streamapp.topics.records import Made, make_records
from streamapp.transport.bundle import Bundle

#: Read at once, without a look at other requests.
EVENTS_PER_TURN, _BYTES_PER_TURN = 512, 1 << 20

Piece = tuple[int, bytes]
Outcome = Stamped | Reject
NOTHING: Mapping[int, Reject] = MappingProxyType({})


class Making(NamedTuple):
    """What the records of a body share; see ``stamp.stamp``.

    ``is_enveloped``: what comes are CloudEvents in the JSON event format.
    """

    source: str
    received_us: int
    bytes_max: int
    trace: Headers
    is_enveloped: bool = False


class Events(Bundle):
    """Records of events, with what is known of each.

    Args:
        packed: the records, of one part at most unless ``together`` made it.
        lines: of each.
        ids: of each.
        types: of each; None where it says none.
        has_guesses: whether a type is none that its event says.
    """

    __slots__ = ("has_guesses", "ids", "lines", "types")

    def __init__(
        self,
        packed: Packed,
        lines: Sequence[int],
        ids: Sequence[str],
        types: Sequence[str | None],
        *,
        has_guesses: bool = False,
    ) -> None:
        super().__init__(packed)
        self.lines, self.ids, self.types = lines, ids, types
        self.has_guesses = has_guesses

    def kinds(self) -> list[bytes]:
        """The type of each, as its header has it."""
        return [(kind or TYPE_DEFAULT).encode() for kind in self.types]

    def values(self) -> Iterator[memoryview]:
        """The JSON of each."""
        for data, places in self.packed.parts:
            ends = places["value_at"] + places["value_size"]
            for first, end in zip(places["value_at"].tolist(), ends.tolist(), strict=True):
                yield data[first:end]

    def one(self, place: int) -> Stamped:
        """The event at a place."""
        kind = self.types[place]
        return Stamped(self.ids[place], kind or TYPE_DEFAULT, self[place], kind is not None)

    def changed(self, changes: Mapping[int, Stamped | None]) -> "Events":
        """These events, with another at each place that is named, or none."""
        if not changes:
            return self
        (part,) = self.packed.parts or (Part(memoryview(b""), np.empty(0, PLACE)),)
        new = {place: one for place, one in changes.items() if one is not None}
        if new:
            part = replaced(part, {place: one.record for place, one in new.items()})
        ids, types = list(self.ids), list(self.types)
        for place, one in new.items():
            ids[place], types[place] = one.id, one.type if _has_type(one) else None
        kept = [place for place in range(len(ids)) if place not in changes or place in new]
        return Events(
            Packed([Part(part.data, part.places[kept])]),
            [self.lines[place] for place in kept],
            [ids[place] for place in kept],
            [types[place] for place in kept],
            has_guesses=any(not one.typed and _has_type(one) for one in new.values()),
        )

    @classmethod
    def together(cls, events: Sequence["Events"]) -> "Events":
        """All of them, in order."""
        return cls(
            Packed(chain.from_iterable(one.packed.parts for one in events)),
            list(chain.from_iterable(one.lines for one in events)),
            list(chain.from_iterable(one.ids for one in events)),
            list(chain.from_iterable(one.types for one in events)),
            has_guesses=any(one.has_guesses for one in events),
        )


class Taken(NamedTuple):
    """Events that follow each other: the good ones, and why the others are none, by line."""

    events: Events
    refused: Sequence[tuple[int, Reject]]


def groups(pieces: Sequence[Piece], making: Making, *, id_prefix: str | None) -> Iterator[Taken]:
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
    refused: Mapping[int, Reject] = NOTHING,
) -> Taken:
    """Events that are made at once.

    Args:
        values: of events.
        lines: of each; behind ``id_prefix`` the id of an event without one.
        making: what they share.
        id_prefix: see ``lines``.
        refused: places of those that are known to be none; size counts first.
    """
    made = make_records(
        values,
        lines,
        source=making.source,
        id_prefix=f"{id_prefix}-",
        received_us=making.received_us // 1000 * 1000,
        event_bytes_max=making.bytes_max,
        more=making.trace,
        is_enveloped=making.is_enveloped,
    )
    if not made.left and not refused:
        return Taken(Events(made.records, lines, made.ids, made.types), ())
    outcomes: dict[int, Outcome] = dict(refused)
    for n in made.left:
        if n not in refused or len(values[n]) > making.bytes_max:
            outcomes[n] = stamped_or_why(lines[n], values[n], making, id_prefix)
    return _among(made, lines, outcomes)


def _among(made: Made, lines: Sequence[int], outcomes: Mapping[int, Outcome]) -> Taken:
    """What was made at once, and by itself what is ``left`` of that."""
    none = [(lines[n], why) for n, why in sorted(outcomes.items()) if isinstance(why, Reject)]
    changes = {n: one if isinstance(one, Stamped) else None for n, one in outcomes.items()}
    return Taken(_in_place(made, lines).changed(changes), none)


def _in_place(made: Made, lines: Sequence[int]) -> Events:
    """Each event at its place, and nothing at those of the others."""
    if not made.left:
        return Events(made.records, lines, made.ids, made.types)
    plain = np.ones(len(lines), np.bool_)
    plain[made.left] = False
    places = np.zeros(len(lines), PLACE)
    ((data, places[plain]),) = made.records.parts or (Part(memoryview(b""), places[:0]),)
    known = iter(zip(made.ids, made.types, strict=True))
    ids, types = zip(*(next(known) if is_plain else ("", None) for is_plain in plain), strict=True)
    return Events(Packed([Part(data, places)]), lines, ids, types)


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
    """One event by ``stamp``, or by ``stamp_envelope``."""
    one = stamper(making, f"{id_prefix}-{line}")
    if making.is_enveloped:
        one = partial(stamp_envelope, one, bytes_max=making.bytes_max)
    return tried(partial(one, value))


def stamper(making: Making, id_if_none: str | None = None) -> Callable[..., Stamped]:
    """``stamp`` for one event of a body, which is all that is still to be given."""
    source, received_us, bytes_max, trace, _ = making
    return partial(
        stamp,
        source=source,
        received_us=received_us // 1000 * 1000,  # as the others have it
        bytes_max=bytes_max,
        id_if_none=id_if_none,
        trace=trace,
    )


def tried(make: Callable[[], Stamped]) -> Outcome:
    """What it makes, or why it is none."""
    try:
        return make()
    except Reject as error:
        return error


def _has_type(stamped: Stamped) -> bool:
    """Whether it says one, or one was guessed."""
    return stamped.typed or stamped.type != TYPE_DEFAULT
