"""Asks to answers: a member of one group, and for each partition that it holds a lane."""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec

from streamapp.agents.asking.answers import Answered, answered, fallback
from streamapp.agents.asking.asks import Ask
from streamapp.agents.lanes import Lanes, Log, stop_within
from streamapp.agents.outcome import persist
from streamapp.core.clock import now_us
from streamapp.core.errors import Refuse, Reject, Retry
from streamapp.core.metrics import Metrics
from streamapp.core.slice import RecordLike
from streamapp.models.llm.question import Answer, Question
from streamapp.models.llm.tasks import intent_question, type_question
from streamapp.topics.catalogue import ANSWERS, ASK

GROUP = "streamapp-ask"
#: Asks of one partition that are under way; those behind the first one wait for it to be published.
WINDOW = 64
_LOOK_MS = 250
_READ_BYTES = 1 << 20
logger = logging.getLogger("streamapp")
_decode = msgspec.json.Decoder(Ask).decode


class Asked(Protocol):
    """Who is asked: :class:`streamapp.models.llm.client.Llm`, or a test's."""

    async def ask(self, question: Question) -> Answer: ...


class Answering:
    """What becomes of one ask: an answer in every case.

    Args:
        llm: who is asked.
        labels: intents to choose from, with descriptions.
        metrics: of this process.
    """

    def __init__(
        self,
        llm: Asked,
        labels: Mapping[str, Sequence[str]],
        metrics: Metrics,
    ) -> None:
        self._llm = llm
        self._labels = labels
        self._metrics = metrics
        self._told = ""

    async def of(self, ask: Ask) -> Answered:
        """The model's answer, or what the local models had said when it gives none."""
        try:
            question, said = self._question(ask)
            answer = await self._llm.ask(question)
            done = answered(ask, answer, str(answer.value[said]), question.prompt, now_us())
        except (Retry, Reject, Refuse) as error:
            self._tell(error)
            done = fallback(ask, f"{error.code}: {error.message}", now_us())
        self._metrics.asks.labels(done.kind, done.source).inc()
        return done

    def _question(self, ask: Ask) -> tuple[Question, str]:
        """What is asked, and the member of the answer that counts."""
        if ask.kind == "type":
            return type_question(ask.fields), "type"
        if not self._labels:
            raise Reject("ask.labels", "the workflow's stage intent names no labels")
        return intent_question(ask.text, self._labels), "intent"

    def _tell(self, error: Retry | Reject | Refuse) -> None:
        """Once for each reason in a row: an outage has many asks."""
        if error.code != self._told:
            self._told = error.code
            logger.warning("asks fall back to the local answer: %s", error)


class Lane:
    """One partition of asks: answered side by side, published and committed in order."""

    def __init__(
        self, log: Log, answering: Answering, partition: int, metrics: Metrics, group: Lanes
    ) -> None:
        self._log = log
        self._answering = answering
        self._partition = partition
        self._metrics = metrics
        self._group = group
        self._pending: deque[tuple[int, asyncio.Task[Answered]]] = deque()
        self._at = 0
        self._stopping = False

    def stop(self) -> None:
        """Read nothing more, finish what is under way, and end."""
        self._stopping = True

    async def run(self) -> None:
        """Until stopped."""
        try:
            await persist("ask", self._begin, self._metrics, self._goes_on)
            while not self._stopping:
                await persist("ask", self._read, self._metrics, self._goes_on)
                await self._publish_done()
            while self._pending:
                await self._publish_done()
        finally:
            for _, task in self._pending:
                task.cancel()

    def _goes_on(self) -> bool:
        return not self._stopping

    async def _begin(self) -> None:
        begin, end = await self._log.reader.bounds(ASK, self._partition)
        committed = await self._group.committed(self._partition)
        known = committed is not None and committed <= end  # else the topic was made anew
        self._at = max(begin, committed) if known and committed is not None else begin

    async def _read(self) -> None:
        room = WINDOW - len(self._pending)
        if room <= 0:
            return
        slice_ = await self._log.reader.read(
            ASK,
            self._partition,
            self._at,
            records_max=room,
            bytes_max=_READ_BYTES,
            wait_ms_max=0 if self._pending else _LOOK_MS,
        )
        for record in slice_.records:
            ask = _ask_of(record)
            if ask is not None:
                task = asyncio.create_task(self._answering.of(ask))
                self._pending.append((record.offset, task))
        self._at = max(self._at, slice_.range.next)

    async def _publish_done(self) -> None:
        """Publish what is answered up to the first that is not, and commit behind it."""
        if not self._pending:
            return
        await asyncio.wait({self._pending[0][1]}, timeout=_LOOK_MS / 1000)
        done = 0
        while done < len(self._pending) and self._pending[done][1].done():
            done += 1
        if not done:
            return
        ready = [self._pending[n] for n in range(done)]
        records = [task.result().record() for _, task in ready]
        await persist("ask", lambda: self._log.producer.send(ANSWERS, records), self._metrics)
        for _ in ready:
            self._pending.popleft()
        with suppress(Retry):  # the next one commits it too; else they are asked again, and known
            await self._group.commit(self._partition, ready[-1][0] + 1)


class Asker:
    """Answers asks until it is stopped.

    Args:
        log: its clients.
        answering: what becomes of an ask.
        metrics: of this process.
    """

    def __init__(self, log: Log, answering: Answering, metrics: Metrics) -> None:
        def lane(partition: int) -> Lane:
            return Lane(log, answering, partition, metrics, self._lanes)

        self._lanes = Lanes(log, GROUP, ASK, lane, "ask")

    @property
    def ready(self) -> dict[str, bool]:
        """Whether the group has told which partitions are ours."""
        return {"assigned": self._lanes.holds}

    async def run(self) -> None:
        """Until stopped or cancelled, or a lane ends with an error of ours.

        Raises:
            StreamappError: Halt or Refuse of a lane.
        """
        await self._lanes.run()

    async def stop(self, wait_s_max: float) -> None:
        """Publish what is answered in this time, commit, leave the group."""
        await stop_within(wait_s_max, self._lanes.finish())
        await self._lanes.leave()


def _ask_of(record: RecordLike) -> Ask | None:
    """The ask; None for what is not ours, which nobody waits for."""
    try:
        return _decode(record.value or b"")
    except (msgspec.DecodeError, UnicodeError) as error:
        logger.warning("%s: the record at offset %d is no ask: %s", ASK, record.offset, error)
        return None
