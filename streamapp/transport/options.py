"""What an app asks of our Faust transports beyond Faust's own settings."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from streamapp.core.errors import Refuse

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
    #: Slices of one partition that the agent may hold unacknowledged before fetching stops.
    slices_in_flight_max: int = 4


_UNASKED = Options()
_options: WeakKeyDictionary[Any, Options] = WeakKeyDictionary()


def configure(
    app: Any,
    *,
    coalesce: Collection[str] = (),
    start_positions: StartPositions | None = None,
    batch_events_max: int = 4096,
    batch_bytes_max: int = 8 << 20,
    slices_in_flight_max: int = 4,
) -> None:
    """Set the options of a Faust app, before it starts; the last call wins.

    Raises:
        Refuse: a limit below 1.
    """
    limits = {
        "batch_events_max": batch_events_max,
        "batch_bytes_max": batch_bytes_max,
        "slices_in_flight_max": slices_in_flight_max,
    }
    for name, limit in limits.items():
        if limit < 1:
            raise Refuse("transport.limit", f"{name} is {limit}", "use 1 or more")
    _options[app] = Options(frozenset(coalesce), start_positions, **limits)


def options_of(app: Any) -> Options:
    """What :func:`configure` set for the app."""
    return _options.get(app, _UNASKED)


def slice_topic(app: Any, name: str, **topic_options: Any) -> Any:
    """A Faust topic for an agent that takes a coalesced topic: ``event.value`` is the Slice.

    ``topic_options`` are those of ``app.topic``.
    """
    from streamapp.transport.acks import SliceSchema

    return app.topic(name, schema=SliceSchema(), **topic_options)
