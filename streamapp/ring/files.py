"""Ring files and locks: made whole under another name, opened without links, checked before use.

A ring lives in a folder of mode 0750 (``/dev/shm/streamapp`` by convention) as one file of mode
0640; readers of the folder's group need no more than read permission.  Who writes holds ``flock``
on ``<name>.lock`` next to it.  The lock is a file of its own because a ring of another shape is a
new file renamed over the old one, and a lock must not change its file.  The kernel frees it when
the writer dies.
"""

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from time import sleep

from streamapp.core import clock
from streamapp.core.errors import Refuse
from streamapp.ring.check import geometry_of
from streamapp.ring.layout import HEADER_BYTES, MAGIC, SOURCES_OFF, Geometry

_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # O_NONBLOCK: opening a fifo must not hang
#: Who asks whether a writer lives holds the lock for microseconds; a new writer waits that out.
LOCK_WAIT_S = 0.2


def lock_path(path: Path) -> Path:
    """The file whose ``flock`` says who writes the ring at ``path``."""
    return path.with_name(path.name + ".lock")


def refusal(path: Path, error: OSError, doing: str) -> Refuse:
    """An operating system error in words, with the way out."""
    reason, fix = {
        errno.ENOENT: (
            "there is no such file",
            "start what writes it: `streamapp terminal`, or with ring = direct the worker",
        ),
        errno.ELOOP: ("it is a symbolic link", "name the ring's own path"),
        errno.EACCES: (
            "permission denied",
            (
                "to read, join the group of the ring's folder; to write, run as the folder's owner,"
                " or name a ring of your own with STREAMAPP_RING_PATH"
            ),
        ),
        errno.ENOSPC: (
            "no space is left there",
            "choose a smaller ring or enlarge the folder's file system (docker: --shm-size)",
        ),
    }.get(error.errno or 0, (os.strerror(error.errno or 0), "choose another path"))
    return Refuse("ring.file", f"cannot {doing} {path}: {reason}", fix)


def take_lock(path: Path) -> int:
    """Become the one writer of ``path``; returns the descriptor that holds the lock.

    Makes the folder when it is not there.

    Raises:
        Refuse: another process writes this ring (``ring.locked``), or the folder cannot be used.
    """
    if not path.name:
        raise refusal(path, IsADirectoryError(errno.EISDIR, "it is a folder"), "make a ring of")
    lock = lock_path(path)
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | _SAFE, 0o640)
    except (FileExistsError, FileNotFoundError, NotADirectoryError):
        raise Refuse(
            "ring.file",
            f"cannot write {path}: {path.parent} is no folder, and none can be made there",
            "choose another path",
        ) from None
    except OSError as error:
        raise refusal(lock, error, "open") from None
    try:
        _check_owner(fd, lock)
        _wait_for_lock(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _wait_for_lock(fd: int, path: Path) -> None:
    give_up_s = clock.monotonic_s() + LOCK_WAIT_S
    while not _locked(fd, fcntl.LOCK_EX):
        if clock.monotonic_s() > give_up_s:
            raise Refuse(
                "ring.locked",
                f"{_holder(fd)} writes the ring {path}",
                "a ring has one writer per host: stop the other one or choose another path",
            )
        sleep(0.005)


def _holder(fd: int) -> str:
    """Who holds a file's ``flock``, as far as the kernel tells us (proc_locks(5))."""
    status = os.fstat(fd)
    device = os.major(status.st_dev), os.minor(status.st_dev)
    place = f"{device[0]:02x}:{device[1]:02x}:{status.st_ino}"
    with suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            kind, *_, pid, where, _, _ = line.split()[1:]
            if kind == "FLOCK" and where == place and int(pid) > 0:
                command = Path("/proc", pid, "cmdline").read_text(
                    encoding="utf-8", errors="replace"
                )
                return f"process {pid} ({command.replace(chr(0), ' ').strip()[:80]})"
    return "another process"


def writer_alive(path: Path) -> bool:
    """Does a process hold the writer's lock of ``path`` now?"""
    try:
        fd = os.open(lock_path(path), os.O_RDONLY | _SAFE)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise refusal(lock_path(path), error, "open") from None
    try:
        return not _locked(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _locked(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_checked(path: Path, *, writable: bool) -> tuple[int, Geometry, bytes]:
    """Open an existing ring; returns its descriptor, its geometry and its first page.

    Raises:
        Refuse: not there, not a regular file, not ours, or not a ring of this layout.
    """
    try:
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | _SAFE)
    except OSError as error:
        raise refusal(path, error, "open") from None
    try:
        size = _check_owner(fd, path).st_size
        page = _first_page(fd, path)
        return fd, geometry_of(page, size, str(path)), page
    except BaseException:
        os.close(fd)
        raise


def _first_page(fd: int, path: Path) -> bytes:
    try:
        return os.pread(fd, HEADER_BYTES, 0)
    except OSError as error:  # a file of /proc, for instance
        raise refusal(path, error, "read") from None


def _check_owner(fd: int, path: Path) -> os.stat_result:
    """Ours, root's or the folder owner's: in /dev/shm anybody may put a file of any name."""
    status = os.fstat(fd)
    trusted = {os.geteuid(), 0, path.parent.stat().st_uid}
    wrong = (
        "it is not a regular file"
        if not stat.S_ISREG(status.st_mode)
        else f"it belongs to user {status.st_uid}"
        if status.st_uid not in trusted
        else "others may write to it"
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        else ""
    )
    if wrong:
        raise Refuse(
            "ring.file", f"cannot use {path}: {wrong}", "choose a path in a folder of yours"
        )
    return status


def create(path: Path, header: bytes, sources: bytes, file_bytes: int) -> int:
    """Build a ring file whole, rename it to ``path`` and return its descriptor.

    The caller has the lock.  Every block is allocated now: a full file system is an error here,
    not a SIGBUS in a commit.
    """
    new = path.with_name(path.name + ".new")
    try:
        new.unlink(
            missing_ok=True
        )  # what a killed writer left; the lock says that nobody builds it now
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE, 0o640)
    except OSError as error:
        raise refusal(new, error, "create") from None
    try:
        os.posix_fallocate(fd, 0, file_bytes)
        os.pwrite(fd, header, 0)
        os.pwrite(fd, sources, SOURCES_OFF)
        os.pwrite(fd, MAGIC, 0)
        new.rename(path)
    except OSError as error:
        os.close(fd)
        new.unlink(missing_ok=True)
        raise refusal(path, error, f"allocate {file_bytes} bytes for") from None
    return fd


def replaced(path: Path, known: tuple[int, int]) -> bool:
    """Is there another file at ``path`` than the one that was opened?"""
    try:
        status = path.lstat()
    except OSError:
        return False  # removed, or out of our sight: what is mapped stays usable
    return (status.st_dev, status.st_ino) != known


def boot_id() -> bytes:
    """16 bytes that change with every boot of the kernel (proc(5))."""
    text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return bytes.fromhex(text.strip().replace("-", ""))
