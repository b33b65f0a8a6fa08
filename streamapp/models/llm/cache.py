"""Answers kept on disk, by what was asked: processes of a home share them.

It only saves calls, so whatever goes wrong with it is logged once and is no reason to fail.
"""

import logging
import sqlite3
import threading
from pathlib import Path

import msgspec

from streamapp.core.clock import now_us
from streamapp.models.llm.question import Answer

_BUSY_MS = 500
#: Answers put between two looks at how many there are.
_TRIM_EVERY = 128
_SCHEMA = """CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, used_us INTEGER NOT NULL) WITHOUT ROWID"""
_OLDEST = """DELETE FROM answers WHERE key IN (
    SELECT key FROM answers ORDER BY used_us LIMIT max((SELECT count(*) FROM answers) - ?, 0))"""
#: A use is noted at most so often.
_USED_US = 3600 * 1_000_000
logger = logging.getLogger("streamapp")
_decode = msgspec.json.Decoder(Answer).decode
_encode = msgspec.json.Encoder().encode


class Cache:
    """At most so many answers, those used longest ago go first.  Any thread may call.

    Args:
        path: an SQLite file, made with its folder where there is none.
        answers_max: 0: nothing is kept.
    """

    def __init__(self, path: Path, answers_max: int) -> None:
        self._path = path
        self._answers_max = answers_max
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._is_off = answers_max <= 0
        self._puts = 0

    def get(self, key: str) -> Answer | None:
        """The answer that was kept under the key."""
        with self._lock:
            try:
                connection = self._open()
                if connection is None:
                    return None
                found = connection.execute(
                    "SELECT value, used_us FROM answers WHERE key = ?", [key]
                ).fetchone()
                if found is None:
                    return None
                if now_us() - found[1] > _USED_US:
                    connection.execute(
                        "UPDATE answers SET used_us = ? WHERE key = ?", [now_us(), key]
                    )
                return msgspec.structs.replace(_decode(found[0]), cached=True)
            except (sqlite3.Error, OSError, msgspec.DecodeError) as error:
                self._failed(error)
                return None

    def put(self, key: str, answer: Answer) -> None:
        """Keep an answer."""
        with self._lock:
            try:
                connection = self._open()
                if connection is None:
                    return
                row = [key, _encode(answer), now_us()]
                connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", row)
                self._puts += 1
                if self._puts % _TRIM_EVERY == 0:
                    connection.execute(_OLDEST, [self._answers_max])
            except (sqlite3.Error, OSError) as error:
                self._failed(error)

    def close(self) -> None:
        """Let go of the file, with no more answers in it than are wanted."""
        with self._lock:
            connection, self._connection = self._connection, None
            self._is_off = True
            if connection is not None:
                try:
                    connection.execute(_OLDEST, [self._answers_max])
                except sqlite3.Error as error:
                    logger.warning("%s: %s", self._path, error)
                connection.close()

    def _open(self) -> sqlite3.Connection | None:
        if self._connection is None and not self._is_off:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self._path, isolation_level=None, check_same_thread=False, timeout=_BUSY_MS / 1000
            )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")  # it may be lost
            connection.execute(_SCHEMA)
            self._connection = connection
        return self._connection

    def _failed(self, error: Exception) -> None:
        """Go on without it, unless somebody else only held it for a moment."""
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            return
        logger.warning("answers of the language model are not kept: %s: %s", self._path, error)
        self._is_off = True
        if self._connection is not None:
            self._connection.close()
            self._connection = None
