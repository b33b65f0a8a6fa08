"""What is said of every event of a body, and what is sent of it."""

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Literal

from streamapp.core.errors import Reject
from streamapp.gateway.delivery import Delivery
from streamapp.gateway.plain import Events, Outcome, Taken
from streamapp.gateway.schemas import DeadLettered, Letter
from streamapp.gateway.stamp import Stamped
from streamapp.gateway.wire import Line
from streamapp.transport.clients import Address, Outgoing

#: Not more records than these are cheaper one by one, for all who get them.
_FEW = 8


class Reports:
    """One line for every event, in the order of the body."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        #: Events that nobody has kept.
        self.refused = 0
        self._good: list[Line] = []
        self._records: list[Events] = []
        self._alone: list[Outgoing] = []
        self._lettered: list[Line] = []
        self._letters: list[Outgoing] = []

    def take(self, taken: Taken, outcomes: Mapping[int, Outcome]) -> None:
        """Events at once.

        Args:
            taken: the events.
            outcomes: what became of those, by their place, that do not go as they are.
        """
        events = taken.events
        others = [self._refused(line, why) for line, why in taken.refused]
        changes: dict[int, Stamped | None] = {}
        noted = {}
        for place, outcome in outcomes.items():
            line = events.lines[place]
            changes[place] = None
            if isinstance(outcome, Reject):
                others.append(self._refused(line, outcome))
            elif isinstance(outcome.record, Letter):
                others.append(self._letter(line, outcome, outcome.record))
            else:
                changes[place], noted[line] = outcome, outcome
        events = events.changed(changes)
        good = [
            _accepted(line, noted[line]) if line in noted else Line(line, "accepted", identity)
            for line, identity in zip(events.lines, events.ids, strict=True)
        ]
        self._good += good
        self._records.append(events)
        self.lines += sorted([*good, *others], key=attrgetter("line")) if others else good

    def take_one(self, outcome: Outcome) -> None:
        """The only event of a body, which was made and settled by itself."""
        if isinstance(outcome, Reject):
            line = self._refused(1, outcome)
        elif isinstance(outcome.record, Letter):
            line = self._letter(1, outcome, outcome.record)
        else:
            line = _accepted(1, outcome)
            self._good.append(line)
            self._alone.append(outcome.record)
        self.lines.append(line)

    @property
    def has_records(self) -> bool:
        """Whether anything is to be sent."""
        return bool(self._good or self._letters)

    def sendings(self) -> Iterator[tuple[Sequence[Line], Sequence[Outgoing]]]:
        """Records, packed where they are, and the line of each; letters by themselves."""
        if self._alone:
            yield self._good, self._alone
        elif self._good:
            records = Events.together(self._records)
            yield self._good, records if len(records) > _FEW else list(records)
        if self._letters:
            yield self._lettered, self._letters

    async def send(self, delivery: Delivery, topic: str) -> None:
        """Append what is to be sent, and note where it is or why the log refuses it.

        Raises:
            Retry, Refuse: as ``Delivery.send`` does.
        """
        for lines, records in self.sendings():
            outcomes = await delivery.send(topic, records)
            for line, outcome in zip(lines, outcomes, strict=True):
                _tell(line, outcome)

    def _refused(self, line: int, why: Reject) -> Line:
        self.refused += 1
        report = Line(line, "accepted")
        _refuse(report, why)
        return report

    def _letter(self, line: int, stamped: Stamped, letter: Letter) -> Line:
        report = _accepted(line, stamped)
        _refuse(report, letter.why, "dead-lettered")
        self._lettered.append(report)
        self._letters.append(letter)
        return report


def _tell(report: Line, outcome: Address | Reject) -> None:
    """What the log said of the event."""
    if isinstance(outcome, Address):
        report.status = "received"
        _, report.partition, report.offset = outcome
    elif isinstance(outcome, DeadLettered):
        _refuse(report, outcome, "dead-lettered")
        report.topic, report.partition, report.offset = outcome.address
    else:
        _refuse(report, outcome)


def _accepted(line: int, stamped: Stamped) -> Line:
    report = Line(line, "accepted", stamped.id)
    if stamped.violation is not None:
        report.violation = stamped.violation
    return report


def _refuse(
    report: Line, error: Reject, status: Literal["rejected", "dead-lettered"] = "rejected"
) -> None:
    report.status = status
    report.code, report.error, report.fix = error.code, error.message, error.fix
