"""Where a Parquet store lives: what it needs of a directory or of an object store.

Both can do the one thing that everything stands on: make a file that must not exist yet, complete
or not at all.  :func:`prove_exclusive` tries it when a store opens.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from pyarrow import fs

from streamapp.core import clock
from streamapp.core.errors import Refuse
from streamapp.core.files import draft, sync

#: Writes that are not finished; emptied when a store opens.
_DRAFTS = "_drafts"
_LOCK = "_lock"


class Place(Protocol):
    """Files by their path below the root, with ``/``.  Everything raises OSError."""

    #: How messages name the root.
    url: str
    #: For Arrow, with ``base`` as the root's path in it.
    filesystem: fs.FileSystem
    base: str
    #: True when the lock keeps every other writer away.
    alone: bool

    def lock(self) -> None:
        """Become the writer; Refuse when another process is, where that can be known."""
        ...

    def unlock(self) -> None:
        """Be the writer no more."""
        ...

    def names(self, folder: str) -> list[str]:
        """Names of the files and folders in a folder ("" is the root); none when it is missing."""
        ...

    def walk(self, folder: str) -> Iterator[str]:
        """Paths of all files below a folder."""
        ...

    def read(self, path: str) -> bytes:
        """A file's content; FileNotFoundError when there is none."""
        ...

    def put(self, path: str, data: memoryview) -> None:
        """Write a whole file; when it returns it is durable."""
        ...

    def create(self, path: str, data: memoryview) -> None:
        """As ``put``, but FileExistsError when the file is there."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file; harmless when it is gone."""
        ...

    def age_s(self, path: str) -> float:
        """Seconds since the file was written."""
        ...


class Directory:
    """A directory of this machine, or one that is mounted.

    Args:
        root: its path.
    """

    alone = True

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.url = str(self.root)
        self.filesystem = fs.LocalFileSystem()
        self.base = self.url
        self._held: int | None = None

    def lock(self) -> None:
        (self.root / _DRAFTS).mkdir(parents=True, exist_ok=True)
        file = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 32, 0).decode(errors="replace").strip()
            os.close(file)
            raise Refuse(
                "store.locked",
                f"{self.url} is written by process {holder or 'of another host'}",
                "a Parquet store in a directory has one writer; stop the other one",
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._held = file
        for left in (self.root / _DRAFTS).iterdir():
            left.unlink()

    def unlock(self) -> None:
        file, self._held = self._held, None
        if file is not None:
            os.close(file)

    def names(self, folder: str) -> list[str]:
        try:
            return [entry.name for entry in (self.root / folder).iterdir()]
        except FileNotFoundError:
            return []

    def walk(self, folder: str) -> Iterator[str]:
        for parent, _, names in os.walk(self.root / folder):
            for name in names:
                yield (Path(parent) / name).relative_to(self.root).as_posix()

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def put(self, path: str, data: memoryview) -> None:
        with draft(self.root / _DRAFTS, data) as new:
            target = self._made(path)
            new.rename(target)
        sync(target.parent)

    def create(self, path: str, data: memoryview) -> None:
        with draft(self.root / _DRAFTS, data) as new:
            target = self._made(path)
            target.hardlink_to(new)  # a rename would replace what is there
        sync(target.parent)

    def remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def age_s(self, path: str) -> float:
        return clock.now_us() / 1e6 - (self.root / path).stat().st_mtime

    def _made(self, path: str) -> Path:
        """The target's path; folders on the way are made, and durable."""
        target = self.root / path
        missing = []
        folder = target.parent
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            sync(folder.parent)
        return target


def open_place(url: str) -> Place:
    """The place that a path or a URL names (``s3://bucket/path``, ``memory://name``).

    Raises:
        Refuse: the scheme is unknown, its driver is not installed, or it cannot be reached.
    """
    scheme, separator, rest = url.partition("://")
    try:
        if not separator:
            return Directory(Path(url).expanduser())
        if scheme == "file":
            return Directory(Path(rest))
        from streamapp.sink.parquet.objects import Objects

        return Objects(url)
    except OSError as error:
        raise unreachable(url, error) from None


def unreachable(url: str, error: OSError) -> Refuse:
    """Why a place cannot be opened."""
    return Refuse("store.path", f"cannot open {url}: {error}", "see STREAMAPP_PARQUET_URL")


def prove_exclusive(place: Place) -> None:
    """Find out that :meth:`Place.create` creates, and that it does so once.

    Raises:
        Refuse: a second one replaced the first; two writers would destroy each other's rows.
        OSError: the place cannot be written.
    """
    path = f"_manifest/.probe-{secrets.token_hex(8)}"
    try:
        place.create(path, memoryview(b"1"))
        try:
            place.create(path, memoryview(b"2"))
        except FileExistsError:
            return
    finally:
        place.remove(path)
    raise Refuse(
        "store.place",
        f"{place.url} cannot create a file only if it is missing, which exactly once needs",
        "use a directory, or an object store with conditional writes (If-None-Match)",
    )
