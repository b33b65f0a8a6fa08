"""What an app asks of our Faust transports beyond Faust's own settings."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, replace
from typing import Any
from weakref import WeakKeyDictionary

from streamapp.core.errors import Refuse
from streamapp.transport.ending import declaring

#: Asked with the (topic, partition)s that were assigned; answers with the offset to start from for
#: those it knows better than the log's committed offsets do.  The keys are Faust's ``TP`` or plain
#: tuples.
StartPositions = Callable[[AbstractSet[Any]], Awaitable[Mapping[Any, int]]]


@dataclass(frozen=True, slots=True)
class Options:
    """Options of one app; the defaults are those of an app that never asked."""

    #: Topics whose records arrive as Slices, one Faust message per fetch and partition.
    coalesce: frozenset[str] = frozenset()
    start_positions: StartPositions | None = None
    #: Records, and bytes of their keys and values, in one Slice.
    batch_events_max: int = 4096
    batch_bytes_max: int = 8 << 20
    #: How long a Slice that is not full may grow while an earlier one of its partition is in work.
    batch_wait_ms_max: int = 20
    #: Slices of one partition that the agent may hold unacknowledged before fetching stops.
    slices_in_flight_max: int = 4
    #: A partition that stands still so long while its log grows is positioned anew; after as long
    #: again the process ends.
    stall_s_max: float = 30.0


_UNASKED = Options()
#: What :func:`configure` set, what :func:`join` brought, and both together, which is what counts.
_configured: WeakKeyDictionary[Any, Options] = WeakKeyDictionary()
_joined: WeakKeyDictionary[Any, dict[str, StartPositions]] = WeakKeyDictionary()
_options: WeakKeyDictionary[Any, Options] = WeakKeyDictionary()


@declaring()
def configure(
    app: Any,
    *,
    coalesce: Collection[str] = (),
    start_positions: StartPositions | None = None,
    batch_events_max: int = 4096,
    batch_bytes_max: int = 8 << 20,
    batch_wait_ms_max: int = 20,
    slices_in_flight_max: int = 4,
    stall_s_max: float = 30.0,
) -> None:
    """Set the options of a Faust app, before it starts; the last call wins.

    What :func:`join` brought stays.

    Raises:
        Refuse: a limit below 1 (a wait below 0).
    """
    options = Options(
        frozenset(coalesce),
        start_positions,
        batch_events_max,
        batch_bytes_max,
        batch_wait_ms_max,
        slices_in_flight_max,
        stall_s_max,
    )
    for limit in fields(options)[2:]:
        value, least = getattr(options, limit.name), 0 if limit.name == "batch_wait_ms_max" else 1
        if value < least:
            raise Refuse("transport.limit", f"{limit.name} is {value}", f"use {least} or more")
    _configured[app] = options
    _combine(app)


def join(app: Any, topic: str, start_positions: StartPositions) -> None:
    """Add a coalesced topic and who knows its positions to what the app configured or will.

    ``start_positions`` is asked about this topic's partitions only; about all others whoever
    :func:`configure` named, as before.

    Raises:
        Refuse: the topic was joined already.
    """
    joined = _joined.setdefault(app, {})
    if topic in joined:
        raise Refuse(
            "transport.joined",
            f"two agents keep the position of topic {topic!r}",
            "install one of them, or give each a topic of its own",
        )
    joined[topic] = start_positions
    _combine(app)


def is_joined(app: Any, topic: str) -> bool:
    """True for a topic that :func:`join` brought: whoever did takes care of what is in work."""
    return topic in _joined.get(app, {})


def record_by_record(app: Any, topic: str) -> None:
    """Deliver a joined topic's records singly after all; to be called before the first of them."""
    options = options_of(app)
    _options[app] = replace(options, coalesce=options.coalesce - {topic})


def _combine(app: Any) -> None:
    own, joined = _configured.get(app, _UNASKED), _joined.get(app, {})
    asked = _routed(own.start_positions, joined) if joined else own.start_positions
    _options[app] = replace(own, coalesce=own.coalesce | joined.keys(), start_positions=asked)


def _routed(own: StartPositions | None, joined: Mapping[str, StartPositions]) -> StartPositions:
    """Asks each topic's own about its partitions, and the app's about the rest."""

    async def start_positions(tps: AbstractSet[Any]) -> Mapping[Any, int]:
        asked: dict[StartPositions | None, set[Any]] = {}
        for tp in tps:
            asked.setdefault(joined.get(tp[0], own), set()).add(tp)
        positions: dict[Any, int] = {}
        for callback, theirs in asked.items():
            if callback is not None:
                positions |= await callback(theirs)
        return positions

    return start_positions


def is_configured(app: Any) -> bool:
    """True when :func:`configure` was called for the app."""
    return app in _configured


def options_of(app: Any) -> Options:
    """What :func:`configure` and :func:`join` set for the app."""
    return _options.get(app, _UNASKED)


def slice_topic(app: Any, name: str, **topic_options: Any) -> Any:
    """A Faust topic for an agent that takes a coalesced topic: ``event.value`` is the Slice.

    ``topic_options`` are those of ``app.topic``.
    """
    from streamapp.transport.acks import SliceSchema

    return app.topic(name, schema=SliceSchema(), **topic_options)
