"""What groups committed, for lag tools, and the lock that keeps a group to one member."""

import fcntl
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from streamapp.core.clock import now_ms
from streamapp.core.errors import Refuse
from streamapp.transport.local import sqlite

FOLDER = "groups"

_TABLE = """
CREATE TABLE commits (
    consumer_group TEXT, topic TEXT, partition INTEGER,
    next INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (consumer_group, topic, partition)
) WITHOUT ROWID
"""


class Commits:
    """The commits of all groups of a log, for the thread that opened it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FOLDER / "commits.db"
        if not self._path.exists():
            sqlite.create(self._path, _make)
        self._db = sqlite.connect(self._path)

    def close(self) -> None:
        self._db.close()

    def put(self, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
        """Say durably that the group is done with everything below these offsets."""
        at = now_ms()
        with sqlite.translated(self._path), sqlite.transaction(self._db):
            self._db.executemany(
                "INSERT OR REPLACE INTO commits VALUES (?, ?, ?, ?, ?)",
                ((group, topic, part, next_, at) for (topic, part), next_ in offsets.items()),
            )

    def of(self, group: str) -> dict[tuple[str, int], int]:
        """Everything the group committed; empty for a group that never did."""
        with sqlite.translated(self._path):
            rows = self._db.execute(
                "SELECT topic, partition, next FROM commits WHERE consumer_group = ?", (group,)
            ).fetchall()
        return {(topic, partition): next_ for topic, partition, next_ in rows}


def _make(db: sqlite3.Connection) -> None:
    db.execute(_TABLE)


class Membership:
    """The right to be a group's only member, held until :meth:`leave` or the process's end.

    It is a ``flock``: the kernel gives it back when its holder dies in any way.
    """

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle

    @classmethod
    def join(cls, folder: Path, group: str) -> "Membership":
        """Become the member of a group.

        Raises:
            Refuse: the group has one; its process id is in the message.
        """
        path = folder / FOLDER / f"{quote(group, safe='')}.lock"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise Refuse("group.lock", f"cannot open {path}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode().strip() or "unknown"
            os.close(handle)
            raise Refuse(
                "group.taken",
                f"group {group!r} already has a member on this log: process {holder}",
                "stop it, or give this app another id; a local log has one member per group",
            ) from None
        os.truncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        return cls(handle)

    def leave(self) -> None:
        """Give the membership back; more than once does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)
