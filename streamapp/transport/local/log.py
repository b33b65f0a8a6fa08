"""One topic of the local log: one SQLite file that several processes read and append to at once."""

import re
import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from streamapp.core.errors import Refuse
from streamapp.core.packed import Packed
from streamapp.transport.clients import TopicSpec
from streamapp.transport.local import sqlite
from streamapp.transport.local.rows import STRIDE, BundledRows, Rows, packed

#: Kafka's own rule for topic names; it leaves no room for tricks with paths.
NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")

PARTITIONS_MAX = 4096
RECORD_BYTES_MAX = 512 << 20  # SQLite itself refuses values of 1 GB

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE partitions (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);
CREATE TABLE records (
    position INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, key BLOB, value BLOB, headers BLOB
);
"""

#: Rows of one INSERT at most.
BLOCK_ROWS = 128

_INSERT = "INSERT INTO records VALUES (?, ?, ?, ?, ?)"
_MORE = ", (?, ?, ?, ?, ?)"
_MOVE = "INSERT INTO partitions VALUES (?, ?)"
_MOVE_MORE, _MOVE_END = ", (?, ?)", " ON CONFLICT (partition) DO UPDATE SET next = excluded.next"
_READ = (
    "SELECT position - ?, timestamp, key, value, headers FROM records"
    " WHERE position >= ? AND position < ? ORDER BY position LIMIT ?"
)


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
        self.db = sqlite.connect(self.path)
        with sqlite.translated(self.path):
            (spec,) = self.db.execute("SELECT value FROM meta WHERE name = 'spec'").fetchone()
        self.spec = TopicSpec(**msgspec.json.decode(spec))

    def close(self) -> None:
        self.db.close()

    def append(self, *pieces: Rows | BundledRows) -> list[list[int]]:
        """Append all pieces in one durable transaction, or none; the offsets of each in order.

        Raises:
            Retry: the disk is full or fails, or another process holds the file for too long.
        """
        with sqlite.translated(self.path), sqlite.transaction(self.db):
            ends = self.ends()
            offsets: list[list[int]] = []
            flat: list[Any] = []
            for piece in pieces:
                its_offsets, bound = piece.placed(ends)
                offsets.append(its_offsets)
                flat += bound
            self._insert(_INSERT, _MORE, "", flat, 5)
            moved = {partition for piece in pieces for partition in piece.partitions}
            flat = [number for partition in moved for number in (partition, ends[partition])]
            self._insert(_MOVE, _MOVE_MORE, _MOVE_END, flat, 2)
        return offsets

    def read(
        self, partition: int, offset: int, records_max: int, bytes_max: int
    ) -> tuple[Packed, int]:
        """Records at or after ``offset``, in order, and the bytes of their keys and values.

        At most ``records_max``, and no more once they reach ``bytes_max`` with their headers; at
        least one where there is one.

        Raises:
            Refuse: the file is damaged.
        """
        base = partition * STRIDE
        with sqlite.translated(self.path):
            rows = self.db.execute(_READ, (base, base + offset, base + STRIDE, records_max))
            try:
                return packed(rows, bytes_max)
            except (ValueError, TypeError) as error:
                raise sqlite.damaged(self.path, error) from error

    def _insert(self, one: str, more: str, end: str, flat: list[Any], width: int) -> None:
        """Rows of so many values, many to a statement: its steps are where threads take turns.

        A busy event loop may let another thread wait 5 ms for one.
        """
        for at in range(0, len(flat), width * BLOCK_ROWS):
            values = flat[at : at + width * BLOCK_ROWS]
            self.db.execute(one + more * (len(values) // width - 1) + end, values)

    def ends(self) -> dict[int, int]:
        """One past the last offset of every partition."""
        with sqlite.translated(self.path):
            return dict(self.db.execute("SELECT partition, next FROM partitions"))

    def bounds(self, partition: int) -> tuple[int, int]:
        """First offset still kept, and one past the last; equal when there is no record."""
        base = partition * STRIDE
        with sqlite.translated(self.path):
            (end,) = self.db.execute(
                "SELECT next FROM partitions WHERE partition = ?", (partition,)
            ).fetchone()
            (first,) = self.db.execute(
                "SELECT min(position) - ? FROM records WHERE position >= ? AND position < ?",
                (base, base, base + STRIDE),
            ).fetchone()
        return (end if first is None else first), end

    def bytes_kept(self) -> int:
        """What is in use of the file; the rest of it is there for what comes."""
        with sqlite.translated(self.path):
            pages, unused, page_bytes = (
                self.db.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        return int((pages - unused) * page_bytes)
