"""Attachments by the sha256 of their content: files under the home, or objects of a store.

What is there under a name is complete: it is written beside, synced, and then given its name.  The
same content is there once; coming again makes it young again, so that it is not swept from under
the event that refers to it last.
"""

import contextlib
import errno
import os
import re
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol

from pyarrow import fs

from streamapp.core import clock
from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.core.files import draft, sync

DIGEST = re.compile(r"[0-9a-f]{64}")
_DRAFTS = ".drafts"
#: Nobody writes one file for longer; an older draft is of a process that was killed.
_DRAFT_S_MAX = 3600.0
#: An object that is older is written again when its content comes again.
_YOUNG_S = 86_400.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Blob(NamedTuple):
    """One attachment; ``age_s`` since its content came last."""

    sha256: str
    size: int
    age_s: float


class Blobs(Protocol):
    """Where attachments are kept; used in threads."""

    def put(self, data: bytes) -> str:
        """Keep content; its sha256, when it is durable.

        Raises:
            Refuse: ``attachment.full`` there is no room.
            Retry: ``attachment.unreachable``.
        """
        ...

    def read(self, digest: str) -> bytes | None:
        """The content; None when it is not there (any more).

        Raises:
            Halt: ``attachment.damaged`` it is not what it was.
            Retry: ``attachment.unreachable``.
        """
        ...

    def all(self) -> list[Blob]:
        """Every attachment, in no order; Retry ``attachment.unreachable``."""
        ...

    def remove(self, digest: str) -> None:
        """Remove one; harmless when it is gone."""
        ...


def open_blobs(url: str) -> Blobs:
    """Attachments in a directory, or at ``s3://bucket/path`` (gs://, az://).

    Raises:
        Refuse: the URL's scheme is unknown, or its driver is not installed.
        Retry: ``attachment.unreachable``.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme == "file":
        return Folder(Path(url.removeprefix("file://")).expanduser())
    return Cloud(url)


class Folder:
    """In a directory of this machine, for any number of gateways."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, data: bytes) -> str:
        digest = sha256(data).hexdigest()
        path = self._path(digest)
        try:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size == len(data) and path.read_bytes() == data:
                    os.utime(path)
                    return digest
            self._write(path, data)
        except OSError as error:
            raise _unwritten(error, str(self._root)) from None
        return digest

    def read(self, digest: str) -> bytes | None:
        try:
            return _sound(self._path(digest).read_bytes(), digest)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreachable(error) from None

    def all(self) -> list[Blob]:
        now_s = clock.now_us() / 1e6
        found = []
        for path in self._root.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):  # swept by another
                status = path.stat()
                if DIGEST.fullmatch(path.name):
                    found.append(Blob(path.name, status.st_size, now_s - status.st_mtime))
        return found

    def remove(self, digest: str) -> None:
        self._path(digest).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what killed processes were writing."""
        now_s = clock.now_us() / 1e6
        for path in (self._root / _DRAFTS).glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if now_s - path.stat().st_mtime > _DRAFT_S_MAX:
                    path.unlink()

    def _path(self, digest: str) -> Path:
        return self._root / digest[:2] / digest

    def _write(self, path: Path, data: bytes) -> None:
        drafts = self._root / _DRAFTS
        for folder in (self._root, drafts, path.parent):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                sync(folder.parent)
        with draft(drafts, data, 0o600) as new:
            new.replace(path)
        sync(path.parent)


class Cloud:
    """In an object store, whose writes are atomic."""

    def __init__(self, url: str) -> None:
        from streamapp.sink.parquet.objects import Objects

        try:
            self._objects = Objects(url)
        except OSError as error:  # some drivers connect at once
            raise _unreachable(error) from None

    def put(self, data: bytes) -> str:
        digest = sha256(data).hexdigest()
        path = f"{digest[:2]}/{digest}"
        try:
            try:
                if self._objects.age_s(path) < _YOUNG_S:
                    return digest
            except FileNotFoundError:
                pass
            self._objects.put(path, memoryview(data))
        except OSError as error:
            raise _unwritten(error, self._objects.url) from None
        return digest

    def read(self, digest: str) -> bytes | None:
        try:
            return _sound(self._objects.read(f"{digest[:2]}/{digest}"), digest)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreachable(error) from None

    def all(self) -> list[Blob]:
        base, now_s = self._objects.base, clock.now_us() / 1e6
        selector = fs.FileSelector(base, allow_not_found=True, recursive=True)
        found = []
        try:
            infos = self._objects.filesystem.get_file_info(selector)
        except OSError as error:
            raise _unreachable(error) from None
        for info in infos:
            if DIGEST.fullmatch(name := info.base_name):
                at_s = info.mtime and info.mtime.timestamp()  # some drivers do not tell
                age_s = now_s - at_s if at_s else self._objects.age_s(f"{name[:2]}/{name}")
                found.append(Blob(name, info.size, age_s))
        return found

    def remove(self, digest: str) -> None:
        self._objects.remove(f"{digest[:2]}/{digest}")


def sweep(blobs: Blobs, older_s: float) -> list[Blob]:
    """Remove attachments whose content came last longer ago; those that were removed."""
    old = [blob for blob in blobs.all() if blob.age_s > older_s]
    for blob in old:
        blobs.remove(blob.sha256)
    if isinstance(blobs, Folder):
        blobs.tidy()
    return old


def _sound(data: bytes, digest: str) -> bytes:
    if sha256(data).hexdigest() != digest:
        raise Halt(
            "attachment.damaged",
            f"the content of attachment {digest} is not what was stored",
            "restore it from a copy, or remove it and send it again",
        )
    return data


def _unwritten(error: OSError, where: str) -> Refuse | Retry:
    if error.errno in _FULL:
        fix = "make room, sweep (`streamapp attachments sweep`), or set STREAMAPP_ATTACHMENTS_URL"
        return Refuse("attachment.full", f"{where}: {error.strerror}", fix)
    return _unreachable(error)


def _unreachable(error: OSError) -> Retry:
    return Retry(
        "attachment.unreachable", f"attachments: {error}", "check STREAMAPP_ATTACHMENTS_URL"
    )
