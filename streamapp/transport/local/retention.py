"""What a topic no longer keeps: by age, by size, and in a compacted topic by key.

``retention_bytes`` is of each partition, as in Kafka; a partition's size is its share of the
topic's, by records.  The space goes to what comes next; the file does not shrink.
"""

import fcntl
import logging
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from streamapp.core.clock import monotonic_s, now_ms
from streamapp.core.errors import StreamappError
from streamapp.transport.local import sqlite
from streamapp.transport.local.log import TopicLog
from streamapp.transport.local.rows import STRIDE

logger = logging.getLogger("streamapp")

#: Rows that one transaction deletes, so that appends never wait long for it.
TRIM_ROWS = 20_000

#: A compacted topic is compacted when at least so many records came since the last time.
COMPACT_ROWS = 10_000

#: How long a deleted key is told to readers (Kafka's default of ``delete.retention.ms``).
TOMBSTONE_MS = 86_400_000

#: How often some process of a log looks at all of its topics.
PATROL_EVERY_S = 10.0

#: What no reader needs any more, except each partition's last record, at which recovery ends.
_CONDEMNED = """
SELECT position FROM records AS r WHERE key IS NOT NULL
    AND (value IS NULL AND timestamp < ?
         OR position NOT IN (SELECT max(position) FROM records GROUP BY position / ?, key))
    AND position NOT IN (SELECT partition * ? + next - 1 FROM partitions)
ORDER BY position
"""

_OLDEST = (
    "SELECT timestamp FROM records WHERE position >= ? AND position < ? ORDER BY position LIMIT 1"
)
_EXPIRED = """
WITH oldest AS (
    SELECT position, timestamp FROM records WHERE position >= ?1 AND position < ?2
    ORDER BY position LIMIT ?3
)
SELECT count(*), max(position) FROM oldest WHERE position < coalesce(
    (SELECT position FROM oldest WHERE timestamp >= ?4 ORDER BY position LIMIT 1), ?2
)
"""


class Retention:
    """One topic's, for the thread that opened its log."""

    def __init__(self, log: TopicLog) -> None:
        self._log = log
        self._condemned: list[int] = []  # the newest first
        self._note = b""  # written when they are gone

    def step(self, at_ms: int) -> bool:
        """Delete some of what is to go at this time; True when there is more.

        Raises:
            Retry: the disk is full, or another process holds the file for too long.
        """
        log, more = self._log, False
        with sqlite.translated(log.path):
            if log.spec.retention_ms is not None:
                more |= self._older(at_ms - log.spec.retention_ms)
            if log.spec.retention_bytes is not None:
                more |= self._surplus(log.spec.retention_bytes)
            if log.spec.compacted:
                more |= self._compact(at_ms - TOMBSTONE_MS)
        return more

    def _older(self, timestamp: int) -> bool:
        more = False
        for base in self._bases():
            count, last = self._expired(base, timestamp)
            if count:
                self._delete_to(base, last)
            more |= count == TRIM_ROWS
        return more

    def _expired(self, base: int, timestamp: int) -> tuple[int, int]:
        """How many of a partition's first records are older, and the position of the last of them.

        A row that is fetched is a turn with the other threads, and nothing is appended meanwhile.
        """
        db, part = self._log.db, (base, base + STRIDE)
        oldest = db.execute(_OLDEST, part).fetchone()
        if oldest is None or oldest[0] >= timestamp:
            return 0, base
        row: tuple[int, int] = db.execute(_EXPIRED, (*part, TRIM_ROWS, timestamp)).fetchone()
        return row

    def _surplus(self, bytes_max: int) -> bool:
        used = self._log.bytes_kept()
        if used <= bytes_max:
            return False
        bounds = [self._log.bounds(partition) for partition in range(self._log.spec.partitions)]
        records = sum(end - first for first, end in bounds)
        more = False
        for base, (first, end) in zip(self._bases(), bounds, strict=True):
            size = used * (end - first) / max(records, 1)
            if size > bytes_max:
                surplus = min(TRIM_ROWS, int((end - first) * (1 - bytes_max / size)))
                if surplus:
                    self._delete_to(base, base + first + surplus - 1)
                    more |= surplus == TRIM_ROWS
        return more

    def _compact(self, tombstones_before: int) -> bool:
        """Keep each key's latest record, and every record without a key."""
        db = self._log.db
        if not self._condemned:
            came = sum(self._log.ends().values())
            done, kept = self._last_time()
            if came - done < max(COMPACT_ROWS, kept):
                return False
            rows = db.execute(_CONDEMNED, (tombstones_before, STRIDE, STRIDE))
            self._condemned = [position for (position,) in rows][::-1]
            (count,) = db.execute("SELECT count(*) FROM records").fetchone()
            self._note = msgspec.json.encode((came, count - len(self._condemned)))
        # The oldest first: at no time does a reader see an older value of a key than before.
        now, self._condemned = self._condemned[-TRIM_ROWS:], self._condemned[:-TRIM_ROWS]
        with sqlite.transaction(db):
            db.executemany("DELETE FROM records WHERE position = ?", ((at,) for at in now[::-1]))
            if not self._condemned:
                db.execute("INSERT OR REPLACE INTO meta VALUES ('compacted', ?)", (self._note,))
        return bool(self._condemned)

    def _last_time(self) -> tuple[int, int]:
        """Records that had come, and that were kept, at the last compaction, whoever did it."""
        row = self._log.db.execute("SELECT value FROM meta WHERE name = 'compacted'").fetchone()
        return (0, 0) if row is None else msgspec.json.decode(row[0], type=tuple[int, int])

    def _delete_to(self, base: int, position: int) -> None:
        _delete(self._log, base, position + 1)

    def _bases(self) -> Iterator[int]:
        return (partition * STRIDE for partition in range(self._log.spec.partitions))


