"""Posting rows to the gateway: bounded, in order per conversation, repeated until it answers."""

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from streamapp.cli.feed import Feed
from streamapp.cli.rows import BadRow, Row
from streamapp.client import AsyncClient, Patience, Received
from streamapp.core.clock import monotonic_s
from streamapp.core.counted import counted
from streamapp.core.errors import Refuse, Retry

#: Requests in flight.  A conversation keeps to one of them, so that its events stay in order.
LANES = 4
BATCH_ROWS = 200
BATCH_BYTES = 1 << 20
#: A row waits at most this long for its batch to fill.
LINGER_S = 0.2
REQUEST_S_MAX = 30
#: A gateway that never answered is not waited for as long as one that did.
FIRST_CONTACT_S = 5.0
BACKOFF_S = 0.1
REASONS_MAX = 10


@dataclass(frozen=True, slots=True)
class Target:
    """Where rows go and how patiently."""

    url: str
    token: str = ""
    retry_s: float = 60.0
    rate: float | None = None
    topic: str | None = None
    tls: ssl.SSLContext | None = None


@dataclass(slots=True)
class Report:
    """What became of the rows: ``rejected`` by the gateway, ``skipped`` because they are none."""

    sent: int = 0
    accepted: int = 0
    rejected: int = 0
    skipped: int = 0
    retries: int = 0
    seconds: float = 0.0
    codes: Counter[str] = field(default_factory=Counter)
    reasons: list[dict[str, Any]] = field(default_factory=list)

    @property
    def events_per_s(self) -> float:
        return self.accepted / self.seconds if self.seconds else 0.0

    def refuse(self, line: int, code: str, message: str) -> None:
        """Count a refusal, and keep the first few to show."""
        self.codes[code] += 1
        if len(self.reasons) < REASONS_MAX:
            self.reasons.append({"line": line, "code": code, "message": message})


class _Lane:
    """One request at a time, and the rows that wait for the next."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[list[Row]] = asyncio.Queue(1)
        self._rows: list[Row] = []
        self._bytes = 0

    async def add(self, row: Row) -> bool:
        """Append a row; whether that completed a batch."""
        if self._rows and self._bytes + len(row.body) > BATCH_BYTES:
            await self.flush()
        self._rows.append(row)
        self._bytes += len(row.body)
        full = len(self._rows) >= BATCH_ROWS
        if full:
            await self.flush()
        return full

    async def flush(self) -> None:
        """Hand over what waits."""
        if self._rows:
            batch, self._rows, self._bytes = self._rows, [], 0
            await self.queue.put(batch)

    async def end(self) -> None:
        await self.flush()
        await self.queue.put([])


class Sender:
    """Posts rows until they are taken, refused, or the gateway has not answered for too long.

    Args:
        target: where and how.
        strict: refuse to go on after a line that is no row.
        progress: called after each request with the report so far.
    """

    def __init__(self, target: Target, *, strict: bool, progress: Callable[[Report], None]) -> None:
        self.report = Report()
        self._target = target
        self._strict = strict
        self._progress = progress
        self._answered = False
        self._lanes: list[_Lane] = []
        self._turn = 0

    async def send(self, rows: Iterator[Row | BadRow]) -> Report:
        """Send every row.

        Raises:
            Refuse: a wrong token or URL, a column that is missing; with ``strict``, a bad line.
            Retry: the gateway did not answer within ``retry_s``; the same call may be repeated.
        """
        started_s = monotonic_s()
        feed = Feed(rows)
        feed.start()
        self._lanes = [_Lane() for _ in range(LANES)]
        target = self._target
        patience = Patience(
            attempt_s=REQUEST_S_MAX,
            retry_s=target.retry_s,
            first_s=FIRST_CONTACT_S,
            backoff_s=BACKOFF_S,
        )
        try:
            async with (
                AsyncClient(target.url, target.token, patience=patience, tls=target.tls) as client,
                asyncio.TaskGroup() as tasks,
            ):
                for lane in self._lanes:
                    tasks.create_task(self._work(client, lane))
                tasks.create_task(self._dispatch(feed))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            feed.stop()
            self.report.seconds = monotonic_s() - started_s
        return self.report

    async def _dispatch(self, feed: Feed[Row | BadRow]) -> None:
        """Hand rows to lanes, no faster than the rate."""
        rate = self._target.rate
        chunk = min(BATCH_ROWS, max(1, int(rate * LINGER_S))) if rate else BATCH_ROWS
        started_s, handed = monotonic_s(), 0
        while rows := await asyncio.to_thread(feed.take, chunk, LINGER_S):
            for row in rows:
                await self._assign(row)
            if len(rows) < chunk or rate:
                for lane in self._lanes:
                    await lane.flush()
            handed += len(rows)
            if rate:
                await asyncio.sleep(started_s + handed / rate - monotonic_s())
        for lane in self._lanes:
            await lane.end()

    async def _assign(self, row: Row | BadRow) -> None:
        if isinstance(row, BadRow):
            if self._strict:
                raise Refuse(
                    "send.line", f"line {row.line}: {row.reason}", "mend it, or leave --strict out"
                )
            self.report.skipped += 1
            self.report.refuse(row.line, "send.line", row.reason)
            return
        number = crc32(row.conversation.encode()) if row.conversation else self._turn
        if await self._lanes[number % LANES].add(row):
            self._turn += 1

    async def _work(self, client: AsyncClient, lane: _Lane) -> None:
        while batch := await lane.queue.get():
            await self._deliver(client, batch)
            self._progress(self.report)

    async def _deliver(self, client: AsyncClient, batch: list[Row]) -> None:
        """Post one batch until there is an answer; ids are in the rows, so repeating is safe."""
        try:
            outcomes = await client.send_batch(
                [row.body for row in batch], topic=self._target.topic
            )
        except (Refuse, Retry) as error:
            raise self._told(error) from None
        self.report.retries = client.retries
        self.report.sent += len(batch)
        for row, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Received):
                self.report.accepted += 1
            else:
                self.report.rejected += 1
                self.report.refuse(row.line, outcome.code, outcome.message)

    def _told(self, error: Refuse | Retry) -> Refuse | Retry:
        """The client's error in words of the command line."""
        match error.code:
            case "client.unreachable":
                fix = "start it with `streamapp up`, or name another with --url"
                return Retry("send.unreachable", error.message, fix)
            case "client.gave_up":
                told = f"{error.message}; accepted before: {counted(self.report.accepted, 'event')}"
                fix = "run the same command again: ids repeat, so nothing is stored twice"
                return Retry("send.gave_up", told, fix)
            case "request.token" | "http.401" | "http.403":
                told = f"the gateway at {self._target.url} refuses this token"
                return Refuse(
                    "send.token", told, "give its token: --token env:NAME, or STREAMAPP_TOKEN"
                )
            case "topic.unknown" | "topic.internal" | "request.scope":
                return Refuse("send.topic", error.message, error.fix)
        fix = "check that --url names a streamapp gateway"
        return Refuse("send.refused", error.message, fix)
