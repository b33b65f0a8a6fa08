"""What was stored, to who wants it: a bounded queue for each, and the ledger's news.

A subscriber that is slower than the store loses its queue, never the store's time or memory: it is
told that it is behind, and reads from the table what it missed.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from streamapp.core.errors import Retry
from streamapp.core.ranges import Ledger, OffsetRange, RangeSet

_QUEUE_COMMITS_MAX = 64
_QUEUE_BYTES_MAX = 32 << 20
_SUBSCRIBERS_MAX = 64

#: (source topic, partition).
Partition = tuple[str, int]


class Written(Protocol):
    """What the store says of a commit."""

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        """The source ranges that it covers."""
        ...


class Source(Protocol):
    """The store."""

    @property
    def ledger(self) -> Ledger:
        """What is stored; read only while nothing is written."""
        ...

    def subscribe(self, callback: Callable[[pa.Table, Written], None]) -> Callable[[], None]:
        """Have a callback called after each commit, while nothing is written."""
        ...


@dataclass(frozen=True, slots=True)
class Commit:
    """Rows of one commit, and the source ranges that it covers.

    ``ends`` says for each of its partitions how far it was stored without a hole from there on.
    """

    rows: pa.Table
    ranges: tuple[OffsetRange, ...]
    ends: Mapping[Partition, int]


class Queue:
    """Commits for one subscriber, until there are too many."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._commits: deque[Commit] = deque()
        self._bytes = 0
        self._overflowed = False
        self.closed = False

    def put(self, commit: Commit) -> None:
        """Add a commit; the caller holds the condition."""
        self._bytes += commit.rows.nbytes
        full = len(self._commits) >= _QUEUE_COMMITS_MAX or self._bytes > _QUEUE_BYTES_MAX
        if self._overflowed or full:
            self.empty()
            self._overflowed = True
        else:
            self._commits.append(commit)

    def empty(self) -> None:
        """Forget what is in it; the caller holds the condition."""
        self._commits.clear()
        self._bytes, self._overflowed = 0, False

    def get(self, wait_s: float) -> Commit | None:
        """The next commit; None when none came in time.

        Raises:
            BehindError: commits were dropped.
            Retry: the feed is closed.
        """
        with self._changed:
            if not (self._commits or self._overflowed or self.closed):
                self._changed.wait(wait_s)
            if self.closed:
                raise Retry("flight.closing", "the server is stopping", "try again")
            if self._overflowed:
                raise BehindError
            if not self._commits:
                return None
            commit = self._commits.popleft()
            self._bytes -= commit.rows.nbytes
            return commit


class BehindError(Exception):
    """The subscriber must read from the table what it missed."""


class Feed:
    """All subscribers of one store.

    Args:
        source: the store; nothing writes to it while this is made.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._changed = threading.Condition()
        self._queues: set[Queue] = set()
        self._stored: dict[Partition, RangeSet] = {}
        self._look()
        self._unsubscribe = source.subscribe(self._on_stored)

    def subscribe(self) -> Queue:
        """A queue that gets every commit from now on; give it back to ``unsubscribe``.

        Raises:
            Retry: there are too many.
        """
        with self._changed:
            if len(self._queues) >= _SUBSCRIBERS_MAX:
                raise Retry(
                    "flight.busy", f"{_SUBSCRIBERS_MAX} clients follow already", "try again later"
                )
            queue = Queue(self._changed)
            self._queues.add(queue)
            return queue

    def unsubscribe(self, queue: Queue) -> None:
        """Put nothing more into it."""
        with self._changed:
            self._queues.discard(queue)

    def catch_up(self, queue: Queue) -> Mapping[Partition, RangeSet]:
        """What is stored now; the queue then has what is stored from now on."""
        with self._changed:
            queue.empty()
            return self._stored

    def close(self) -> None:
        """Tell all subscribers that it is over."""
        self._unsubscribe()
        with self._changed:
            for queue in self._queues:
                queue.closed = True
            self._changed.notify_all()

    def _on_stored(self, rows: pa.Table, written: Written) -> None:
        """In the writer's thread, which waits."""
        with self._changed:
            self._look()
            if self._queues:
                commit = Commit(rows, written.ranges, self._ends(written.ranges))
                for queue in self._queues:
                    queue.put(commit)
                self._changed.notify_all()

    def _ends(self, ranges: tuple[OffsetRange, ...]) -> dict[Partition, int]:
        ends: dict[Partition, int] = {}
        for topic, partition, _, next_ in ranges:
            done = self._stored.get((topic, partition), RangeSet())  # nothing is: an empty range
            end = done.prefix_end(next_)
            ends[topic, partition] = max(end, ends.get((topic, partition), 0))
        return ends

    def _look(self) -> None:
        """Copy the ledger, which is a few ranges: readers keep the copy that they have."""
        stored: dict[Partition, RangeSet] = {}
        for topic, partition, first, next_ in self._source.ledger:
            stored.setdefault((topic, partition), RangeSet()).add(first, next_)
        self._stored = stored
