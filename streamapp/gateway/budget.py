"""What all requests together may hold while the log has not answered."""

from typing import Self

from streamapp.gateway.problem import RETRY_AFTER, ProblemError


class Budget:
    """Counts events and body bytes in flight; over the limit a request is told to come back."""

    def __init__(self, *, events_max: int, bytes_max: int) -> None:
        self.events_max = events_max
        self.bytes_max = bytes_max
        self.events = 0
        self.bytes = 0

    def lease(self) -> "Lease":
        """An empty share; it is given back when its ``with`` block ends."""
        return Lease(self)


class Lease:
    """What one request holds of the budget."""

    __slots__ = ("_budget", "_bytes", "_events")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._events = 0
        self._bytes = 0

    def take(self, *, events: int = 0, nbytes: int = 0) -> None:
        """Hold more.

        Raises:
            ProblemError: 429 ``gateway.busy``; nothing was taken.
        """
        budget = self._budget
        if budget.events + events > budget.events_max or budget.bytes + nbytes > budget.bytes_max:
            raise ProblemError(
                429,
                "gateway.busy",
                f"{budget.events:,} events and {budget.bytes:,} bytes of bodies are in flight",
                "wait and send it again; STREAMAPP_INFLIGHT_EVENTS_MAX sets the limit",
                RETRY_AFTER,
            )
        self._events += events
        self._bytes += nbytes
        budget.events += events
        budget.bytes += nbytes

    def give(self) -> None:
        """Give back all that is held."""
        self._budget.events -= self._events
        self._budget.bytes -= self._bytes
        self._events = self._bytes = 0

    def hand_over(self) -> "Lease":
        """A new lease that holds what this one held; this one is empty."""
        other = Lease(self._budget)
        other._events, other._bytes = self._events, self._bytes
        self._events = self._bytes = 0
        return other

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.give()
