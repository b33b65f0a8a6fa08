"""The control plane of a ring: gravity and attractors, in a file of its own beside the ring.

Who may set attractors need not be who writes frames, so the file ``<ring>.control`` has mode 0660
and a group of your choice; readers of the ring never need it.  The bytes, little-endian, are in
``include/streamapp_ring_control.h``: a header of 128 bytes, then two slots, each with gravity,
count and 64 attractors.

Writers take turns by ``flock`` on the file.  ``sequence`` 2k and 2k + 1 say that slot ``k & 1``
holds; a writer makes it odd, fills the other slot, and makes it even.  So one that is killed
midway spoils nothing: what held before still holds, and the next writer fills that slot anew.
Everything is read and written by pread and pwrite, never mapped: another group may write this
file, and a file that it cuts short must not end the process that reads it.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep
from typing import NamedTuple, Self
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from streamapp.core import clock
from streamapp.core.errors import Refuse, Retry
from streamapp.ring.layout import BYTE_ORDER, DIM_MAX, Array

MAGIC = b"EVCTRL\0\1"
VERSION = 1
HEADER_BYTES = 128
ATTRACTORS_MAX = 64
LABEL_BYTES = 32
#: Bounds of gravity, mass and length of a position: whatever they are, a pull stays finite.
VALUE_MAX = 1e6
LENGTH_MIN = 1e-6
#: A reader that a writer overtakes so often leaves it for the next time.
TRIES = 8
LOCK_WAIT_S = 2.0

_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # O_NONBLOCK: opening a fifo must not hang
_SEQUENCE_OFF = 64
_SLOT_HEADER_BYTES = 64

HEADER_DTYPE = np.dtype(
    {
        "names": [
            "magic",
            "version",
            "byte_order",
            "file_bytes",
            "dim",
            "attractors_max",
            "stride",
            "slot_bytes",
            "sequence",
        ],
        "formats": ["V8", "<u4", "<u4", "<u8", "<u4", "<u4", "<u4", "<u4", "<u8"],
        "offsets": [0, 8, 12, 16, 24, 28, 32, 36, _SEQUENCE_OFF],
        "itemsize": HEADER_BYTES,
    }
)
SLOT_DTYPE = np.dtype(
    {
        "names": ["count", "gravity", "written_unix_us"],
        "formats": ["<u4", "<f4", "<i8"],
        "offsets": [0, 4, 8],
        "itemsize": _SLOT_HEADER_BYTES,
    }
)


class Attractor(NamedTuple):
    """A place that pulls: ``position`` (dim,) float32, of any length; only its direction counts."""

    label: str
    mass: float
    position: npt.NDArray[np.float32]


class Control(NamedTuple):
    """What a plane says."""

    gravity: float = 1.0
    attractors: tuple[Attractor, ...] = ()


def control_path(ring: Path) -> Path:
    """Where the control plane of the ring at this path is."""
    return ring.with_name(ring.name + ".control")


def attractor_dtype(dim: int) -> np.dtype[np.void]:
    """One attractor of a slot: label, mass, position; padded to whole cache lines."""
    return np.dtype(
        {
            "names": ["label", "mass", "position"],
            "formats": [f"S{LABEL_BYTES}", "<f4", ("<f4", (dim,))],
            "offsets": [0, LABEL_BYTES, 64],
            "itemsize": 64 + -(-4 * dim // 64) * 64,
        }
    )


class ControlPlane:
    """One opened plane.  Use it from one thread; any number of processes may have it open."""

    def __init__(self, path: Path, fd: int, dim: int) -> None:
        self.path = path
        self.dim = dim
        status = os.fstat(fd)
        self.identity = status.st_dev, status.st_ino
        self._fd = fd
        self._kind = attractor_dtype(dim)
        self._slot_bytes = _slot_bytes(dim)

    @classmethod
    def open(cls, path: Path | str, *, dim: int | None = None, writable: bool = False) -> Self:
        """The plane at ``path``, for vectors of ``dim`` when that is given.

        Raises:
            Refuse: there is none, or it is not to be trusted or not ours to write
                (``control.file``), or no plane of this version and ``dim`` (``control.value``).
        """
        path = Path(path)
        try:
            fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | _SAFE)
        except OSError as error:
            raise _refusal(path, error) from None
        try:
            return cls(path, fd, _checked_dim(fd, path, dim))
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def create(cls, path: Path | str, dim: int) -> Self:
        """The plane at ``path``, to be written; made whole, without attractors, if there is none.

        Raises:
            Refuse: as :meth:`open`, or it cannot be made there.
        """
        path = Path(path)
        if not os.path.lexists(path):
            _make(path, dim)
        return cls.open(path, dim=dim, writable=True)

    def sequence(self) -> int:
        """A number that changes with every write."""
        return int.from_bytes(os.pread(self._fd, 8, _SEQUENCE_OFF), "little")

    def read(self) -> Control:
        """What holds now; it never waits for a writer.

        Raises:
            Refuse: the plane holds what no writer of ours writes (``control.value``).
            Retry: writers overtook the reader again and again (``control.busy``).
        """
        for _ in range(TRIES):
            before = self.sequence()
            slot = self._slot(before)
            # Our slot is written again only by the second writer from here.
            if before <= self.sequence() <= (before | 1) + 1:
                return self._decoded(slot)
        raise Retry("control.busy", f"{self.path} is written all the time", "try again")

    def write(self, control: Control) -> None:
        """Let this hold from now on.

        Raises:
            Refuse: too many attractors, or a value that no plane takes (``control.value``).
            Retry: another process writes for too long (``control.busy``).
        """
        self.change(lambda _: control)

    def change(self, edit: Callable[[Control], Control]) -> Control:
        """Let ``edit`` of what holds now hold; nobody writes in between.  As :meth:`write`."""
        with self._turn():
            control = edit(self.read())
            slot = self._encoded(control)
            k = self.sequence() >> 1  # odd: a writer was killed, and its half written slot is next
            self._put((2 * k + 1).to_bytes(8, "little"), _SEQUENCE_OFF)
            self._put(slot, HEADER_BYTES + (k + 1 & 1) * self._slot_bytes)
            even = (2 * k + 2) % (1 << 64)  # whatever another one has written there
            self._put(even.to_bytes(8, "little"), _SEQUENCE_OFF)
        return control

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        give_up_s = clock.monotonic_s() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock.monotonic_s() > give_up_s:
                    raise Retry(
                        "control.busy", f"another process writes {self.path}", "try again"
                    ) from None
                sleep(0.005)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _put(self, data: bytes, offset: int) -> None:
        try:
            while data:
                done = os.pwrite(self._fd, data, offset)
                data, offset = data[done:], offset + done
        except OSError as error:
            raise _refusal(self.path, error) from None

    def _slot(self, sequence: int) -> bytes:
        place = HEADER_BYTES + (sequence >> 1 & 1) * self._slot_bytes
        return os.pread(self._fd, self._slot_bytes, place)

    def _decoded(self, slot: bytes) -> Control:
        if len(slot) < self._slot_bytes:
            raise _bad(self.path, "the file was cut short")
        head = np.frombuffer(slot, SLOT_DTYPE, 1)[0]
        count = int(head["count"])
        if count > ATTRACTORS_MAX:
            raise _bad(self.path, f"{count} attractors are more than {ATTRACTORS_MAX}")
        table = np.frombuffer(slot, self._kind, count, _SLOT_HEADER_BYTES)
        try:
            attractors = tuple(
                Attractor(bytes(row["label"]).decode(), float(row["mass"]), row["position"].copy())
                for row in table
            )
        except UnicodeDecodeError:
            raise _bad(self.path, "a label is not UTF-8") from None
        control = Control(float(head["gravity"]), attractors)
        if reason := fault(control, self.dim):
            raise _bad(self.path, reason)
        return control

    def _encoded(self, control: Control) -> bytes:
        if reason := fault(control, self.dim):
            raise Refuse("control.value", f"{self.path} takes no such plane: {reason}")
        table = np.zeros(len(control.attractors), self._kind)
        for row, (label, mass, position) in zip(table, control.attractors, strict=True):
            row["label"], row["mass"], row["position"] = label.encode(), mass, position
        head = np.zeros(1, SLOT_DTYPE)
        head[["count", "gravity", "written_unix_us"]] = (
            len(table),
            control.gravity,
            clock.now_us(),
        )
        return head.tobytes() + table.tobytes()


def fault(control: Control, dim: int) -> str:
    """What is wrong with these values for a plane of ``dim``; empty when nothing is."""
    if not abs(control.gravity) <= VALUE_MAX:
        return f"gravity {control.gravity} is not a number from -{VALUE_MAX:g} to {VALUE_MAX:g}"
    if len(control.attractors) > ATTRACTORS_MAX:
        return f"{len(control.attractors)} attractors are more than {ATTRACTORS_MAX}"
    labels = [attractor.label for attractor in control.attractors]
    twice = next(
        (f"label {label!r} is there twice" for label in labels if labels.count(label) > 1), ""
    )
    return twice or next(
        filter(None, (_attractor_fault(one, dim) for one in control.attractors)), ""
    )


def _attractor_fault(attractor: Attractor, dim: int) -> str:
    label, mass, position = attractor
    if not (label.isprintable() and 1 <= len(label.encode()) <= LABEL_BYTES):
        return f"label {label!r} is not 1 to {LABEL_BYTES} bytes of printable UTF-8"
    if not abs(mass) <= VALUE_MAX:
        return f"mass {mass} of {label!r} is not a number from -{VALUE_MAX:g} to {VALUE_MAX:g}"
    if position.shape != (dim,):
        return f"the position of {label!r} has shape {position.shape}, not ({dim},)"
    if not LENGTH_MIN <= _length(position) <= VALUE_MAX:
        return f"the position of {label!r} points nowhere: its length is {_length(position):g}"
    return ""


def _length(position: Array) -> float:
    return float(np.linalg.norm(position.astype(np.float64)))


def _slot_bytes(dim: int) -> int:
    return _SLOT_HEADER_BYTES + ATTRACTORS_MAX * attractor_dtype(dim).itemsize


def _header(dim: int) -> bytes:
    header = np.zeros(1, HEADER_DTYPE)
    header[0] = (
        np.void(MAGIC),
        VERSION,
        BYTE_ORDER,
        HEADER_BYTES + 2 * _slot_bytes(dim),
        dim,
        ATTRACTORS_MAX,
        attractor_dtype(dim).itemsize,
        _slot_bytes(dim),
        0,
    )
    return header.tobytes()


def _make(path: Path, dim: int) -> None:
    """A whole plane under another name, then linked to its own, which fails if there is one."""
    empty = np.zeros(1, SLOT_DTYPE)
    empty["gravity"] = Control().gravity
    page = _header(dim) + empty.tobytes()
    new = path.with_name(f"{path.name}.{uuid4().hex}")
    try:
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE, 0o660)
        try:
            os.fchmod(fd, 0o660)  # whatever the umask
            os.posix_fallocate(fd, 0, HEADER_BYTES + 2 * _slot_bytes(dim))
            os.pwrite(fd, page, 0)
            with suppress(FileExistsError):  # another one was faster: use that
                os.link(new, path)
        finally:
            os.close(fd)
            new.unlink()
    except OSError as error:
        raise _refusal(path, error) from None


def _checked_dim(fd: int, path: Path, wanted: int | None) -> int:
    status = os.fstat(fd)
    trusted = {os.geteuid(), 0, path.parent.stat().st_uid}
    if not stat.S_ISREG(status.st_mode):
        raise _untrusted(path, "it is not a regular file")
    if status.st_uid not in trusted:
        raise _untrusted(path, f"it belongs to user {status.st_uid}")
    if status.st_mode & stat.S_IWOTH:
        raise _untrusted(path, "everybody may write to it")
    page = os.pread(fd, HEADER_BYTES, 0)
    if len(page) < HEADER_BYTES or page[:8] != MAGIC:
        raise _bad(path, "it has another magic number")
    dim = int(np.frombuffer(page, HEADER_DTYPE, 1)[0]["dim"])
    if not 1 <= dim <= DIM_MAX or page[:_SEQUENCE_OFF] != _header(dim)[:_SEQUENCE_OFF]:
        raise _bad(path, f"its header is not that of version {VERSION}")
    if status.st_size != HEADER_BYTES + 2 * _slot_bytes(dim):
        raise _bad(path, f"it has {status.st_size} bytes")
    if wanted not in {None, dim}:
        raise _bad(path, f"it is for vectors of {dim} values, the ring's have {wanted}")
    return dim


def _bad(path: Path, reason: str) -> Refuse:
    return Refuse(
        "control.value", f"{path} is no sound control plane: {reason}", "remove it and set it anew"
    )


def _untrusted(path: Path, reason: str) -> Refuse:
    return Refuse("control.file", f"cannot use {path}: {reason}", "remove it and set it anew")


def _refusal(path: Path, error: OSError) -> Refuse:
    reason, fix = {
        errno.ENOENT: (
            "there is no control plane",
            "make one: streamapp ring attractors set LABEL --text ...",
        ),
        errno.ELOOP: ("it is a symbolic link", "name the ring's own path"),
        errno.EACCES: ("permission denied", f"ask its owner to `chgrp` {path} to a group of yours"),
    }.get(error.errno or 0, (os.strerror(error.errno or 0), "choose another path"))
    return Refuse("control.file", f"cannot use {path}: {reason}", fix)
