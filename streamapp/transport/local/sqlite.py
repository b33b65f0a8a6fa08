"""Our SQLite files: created whole or not at all, recognised by their application id, never guessed.

Durability is SQLite's: write-ahead log with ``synchronous=FULL``, so a commit that returned is on
disk (https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from streamapp.core.errors import Halt, Refuse, Retry, StreamappError
from streamapp.core.files import sync

APPLICATION_ID = 0x7374726D  # "strm" in the file's header
LAYOUT = 1

#: How long one process waits for another one's transaction before it says Retry.
BUSY_S = 30.0

#: Measured on records of 1 KB in groups of 256: 1.3 times the throughput of SQLite's defaults.
PAGE_BYTES = 8192
CHECKPOINT_PAGES = 4000

#: A write-ahead log that grew beyond this is cut back when it is next reset.
WAL_BYTES_KEPT = 64 << 20


def create(path: Path, fill: Callable[[sqlite3.Connection], None]) -> bool:
    """Create a file with the tables that ``fill`` makes; False when it exists already.

    It appears under its name only when it is complete, so that neither a crash nor a second process
    that creates the same file leaves a half-made one.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with translated(path), closing(sqlite3.connect(draft, isolation_level=None)) as db:
            db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {LAYOUT}")
            with transaction(db):
                fill(db)
        sync(draft)
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError as error:
        raise Refuse(
            "log.create", f"cannot create {path}: {error.strerror}", "check the log's folder"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    sync(path.parent)
    return True


def connect(path: Path) -> sqlite3.Connection:
    """Open a file that :func:`create` made, for the calling thread only.

    Raises:
        FileNotFoundError: there is none.
        Refuse: it is damaged, or not one of ours.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    with translated(path):
        db = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None, timeout=BUSY_S
        )
        try:
            _recognise(db, path)
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
        except BaseException:
            db.close()
            raise
    return db


def _recognise(db: sqlite3.Connection, path: Path) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (layout,) = db.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise Refuse(
            "log.foreign",
            f"{path} is a database, but not a log of ours",
            "move it away or use another folder",
        )
    if layout != LAYOUT:
        raise Refuse(
            "log.layout",
            f"{path} has layout {layout}, this version reads layout {LAYOUT}",
            "use the version of streamapp that wrote it",
        )


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, holding the write lock from the start so that it cannot fail half way."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def snapshot(db: sqlite3.Connection) -> Iterator[None]:
    """Several reads of one state."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


@contextmanager
def changing(db: sqlite3.Connection, path: Path) -> Iterator[None]:
    """A :func:`transaction` whose errors are :func:`translated`."""
    with translated(path), transaction(db):
        yield


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors in our words: what the caller does next, and the file's name."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # the caller's mistake (an unbindable value), not the file's state
            raise
        raise _in_our_words(error, code, path) from error


def _in_our_words(error: sqlite3.Error, code: int, path: Path) -> StreamappError:
    if code == sqlite3.SQLITE_IOERR_SHORT_READ:
        code = sqlite3.SQLITE_CORRUPT
    match code & 0xFF:  # the primary code of an extended one
        case sqlite3.SQLITE_FULL:
            return full(path)
        case sqlite3.SQLITE_IOERR:
            return Retry("log.io", f"{path}: {error}", "check the disk, then try again")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Retry("log.busy", f"{path} has been locked for {BUSY_S:.0f} s", "try again")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged(path, error)
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return Refuse("log.open", f"cannot write {path}: {error}", "check its permissions")
        case _:
            return Halt("log.sqlite", f"{path}: {error}")


def damaged(path: Path, why: Exception) -> Refuse:
    """The error for a file whose content cannot be."""
    return Refuse("log.corrupt", f"{path} is damaged: {why}", "restore it from a copy")


def full(path: Path) -> Retry:
    """The error for a disk without space."""
    return Retry("log.full", f"no space left for {path}", "free some space, then try again")
