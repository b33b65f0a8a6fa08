"""What became of events: the client's answers."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

#: Refusals that a report keeps; it counts them all.
REJECTED_KEPT = 100


class Received(NamedTuple):
    """The gateway took an event.

    ``partition`` and ``offset`` are where the log has it, None of one that was only accepted.
    """

    line: int
    id: str
    partition: int | None = None
    offset: int | None = None


class Rejected(NamedTuple):
    """An event that was not taken, and will not be when it comes again as it is.

    ``line`` is its place among the events of the call, from 1; ``code`` is dotted and stable.
    """

    line: int
    code: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        told = f"event {self.line}: {self.message}"
        return f"{told} ({self.fix})" if self.fix else told


Outcome = Received | Rejected


@dataclass(slots=True)
class Report:
    """What became of many events; ``rejected`` has the first ``REJECTED_KEPT`` refusals."""

    accepted_count: int = 0
    rejected_count: int = 0
    rejected: list[Rejected] = field(default_factory=list)

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Count outcomes."""
        for outcome in outcomes:
            if isinstance(outcome, Received):
                self.accepted_count += 1
                continue
            self.rejected_count += 1
            if len(self.rejected) < REJECTED_KEPT:
                self.rejected.append(outcome)
