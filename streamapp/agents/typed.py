"""The one place where Faust's types are cast to what we use of them."""

from collections.abc import AsyncIterator
from typing import Any, Protocol, cast

from streamapp.core.slice import Slice


class SliceMessage(Protocol):
    """What we read of a Faust message."""

    generation_id: int


class SliceEvent(Protocol):
    """A Faust event whose value is a Slice; acknowledged by us, after the outcome is safe."""

    value: Slice
    message: SliceMessage

    def ack(self) -> bool: ...


def slice_events(stream: Any) -> AsyncIterator[SliceEvent]:
    """The stream's events, acknowledged by nobody but us.

    Plain iteration and ``take()`` acknowledge in a ``finally``, even when the agent raised
    (faust/streams.py).
    """
    return cast("AsyncIterator[SliceEvent]", stream.noack().events())
