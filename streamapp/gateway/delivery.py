"""Records to the log: a bad record costs no neighbour, and what was accepted is flushed."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from streamapp.core.clock import SYSTEM, Clock
from streamapp.core.errors import Halt, Reject, Retry, StreamappError
from streamapp.core.metrics import Metrics
from streamapp.gateway.budget import Lease
from streamapp.gateway.life import Life
from streamapp.gateway.schemas.rules import DeadLettered, Letter
from streamapp.transport.clients import Address, Outgoing, Producer

#: How long the log counts as silent after it last failed to answer.
SILENT_S = 5.0
_PAUSE_S_FIRST, _PAUSE_S_MAX = 0.1, 5.0
#: What becomes of events; each is told of from the start.
_RESULTS = ("received", "rejected", "dead-lettered", "lost")
_log = logging.getLogger("streamapp.gateway")


#: Called with what the log has now: the topic, the records, and where each is.
OnSent = Callable[[str, Sequence[Outgoing], Sequence[Address]], None]


class Delivery:
    """The gateway's side of a Producer, which coalesces concurrent calls and bounds its waits."""

    def __init__(
        self,
        producer: Producer,
        metrics: Metrics,
        life: Life,
        *,
        clock: Clock = SYSTEM,
        on_sent: OnSent | None = None,
    ) -> None:
        self._producer = producer
        self._on_sent = on_sent
        self._life = life
        self._retries = metrics.retries.labels("gateway")
        self._count = metrics.ingest_events.count
        for result in _RESULTS:
            self._count(result, 0)
        self._clock = clock
        self._failed: tuple[float, str] | None = None
        self._pending: dict[asyncio.Task[None], int] = {}

    async def send(self, topic: str, records: Sequence[Outgoing]) -> list[Address | Reject]:
        """Append all records; where each is now, or why the log refuses it.

        A ``Letter`` goes to its own topic and comes back as ``DeadLettered``.

        Raises:
            Retry: the log does not answer; some may have been appended.
            Refuse: the log has no such topic.
        """
        letters = []
        if isinstance(records, list):  # no other sequence has any
            letters = [record for record in records if isinstance(record, Letter)]
        if not letters:
            return await self._append(topic, records)
        good = [record for record in records if not isinstance(record, Letter)]
        sent = iter(await self._append(topic, good) if good else ())
        dead = iter(await self._append(letters[0].dead_letter, letters))
        return [
            _dead_lettered(one, next(dead)) if isinstance(one, Letter) else next(sent)
            for one in records
        ]

    async def _append(self, topic: str, records: Sequence[Outgoing]) -> list[Address | Reject]:
        try:
            addresses = await self._producer.send(topic, records)
        except Reject as error:
            # Nothing of the call was appended: halve it until the bad record is alone.
            if len(records) == 1:
                self.rejected(1)
                return [error]
            middle = len(records) // 2
            left = await self._append(topic, records[:middle])
            return [*left, *await self._append(topic, records[middle:])]
        except StreamappError as error:
            self._note(error)
            raise
        if self._failed is not None:
            _log.warning("the log takes events again")
            self._failed = None
        result = "dead-lettered" if isinstance(records[0], Letter) else "received"
        self._count(result, len(addresses))
        if self._on_sent is not None:
            self._on_sent(topic, records, addresses)
        return list(addresses)

    def accept(self, topic: str, records: Sequence[Outgoing], lease: Lease) -> None:
        """Append in the background, trying until it is done; ``lease`` is held until then."""
        task = asyncio.create_task(self._deliver(topic, records, lease))
        self._pending[task] = len(records)
        task.add_done_callback(self._pending.pop)

    def rejected(self, events: int) -> None:
        """Count events that were refused."""
        self._count("rejected", events)

    @property
    def pending(self) -> int:
        """Accepted events that the log has not answered."""
        return sum(self._pending.values())

    async def flush(self) -> None:
        """Wait until nothing is pending."""
        while self._pending:
            await asyncio.wait(self._pending)

    async def abandon(self) -> int:
        """Give up what is pending; how many events that cost."""
        lost = self.pending
        tasks = list(self._pending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._count("lost", lost)
        return lost

    def silence(self) -> str | None:
        """The code of the log's last failure; None when it answered since, or it is long ago."""
        if self._failed is None or self._clock.monotonic_s() - self._failed[0] > SILENT_S:
            return None
        return self._failed[1]

    def _note(self, error: StreamappError) -> None:
        if self._failed is None:  # one line for a silence, not one for every request in it
            _log.error("the log takes no events: %s", error)
        self._failed = self._clock.monotonic_s(), error.code
        if isinstance(error, Retry):
            self._retries.inc()

    async def _deliver(self, topic: str, records: Sequence[Outgoing], lease: Lease) -> None:
        pause_s = _PAUSE_S_FIRST
        with lease:
            while True:
                try:
                    outcomes = await self.send(topic, records)
                except Retry:
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _PAUSE_S_MAX)
                except StreamappError as error:
                    self._count("lost", len(records))
                    _log.error("%d accepted events are lost: %s", len(records), error)
                    if isinstance(error, Halt):
                        self._life.fail(error)
                    return
                else:
                    break
        for refused in outcomes:
            if isinstance(refused, Reject) and not isinstance(refused, DeadLettered):
                _log.error("an accepted event is lost: %s", refused)


def _dead_lettered(letter: Letter, outcome: Address | Reject) -> Reject:
    return DeadLettered(letter.why, outcome) if isinstance(outcome, Address) else outcome
