"""How far each source of a keyed partition has come, and with them the event time.

Time is the least of what the sources have reached.  One that is idle, or has ended its run, holds
nobody back; while a run is fed none is idle, since its rows are as old as the run.  All of it is
read off the partition's own records, so who takes it over finds the same.
"""

import msgspec

from streamapp.agents.flow.record import Mark
from streamapp.core.errors import Halt
from streamapp.plugin import BEFORE_ALL_US


class _Front(msgspec.Struct, array_like=True):
    """Where one source stands: its next offset, the greatest time of its rows."""

    next: int = 0
    latest_us: int = BEFORE_ALL_US
    is_idle: bool = False
    is_ended: bool = False


class _Kept(msgspec.Struct, array_like=True):
    """All of them; ``run`` is the last that began, and ``is_fed`` until every source ended it."""

    fronts: list[_Front]
    run: int = 0
    is_fed: bool = False
    reached_us: int = BEFORE_ALL_US


class Fronts:
    """The sources of one partition of a keyed topic.

    Args:
        count: of the sources.
        state: to go on from; empty: from the beginning.
    """

    def __init__(self, count: int, state: bytes = b"") -> None:
        if state:
            self._at = msgspec.msgpack.decode(state, type=_Kept)
        else:
            self._at = _Kept([_Front() for _ in range(count)])

    def copy(self) -> "Fronts":
        """One of its own that stands where this does."""
        return Fronts(len(self._at.fronts), self.state())

    def state(self) -> bytes:
        """All that it knows."""
        return msgspec.msgpack.encode(self._at)

    @property
    def reached_us(self) -> int:
        """The event time that every source has reached."""
        return self._at.reached_us

    def is_new(self, mark: Mark) -> bool:
        """Whether a record's rows are to be taken; asked once for each, in the log's order.

        Raises:
            Halt: it has rows that were taken and others that were not.
        """
        front = self._at.fronts[mark.source]
        if mark.is_idle:
            front.is_idle = front.is_idle or mark.next >= front.next
            self._advance()
            return False
        if mark.next <= front.next:
            return False
        if mark.first < front.next:
            raise Halt(
                "flow.overlap",
                f"a record of {mark.first} to {mark.next} of partition {mark.source} follows one"
                f" up to {front.next}",
                "two processes of one group wrote at once; feed the rows again",
            )
        front.next = mark.next
        if mark.run > self._at.run:
            self._at.run, self._at.is_fed = mark.run, True
            self._forget()
        if mark.latest_us is not None:
            front.latest_us = max(front.latest_us, mark.latest_us)
            front.is_idle = False
        front.is_ended = front.is_ended or (mark.end and self._at.is_fed)
        self._advance()
        return True

    def end(self) -> bool:
        """Whether every source has ended the run; with that it is over."""
        is_over = self._at.is_fed and all(front.is_ended for front in self._at.fronts)
        if is_over:
            self._at.is_fed = False
            self._forget()
        return is_over

    def _forget(self) -> None:
        self._at.reached_us = BEFORE_ALL_US
        for front in self._at.fronts:
            front.latest_us, front.is_ended = BEFORE_ALL_US, False

    def _advance(self) -> None:
        all_ = self._at.fronts
        awaited = [
            front for front in all_ if not front.is_ended and (self._at.is_fed or not front.is_idle)
        ]
        if awaited:
            reached_us = min(front.latest_us for front in awaited)
        else:
            reached_us = max(front.latest_us for front in all_)
        self._at.reached_us = max(self._at.reached_us, reached_us)
