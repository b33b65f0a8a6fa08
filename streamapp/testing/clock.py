"""A clock that stands still until it is told to go on."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Self
from unittest.mock import patch

from streamapp.core.clock import SystemClock
from streamapp.core.errors import Refuse
from streamapp.core.event import parse_time

#: A point in time: RFC 3339 text, Unix milliseconds, or a datetime.
Moment = str | int | datetime

START = "2026-01-01T00:00:00Z"


class FakeClock:
    """Wall and monotonic time for tests; a ``streamapp.core.clock.Clock``.

    Args:
        start: wall time; monotonic time starts at 0.
    """

    def __init__(self, start: Moment = START) -> None:
        self._wall_us = _unix_us(start)
        self._monotonic_us = 0

    def now_us(self) -> int:
        """Unix time in microseconds."""
        return self._wall_us

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return self._wall_us // 1_000

    def monotonic_s(self) -> float:
        """Seconds since the clock was made, as :meth:`advance` counts them."""
        return self._monotonic_us / 1e6

    def advance(self, seconds: float) -> None:
        """Let time pass, by either clock.

        Raises:
            Refuse: time does not go back; :meth:`set` moves wall time alone.
        """
        if seconds < 0:
            raise Refuse("clock.back", f"cannot advance by {seconds} s", "use set(moment)")
        self._wall_us += round(seconds * 1e6)
        self._monotonic_us += round(seconds * 1e6)

    def set(self, moment: Moment) -> None:
        """Move wall time, back too, as an administrator would; monotonic time stays.

        Raises:
            Reject: not a point in time.
        """
        self._wall_us = _unix_us(moment)

    @contextmanager
    def installed(self) -> Iterator[Self]:
        """The clock of everything of ours in this process, until the context ends.

        Faust, asyncio and your own calls of ``time`` keep the machine's.
        """
        # The class's methods, not the module's object: many hold that one already.
        with patch.multiple(SystemClock, now_us=self.now_us, monotonic_s=self.monotonic_s):
            yield self


def _unix_us(moment: Moment) -> int:
    known = parse_time(moment.isoformat() if isinstance(moment, datetime) else moment)
    assert known is not None  # noqa: S101  # only None becomes None
    return known
