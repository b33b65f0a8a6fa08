"""Posting rows to the gateway: bounded, in order per conversation, repeated until it answers."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import aiohttp
import msgspec

from streamapp.cli.feed import Feed
from streamapp.cli.rows import BadRow, Row
from streamapp.core.clock import monotonic_s
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
BACKOFF_S_MAX = 5.0
REASONS_MAX = 10
_BUSY = {408, 425, 429, 502, 503, 504}
_TRANSIENT = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Target:
    """Where rows go and how patiently."""

    url: str
    token: str = ""
    retry_s: float = 60.0
    rate: float | None = None


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


class _Answer(msgspec.Struct):
    """What ``POST /v1/events`` says of one line; ``status`` is ``received`` when the log has it."""

    status: str = ""
    code: str = ""
    error: str = ""


class _Answers(msgspec.Struct):
    """What it says of all, in the order of the body's lines."""

    events: list[_Answer]


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
        headers = {"Content-Type": "application/x-ndjson"}
        if self._target.token:
            headers["Authorization"] = f"Bearer {self._target.token}"
        timeout = aiohttp.ClientTimeout(total=REQUEST_S_MAX)
        try:
            async with (
                aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
                asyncio.TaskGroup() as tasks,
            ):
                for lane in self._lanes:
                    tasks.create_task(self._work(session, lane))
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

    async def _work(self, session: aiohttp.ClientSession, lane: _Lane) -> None:
        while batch := await lane.queue.get():
            await self._deliver(session, batch)
            self._progress(self.report)

    async def _deliver(self, session: aiohttp.ClientSession, batch: list[Row]) -> None:
        """Post one batch until there is an answer; ids are in the rows, so repeating is safe."""
        started_s, wait_s = monotonic_s(), BACKOFF_S
        body = b"\n".join(row.body for row in batch) + b"\n"
        while True:
            asked_s = 0.0
            try:
                async with session.post(f"{self._target.url}/v1/events", data=body) as response:
                    content = await response.read()
                    self._answered = True
                    if response.status not in _BUSY:
                        break
                    asked_s = _retry_after_s(response.headers.get("Retry-After", ""))
                    why = f"HTTP {response.status} {_said(content)}"
            except _TRANSIENT as error:
                why = str(error) or type(error).__name__
            except aiohttp.InvalidURL:
                raise _no_url(self._target.url) from None
            except aiohttp.ClientError:
                raise _no_http(self._target.url) from None
            wait_s = min(max(wait_s * 2, asked_s), max(BACKOFF_S_MAX, asked_s))
            self._give_up_after(started_s, wait_s, why)
            self.report.retries += 1
            await asyncio.sleep(wait_s)
        if response.status == 413 and len(batch) > 1:
            half = len(batch) // 2
            await self._deliver(session, batch[:half])
            await self._deliver(session, batch[half:])
            return
        self._count(batch, response.status, content)

    def _give_up_after(self, started_s: float, wait_s: float, why: str) -> None:
        patience_s = self._target.retry_s if self._answered else FIRST_CONTACT_S
        if monotonic_s() - started_s + wait_s <= min(patience_s, self._target.retry_s):
            return
        if not self._answered:
            raise Retry(
                "send.unreachable",
                f"no gateway answers at {self._target.url}: {why}",
                "start it with `streamapp up`, or name another with --url",
            )
        raise Retry(
            "send.gave_up",
            f"the gateway at {self._target.url} took nothing for {patience_s:g} s: {why}; "
            f"{self.report.accepted} events were accepted",
            "run the same command again: ids repeat, so nothing is stored twice",
        )

    def _count(self, batch: list[Row], status: int, content: bytes) -> None:
        """Add the gateway's answer to the report."""
        answers = _answers(content)
        if len(answers) != len(batch):
            if status != 413:
                raise _misunderstood(self._target.url, status, content)
            answers = [_Answer("rejected", "http.413", "larger than the gateway takes")]
        self.report.sent += len(batch)
        for row, answer in zip(batch, answers, strict=True):
            if answer.status == "received":
                self.report.accepted += 1
            else:
                self.report.rejected += 1
                self.report.refuse(row.line, answer.code, answer.error)


def _answers(content: bytes) -> list[_Answer]:
    """The report per line, or nothing when the answer has none."""
    try:
        return msgspec.json.decode(content, type=_Answers).events
    except msgspec.DecodeError:
        return []


def _said(content: bytes) -> str:
    """What a problem document (RFC 9457) says, or the beginning of whatever came."""
    try:
        problem = msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.DecodeError:
        problem = {}
    detail = problem.get("detail") or problem.get("title")
    return str(detail) if detail else content[:200].decode(errors="replace")


def _retry_after_s(header: str) -> float:
    """Seconds of a Retry-After header (RFC 9110 section 10.2.3); a date counts as none."""
    return float(header) if header.isdigit() else 0.0


def _no_url(url: str) -> Refuse:
    return Refuse("send.url", f"{url!r} is not a URL", "write it like http://127.0.0.1:9382")


def _no_http(url: str) -> Refuse:
    return Refuse(
        "send.refused", f"{url} does not speak HTTP", "check that --url names a streamapp gateway"
    )


def _misunderstood(url: str, status: int, content: bytes) -> Refuse:
    """Why the whole request was refused, in the gateway's own words where it has some."""
    if status in {401, 403}:
        return Refuse(
            "send.token", f"the gateway at {url} refuses this token", "give its --token TOKEN"
        )
    return Refuse(
        "send.refused",
        f"{url} answered HTTP {status}: {_said(content)}",
        "check that --url names a streamapp gateway",
    )
