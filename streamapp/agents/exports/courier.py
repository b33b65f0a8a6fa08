"""Messages to their receiver: attempts, waits, and a dead letter when that was all in vain."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamapp.agents.exports.body import Event, Message, message
from streamapp.agents.exports.dead import bury
from streamapp.agents.exports.post import Answer, Pace, Poster
from streamapp.agents.exports.target import Target
from streamapp.agents.outcome import persist
from streamapp.core.clock import Clock
from streamapp.core.exports import Export
from streamapp.core.metrics import Metrics
from streamapp.transport.clients import Producer

logger = logging.getLogger("streamapp")


@dataclass(frozen=True, slots=True)
class Courier:
    """Delivers for all lanes of one export."""

    target: Target
    poster: Poster
    pace: Pace
    producer: Producer
    metrics: Metrics
    clock: Clock

    async def deliver(self, events: Sequence[Event], goes_on: Callable[[], bool]) -> bool:
        """Until its receiver took it or it is a dead letter; False when ``goes_on`` ended it."""
        attempt = 0
        while goes_on():
            export = self.target.now
            if self.target.state != "on":
                attempt = 0
                await self.target.news()
                continue
            posted = message(export, events)
            attempt += 1
            answer = await self._attempt(export, posted)
            if answer.outcome == "delivered":
                self._count("delivered", len(events))
                return True
            if answer.outcome == "gone":
                self.target.give_up(export.webhook_url)
            elif export.attempts_max and attempt >= export.attempts_max:
                reason = f"{attempt} attempts, the last one: {answer.reason}"
                return await self.bury(
                    posted, f"export.{answer.outcome}", reason, len(events), goes_on
                )
            else:
                await self._wait(export, posted, attempt, answer, goes_on)
        return False

    async def bury(
        self, posted: Message, code: str, reason: str, events: int, goes_on: Callable[[], bool]
    ) -> bool:
        """Make it a dead letter; False when ``goes_on`` ended that."""
        name = self.target.now.name
        logger.error("[exports.%s] %s is a dead letter: %s", name, posted.id, reason)

        async def write() -> bool:
            await bury(self.producer, name, posted, code, reason)
            return True

        if not await persist("export", write, self.metrics, goes_on):
            return False
        self._count("dead", events)
        return True

    async def _attempt(self, export: Export, posted: Message) -> Answer:
        started_s = self.clock.monotonic_s()
        answer = await self.poster.post(export, posted)
        took_s = self.clock.monotonic_s() - started_s
        self.metrics.export_attempts.labels(export.name, answer.outcome).inc()
        self.metrics.export_seconds.labels(export.name).observe(took_s)
        return answer

    async def _wait(
        self,
        export: Export,
        posted: Message,
        attempt: int,
        answer: Answer,
        goes_on: Callable[[], bool],
    ) -> None:
        """Until the next attempt; a change of the export ends it."""
        wait_s = self.pace.wait_s(attempt, answer)
        logger.warning(
            "[exports.%s] %s, attempt %d: %s; the next one in %.1f s",
            export.name, posted.id, attempt, answer.reason, wait_s,
        )  # fmt: skip
        until_s = self.clock.monotonic_s() + wait_s
        while goes_on() and self.target.now is export:
            left_s = until_s - self.clock.monotonic_s()
            if left_s <= 0:
                return
            await self.target.news(left_s)

    def _count(self, result: str, events: int) -> None:
        self.metrics.export_events.labels(self.target.now.name, result).inc(events)
