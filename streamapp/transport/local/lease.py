"""One member's liveness: a locked file, and the time of its last heartbeat in it.

The kernel frees the lock (flock) when its holder dies in any way, so whoever gets it knows that
the member is dead.  A member that is only stopped (SIGSTOP, a frozen container) keeps the lock;
its heartbeat grows old.  The beat comes from a thread that touches neither SQLite nor the event
loop, so neither a full disk nor a busy loop silences it.

It is a lease: a member whose last heartbeat is older than ``LEASE_S`` knows, without asking
anybody, that it is one no more, and never beats again.  Others wait for ``SESSION_S`` before they
take its place, so what it began while it still was one has time to end.  The clock is the
machine's monotonic one, which all its processes share; while the machine is suspended it rests for
all of them.
"""

import errno
import fcntl
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Refuse
from streamapp.transport.local.sqlite import full

BEAT_S = 1.0

#: A member this long without a heartbeat must not act as one.
LEASE_S = 6.0

#: A member this long without a heartbeat is put out of its group by the others.
SESSION_S = 8.0

_BEAT = struct.Struct("=d")


def path_of(folder: Path, member: str) -> Path:
    """The member's file."""
    return folder / f"{member}.member"


def has_ended(folder: Path, member: str) -> bool:
    """True when a member is dead, stopped for ``SESSION_S``, or was put out or left."""
    try:
        handle = os.open(path_of(folder, member), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        beat = os.pread(handle, _BEAT.size, 0)
        if len(beat) < _BEAT.size:  # it has the lock and will beat, if not stopped for ever
            return False
        (beat_s,) = _BEAT.unpack(beat)
        return bool(monotonic_s() - beat_s > SESSION_S)
    else:
        return True
    finally:
        os.close(handle)


def revoke(folder: Path, member: str) -> None:
    """End a member's lease, whatever it does: it has none without its file's name."""
    path_of(folder, member).unlink(missing_ok=True)


class Lease:
    """The right to act as one member of a group, held until it lapses or :meth:`end`.

    Args:
        folder: where members' files are.
        on_lapse: called from the heartbeat's thread when the lease is over without :meth:`end`.

    Raises:
        Refuse: the file cannot be made.
        Retry: the disk is full.
    """

    def __init__(self, folder: Path, on_lapse: Callable[[], object]) -> None:
        self.member = uuid4().hex
        self._path = path_of(folder, self.member)
        self._on_lapse = on_lapse
        self._ending = threading.Event()
        self._lapsed = False
        self._beat_s = monotonic_s()
        self._handle = self._make()
        self._thread = threading.Thread(target=self._run, name="group-heartbeat", daemon=True)
        self._thread.start()

    def is_current(self) -> bool:
        """False from the moment on when another may have taken this member's place.

        Costs about a microsecond and never waits.  What is begun right after it said True has
        ``SESSION_S - LEASE_S`` to end.
        """
        return not (
            self._lapsed
            or monotonic_s() - self._beat_s > LEASE_S
            or os.fstat(self._handle).st_nlink == 0
        )

    def end(self) -> None:
        """Give the lease back; more than once does nothing."""
        if self._ending.is_set():
            return
        self._ending.set()
        self._thread.join()
        self._lapsed = True
        self._path.unlink(missing_ok=True)
        os.close(self._handle)

    def _make(self) -> int:
        """The file, locked and beaten before it has its name: nobody sees it half made."""
        draft = self._path.with_name(f".{self._path.name}")
        try:
            handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                os.pwrite(handle, _BEAT.pack(self._beat_s), 0)
                draft.rename(self._path)
            except BaseException:
                draft.unlink(missing_ok=True)
                os.close(handle)
                raise
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise full(self._path) from error
            raise Refuse(
                "group.member",
                f"cannot make {self._path}: {error.strerror}",
                "let this user write the log's folder",
            ) from error
        return handle

    def _run(self) -> None:
        while not self._ending.wait(BEAT_S):
            now_s = monotonic_s()  # before the look: a stop between the two leaves an old beat
            if now_s - self._beat_s > LEASE_S or os.fstat(self._handle).st_nlink == 0:
                self._lapsed = True
                self._on_lapse()
                return
            try:
                os.pwrite(self._handle, _BEAT.pack(now_s), 0)
            except OSError:  # the old beat counts; if this lasts, the lease lapses
                continue
            self._beat_s = now_s