def delete_before(log: TopicLog, partition: int, offset: int) -> bool:
    """Delete some of a partition's records before an offset; True when there is more.

    Raises:
        Retry: as :meth:`Retention.step`.
    """
    first, _ = log.bounds(partition)
    until = min(offset, first + TRIM_ROWS)
    if first < until:
        base = partition * STRIDE
        with sqlite.translated(log.path):
            _delete(log, base, base + until)
    return until < offset


def _delete(log: TopicLog, first: int, until: int) -> None:
    with sqlite.transaction(log.db):
        log.db.execute("DELETE FROM records WHERE position >= ? AND position < ?", (first, until))


class Patrol:
    """Retention of every topic of a log, written to or not.

    Every process that has the log open looks from time to time; a locked file with the time of the
    last round in it says whose turn it is.
    """

    def __init__(self, folder: Path, open_: Callable[[str], TopicLog]) -> None:
        self._folder = folder
        self._open = open_
        self._topics: dict[str, Retention] = {}
        self._due_s = monotonic_s() + PATROL_EVERY_S

    def wait_s(self) -> float:
        """Until it is time for :meth:`round` again."""
        return max(self._due_s - monotonic_s(), 0.0)

    def round(self) -> None:
        """One step in every topic, when it is time and nobody else is at it."""
        if self.wait_s():
            return
        self._due_s = monotonic_s() + PATROL_EVERY_S
        try:
            with self._turn() as ours:
                if ours and self._step_all():
                    self._due_s = 0.0
        except OSError as error:
            logger.warning("no retention in %s: %s", self._folder, error)

    def _step_all(self) -> bool:
        more = False
        for path in sorted(self._folder.glob("[!.]*.db")):
            topic = path.name.removesuffix(".db")
            try:
                if topic not in self._topics:
                    self._topics[topic] = Retention(self._open(topic))
                more |= self._topics[topic].step(now_ms())
            except StreamappError as error:  # the other topics are not to suffer
                logger.warning("no retention of %s: %s", path, error)
        return more

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """Whether the next round is this process's: the last one is over, and long enough ago."""
        handle = os.open(self._folder / ".retention", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            stamp = os.pread(handle, _STAMP.size, 0)
            (last_s,) = _STAMP.unpack(stamp) if len(stamp) == _STAMP.size else (0.0,)
            now_s = monotonic_s()
            ours = not 0 <= now_s - last_s < PATROL_EVERY_S / 2
            yield ours
            if ours and self._due_s:
                os.pwrite(handle, _STAMP.pack(now_s), 0)
        finally:
            os.close(handle)


_STAMP = struct.Struct("=d")
