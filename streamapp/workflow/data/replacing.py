"""A file that is there whole or not at all, and several that take their places together."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from streamapp.core.errors import Refuse
from streamapp.core.files import sync


class _Whole(NamedTuple):
    """A file that was written, is durable and still locked."""

    part: Path
    target: Path
    descriptor: int


class Together:
    """Files that take their targets' places when all of them are whole."""

    def __init__(self) -> None:
        self._files: list[_Whole] = []

    def __len__(self) -> int:
        return len(self._files)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, what ``replaced`` wrote waits for ``take_places``; an error removes all."""
        token = _together.set(self)
        try:
            yield
        except BaseException:
            self.drop()
            raise
        finally:
            _together.reset(token)

    def take_places(self) -> None:
        """Put each where it belongs, one right after the other.

        Raises:
            Refuse: a target cannot be replaced; those before it were.
        """
        try:
            while self._files:
                _take_place(self._files[0])
                os.close(self._files.pop(0).descriptor)
        finally:
            self.drop()

    def drop(self) -> None:
        """Remove what waits."""
        while self._files:
            file = self._files.pop()
            file.part.unlink(missing_ok=True)
            os.close(file.descriptor)

    def add(self, file: _Whole) -> None:
        """Let one wait.

        Raises:
            Refuse: a folder is in its place.
        """
        if file.target.is_dir():
            raise _unwritable(file.target, OSError(errno.EISDIR, os.strerror(errno.EISDIR)))
        self._files.append(file)


_together: ContextVar[Together | None] = ContextVar("together", default=None)


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """Give a path to write to; what was written takes the target's place when the block ends well.

    It is made durable first.  The path is ``.NAME.part`` beside the target and locked, so a run
    that was killed leaves one of them at most, which the next one overwrites.  Where files are held
    ``Together`` it takes its place with them.

    Raises:
        Refuse: another process writes this target now, or it cannot be written.
    """
    part = target.with_name(f".{target.name}.part")
    make_folder(target)
    try:
        descriptor = _locked(part, target)
    except OSError as error:
        raise _unwritable(target, error) from None
    together, file = _together.get(), _Whole(part, target, descriptor)
    try:
        yield part
        os.fsync(descriptor)
        if together is None:
            _take_place(file)
        else:
            together.add(file)
    except BaseException as error:
        part.unlink(missing_ok=True)
        os.close(descriptor)
        if isinstance(error, OSError):
            raise _unwritable(target, error) from None
        raise
    if together is None:
        os.close(descriptor)


def _take_place(file: _Whole) -> None:
    try:
        file.part.replace(file.target)
        sync(file.target.parent)
    except OSError as error:
        raise _unwritable(file.target, error) from None


def make_folder(target: Path) -> None:
    """The folder of a file that will be written.

    Raises:
        Refuse: it cannot be made.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(target, error) from None


def _locked(part: Path, target: Path) -> int:
    """A descriptor of the empty part, which no other process has."""
    while True:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between the two lines another run may have made it the target.
            if part.exists() and os.path.samestat(os.fstat(descriptor), part.stat()):
                os.ftruncate(descriptor, 0)
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise Refuse(
                "data.busy", f"{target} is being written by another run", "wait for its end"
            ) from None
        os.close(descriptor)


def _unwritable(target: Path, error: OSError) -> Refuse:
    return Refuse(
        "data.write", f"{target}: {error.strerror or error}", "check its folder, mode and disk"
    )
