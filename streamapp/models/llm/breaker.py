"""When an endpoint is left alone: a circuit breaker, and a budget for repeats.

Neither has a clock or a socket of its own.  One for each endpoint, used by one event loop.
"""

from collections.abc import Callable
from enum import IntEnum

from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Retry


class Circuit(IntEnum):
    """What a breaker lets through: all, one to find out, nothing."""

    CLOSED = 0
    PROBING = 1
    OPEN = 2


class Breaker:
    """Opens after failures in a row, and asks again with a single call after a while.

    Args:
        failures_max: in a row, after which nothing is let through.
        cool_s: for so long; it doubles while the single calls fail, up to 8 times as long.
        now_s: monotonic seconds.
        on_change: told each new state.
    """

    def __init__(
        self,
        failures_max: int = 5,
        cool_s: float = 15.0,
        *,
        now_s: Callable[[], float] = monotonic_s,
        on_change: Callable[[Circuit], None] = lambda _: None,
    ) -> None:
        self._failures_max = failures_max
        self._cool_s = cool_s
        self._now_s = now_s
        self._on_change = on_change
        self._failures = 0
        self._opened = 0
        self._until_s = 0.0
        self.state = Circuit.CLOSED
        on_change(self.state)

    def admit(self) -> None:
        """Let a call through; each is followed by :meth:`success` or :meth:`failure`.

        Raises:
            Retry: ``llm.circuit`` it would only wait.
        """
        if self.state is Circuit.CLOSED:
            return
        left_s = self._until_s - self._now_s()
        if self.state is Circuit.OPEN and left_s <= 0:
            self._become(Circuit.PROBING)
            self._until_s = self._now_s() + self._cool_s  # should nobody say how that one went
            return
        if self.state is Circuit.PROBING and left_s <= 0:
            self._until_s = self._now_s() + self._cool_s
            return
        raise Retry(
            "llm.circuit",
            f"the language model failed {self._failures} times in a row and is left alone "
            f"for {max(left_s, 0):.1f} s",
            "see why it fails: streamapp ask try",
        )

    def success(self) -> None:
        """It answered."""
        self._failures = self._opened = 0
        if self.state is not Circuit.CLOSED:
            self._become(Circuit.CLOSED)

    def failure(self) -> None:
        """It did not, or with what is no answer."""
        self._failures += 1
        if self.state is Circuit.PROBING or self._failures >= self._failures_max:
            self._until_s = self._now_s() + self._cool_s * 2 ** min(self._opened, 3)
            if self.state is not Circuit.OPEN:
                self._opened += 1
                self._become(Circuit.OPEN)

    def _become(self, state: Circuit) -> None:
        self.state = state
        self._on_change(state)


class RetryBudget:
    """Repeats as a share of calls, so that many callers do not drown a server that is slow.

    Args:
        share: repeats for each call.
        saved_max: how many may be saved up; so many there are at the start.
    """

    def __init__(self, share: float = 0.2, saved_max: float = 10.0) -> None:
        self._share = share
        self._saved_max = self._saved = saved_max

    def called(self) -> None:
        """A call that is no repeat."""
        self._saved = min(self._saved + self._share, self._saved_max)

    def take(self) -> bool:
        """Whether there may be a repeat now, which is then taken."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True
