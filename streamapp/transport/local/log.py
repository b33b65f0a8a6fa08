"""One topic of the local log: one SQLite file that several processes read and append to at once."""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import msgspec

from streamapp.core.errors import Refuse
from streamapp.core.slice import Headers, Record
from streamapp.transport.clients import TopicSpec
from streamapp.transport.local import sqlite

#: Kafka's own rule for topic names; it leaves no room for tricks with paths.
NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")

PARTITIONS_MAX = 4096
RECORD_BYTES_MAX = 512 << 20  # SQLite itself refuses values of 1 GB

#: ``position = partition * STRIDE + offset``: one clustered tree for all partitions.
STRIDE = 1 << 48

#: Rows that one transaction of :meth:`TopicLog.trim` deletes, so that appends never wait long for
#: it.
TRIM_ROWS = 20_000

#: A compacted topic is compacted when at least so many records came since the last time.
COMPACT_ROWS = 10_000

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE partitions (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);
CREATE TABLE records (
    position INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, key BLOB, value BLOB, headers BLOB
);
"""

_header_decoder = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...])


class Row(NamedTuple):
    """A record ready to append: its partition is decided and its headers are packed."""

    partition: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: bytes | None


def pack_headers(headers: Headers) -> bytes | None:
    """Headers as msgpack, order and duplicates kept; None when there are none."""
    return msgspec.msgpack.encode(list(headers)) if headers else None


def path_of(folder: Path, topic: str) -> Path:
    """The topic's file.

    Raises:
        Refuse: not a topic name.
    """
    if not NAME.fullmatch(topic) or topic in {".", ".."}:
        raise Refuse(
            "topic.name",
            f"not a topic name: {topic[:300]!r}",
            "use 1 to 249 of A-Z a-z 0-9 . _ -",
        )
    return folder / f"{topic}.db"


def create_topic(folder: Path, spec: TopicSpec) -> bool:
    """Create a topic's file; False when it exists.

    Raises:
        Refuse: a name, number of partitions or record size that cannot be.
    """
    path = path_of(folder, spec.name)
    if not 1 <= spec.partitions <= PARTITIONS_MAX:
        raise Refuse(
            "topic.partitions",
            f"topic {spec.name!r} cannot have {spec.partitions} partitions",
            f"use 1 to {PARTITIONS_MAX}",
        )
    if not 1 <= spec.record_bytes_max <= RECORD_BYTES_MAX:
        raise Refuse(
            "topic.record_bytes_max",
            f"topic {spec.name!r} cannot take records of {spec.record_bytes_max} bytes",
            f"use 1 to {RECORD_BYTES_MAX}",
        )

    def fill(db: sqlite3.Connection) -> None:
        for statement in _TABLES.split(";")[:-1]:
            db.execute(statement)
        db.execute("INSERT INTO meta VALUES ('spec', ?)", (msgspec.json.encode(spec._asdict()),))
        db.executemany(
            "INSERT INTO partitions VALUES (?, 0)", ((p,) for p in range(spec.partitions))
        )

    return sqlite.create(path, fill)


class TopicLog:
    """A topic's open file, for the thread that opened it.

    Offsets of a partition never restart: the next one is kept in its own row and survives the
    deletion of every record.

    Raises:
        FileNotFoundError: no such topic.
        Refuse: its file is damaged or not ours.
    """

    def __init__(self, folder: Path, topic: str) -> None:
        self.path = path_of(folder, topic)
        self._db = sqlite.connect(self.path)
        with sqlite.translated(self.path):
            (spec,) = self._db.execute("SELECT value FROM meta WHERE name = 'spec'").fetchone()
        self.spec = TopicSpec(**msgspec.json.decode(spec))
        self._compact_after = COMPACT_ROWS
        self._appended = 0

    def close(self) -> None:
        self._db.close()

    def append(self, rows: Sequence[Row]) -> list[int]:
        """Append all rows in one durable transaction, or none; returns their offsets in order.

        Raises:
            Retry: the disk is full or fails, or another process holds the file for too long.
        """
        with sqlite.translated(self.path), sqlite.transaction(self._db):
            ends = self.ends()
            offsets = []
            for row in rows:
                offset = ends[row.partition]
                ends[row.partition] = offset + 1
                offsets.append(offset)
            self._db.executemany(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?)",
                (
                    (row[0] * STRIDE + offset, row[1], row[2], row[3], row[4])
                    for row, offset in zip(rows, offsets, strict=True)
                ),
            )
            self._db.executemany(
                "UPDATE partitions SET next = ? WHERE partition = ?",
                ((ends[partition], partition) for partition in {row.partition for row in rows}),
            )
        self._appended += len(rows)
        return offsets

    def read(self, partition: int, offset: int, records_max: int, bytes_max: int) -> list[Record]:
        """Records at or after ``offset``, in order: at most ``records_max``.

        No more once their keys and values reach ``bytes_max``; at least one where there is one.
        """
        base = partition * STRIDE
        records: list[Record] = []
        size = 0
        with sqlite.translated(self.path):
            cursor = self._db.execute(
                "SELECT position - ?, timestamp, key, value, headers FROM records"
                " WHERE position >= ? AND position < ? ORDER BY position LIMIT ?",
                (base, base + offset, base + STRIDE, records_max),
            )
            for at, timestamp, key, value, headers in cursor:
                size += len(value or b"") + len(key or b"")
                records.append(
                    Record(
                        at,
                        timestamp,
                        key,
                        value,
                        _header_decoder.decode(headers) if headers else (),
                    )
                )
                if size >= bytes_max:
                    break
        return records

    def ends(self) -> dict[int, int]:
        """One past the last offset of every partition."""
        with sqlite.translated(self.path):
            return dict(self._db.execute("SELECT partition, next FROM partitions"))

    def bounds(self, partition: int) -> tuple[int, int]:
        """First offset still kept, and one past the last; equal when there is no record."""
        base = partition * STRIDE
        with sqlite.translated(self.path):
            (end,) = self._db.execute(
                "SELECT next FROM partitions WHERE partition = ?", (partition,)
            ).fetchone()
            (first,) = self._db.execute(
                "SELECT min(position) - ? FROM records WHERE position >= ? AND position < ?",
                (base, base, base + STRIDE),
            ).fetchone()
        return (end if first is None else first), end

    def trim(self, now_ms: int) -> bool:
        """Delete what retention and compaction no longer keep; True when there is more to do."""
        with sqlite.translated(self.path):
            more = False
            if self.spec.retention_ms is not None:
                more |= self._trim_older(now_ms - self.spec.retention_ms)
            if self.spec.retention_bytes is not None:
                more |= self._trim_larger(self.spec.retention_bytes)
            if self.spec.compacted and self._appended >= self._compact_after:
                self._compact()
        return more

    def _trim_older(self, timestamp: int) -> bool:
        more = False
        for base in self._bases():
            oldest = self._db.execute(
                "SELECT position, timestamp FROM records WHERE position >= ? AND position < ?"
                " ORDER BY position LIMIT ?",
                (base, base + STRIDE, TRIM_ROWS),
            ).fetchall()
            expired = list(takewhile(lambda row: row[1] < timestamp, oldest))
            if expired:
                self._delete(base, expired[-1][0])
            more |= len(expired) == TRIM_ROWS
        return more

    def _trim_larger(self, bytes_max: int) -> bool:
        """Drop the oldest share of every partition until the pages in use fit."""
        pages, unused, page_bytes = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        used = (pages - unused) * page_bytes
        if used <= bytes_max:
            return False
        dropped = 0
        for partition, base in enumerate(self._bases()):
            first, end = self.bounds(partition)
            surplus = min(TRIM_ROWS, int((end - first) * (1 - bytes_max / used)))
            if surplus:
                dropped += self._delete(base, base + first + surplus - 1)
        return dropped > 0

    def _compact(self) -> None:
        """Keep each key's latest record (a tombstone too) and every record without a key."""
        with sqlite.transaction(self._db):
            self._db.execute(
                "DELETE FROM records WHERE key IS NOT NULL AND position NOT IN"
                " (SELECT max(position) FROM records GROUP BY position / ?, key)",
                (STRIDE,),
            )
            (kept,) = self._db.execute("SELECT count(*) FROM records").fetchone()
        self._appended = 0
        self._compact_after = max(COMPACT_ROWS, kept)

    def _delete(self, base: int, position: int) -> int:
        with sqlite.transaction(self._db):
            return self._db.execute(
                "DELETE FROM records WHERE position >= ? AND position <= ?", (base, position)
            ).rowcount

    def _bases(self) -> Iterator[int]:
        return (partition * STRIDE for partition in range(self.spec.partitions))
