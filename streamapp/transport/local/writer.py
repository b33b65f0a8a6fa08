"""The one thread of a process that writes to a log: group commit.

What arrives while one commit runs goes together in the next, so many small appends cost few fsyncs,
and a single one waits for nobody.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from streamapp.core.errors import Refuse, StreamappError
from streamapp.transport.local.log import TopicLog
from streamapp.transport.local.retention import Patrol
from streamapp.transport.local.rows import BundledRows, Rows
from streamapp.transport.local.wake import Bell

#: Rows that go in one transaction at most (one call's rows always stay together).
COMMIT_ROWS_MAX = 16_384


class OpenTopics:
    """The topic files that one thread has open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, TopicLog] = {}

    def get(self, topic: str) -> TopicLog:
        """The topic's file, opened on first use.

        Raises:
            Refuse: no such topic.
        """
        log = self._open.get(topic)
        if log is None:
            try:
                log = self._open[topic] = TopicLog(self._folder, topic)
            except FileNotFoundError:
                raise unknown_topic(topic, self._folder) from None
        return log

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()


def unknown_topic(topic: str, folder: Path) -> Refuse:
    """The error for a topic that the log does not have."""
    return Refuse("topic.unknown", f"no topic {topic!r} in {folder}", "create it first")


class _Append(NamedTuple):
    topic: str
    rows: Rows | BundledRows
    future: asyncio.Future[list[int]]


class _Call(NamedTuple):
    work: Callable[[], Any]
    future: asyncio.Future[Any]


class Writer:
    """Runs appends and other writes on its thread; results come back on the event loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Append | _Call | None] = SimpleQueue()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def append(self, topic: str, rows: Rows | BundledRows) -> asyncio.Future[list[int]]:
        """Append all rows in one transaction; the future has their offsets when durable."""
        future: asyncio.Future[list[int]] = self._loop.create_future()
        self._jobs.put(_Append(topic, rows, future))
        return future

    def call(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run ``work`` on the thread."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._jobs.put(_Call(work, future))
        return future

    async def stop(self) -> None:
        """Finish what was accepted, then end the thread."""
        self._jobs.put(None)
        await self._ended
        self._thread.join()

    def _run(self) -> None:
        topics, bell = OpenTopics(self._folder), Bell(self._folder)
        patrol = Patrol(self._folder, topics.get)
        try:
            running = True
            while running:
                appends, calls, running = self._take(patrol.wait_s())
                for call in calls:
                    self._settle([_outcome(call.work)], [call.future])
                for topic in dict.fromkeys(job.topic for job in appends):
                    group = [job for job in appends if job.topic == topic]
                    self._commit(topics, bell, topic, group)
                patrol.round()
        finally:
            topics.close()
            bell.close()
            self._loop.call_soon_threadsafe(_settle, [(self._ended, None)])

    def _take(self, wait_s: float) -> tuple[list[_Append], list[_Call], bool]:
        """Wait for a job, at most so long, then take all there are, up to one transaction's."""
        appends: list[_Append] = []
        calls: list[_Call] = []
        rows = 0
        try:
            job = self._jobs.get(timeout=wait_s)
        except Empty:
            return appends, calls, True
        while job is not None:
            if isinstance(job, _Append):
                appends.append(job)
                rows += len(job.rows)
            else:
                calls.append(job)
            if rows >= COMMIT_ROWS_MAX:
                return appends, calls, True
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return appends, calls, True
        return appends, calls, False

    def _commit(self, topics: OpenTopics, bell: Bell, topic: str, group: Sequence[_Append]) -> None:
        outcome = _outcome(lambda: topics.get(topic).append(*[job.rows for job in group]))
        if isinstance(outcome, list):
            outcomes: list[Any] = outcome
            bell.ring(topic)
        elif len(group) > 1 and not isinstance(outcome, StreamappError):
            for job in group:  # one caller's unusable record must not cost the others theirs
                self._commit(topics, bell, topic, [job])
            return
        else:
            outcomes = [outcome] * len(group)
        self._settle(outcomes, [job.future for job in group])

    def _settle(self, outcomes: Sequence[Any], futures: Sequence[asyncio.Future[Any]]) -> None:
        self._loop.call_soon_threadsafe(_settle, list(zip(futures, outcomes, strict=True)))


def _outcome(work: Callable[[], Any]) -> Any:
    """What the work returned, or the error it raised, which belongs to whoever waits."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001
        return error


def _settle(settled: Iterable[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, outcome in settled:
        if future.done():  # its caller gave up
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
