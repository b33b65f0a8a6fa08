"""A file that is there whole or not at all."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamapp.core.errors import Refuse


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """Give a path to write to; what was written takes the target's place when the block ends well.

    It is made durable first.  The path is ``.NAME.part`` beside the target and locked, so a run
    that was killed leaves one of them at most, which the next one overwrites.

    Raises:
        Refuse: another process writes this target now, or it cannot be written.
    """
    part = target.with_name(f".{target.name}.part")
    make_folder(target)
    try:
        descriptor = _locked(part, target)
    except OSError as error:
        raise _unwritable(target, error) from None
    try:
        try:
            yield part
            os.fsync(descriptor)
            part.replace(target)
            _sync_folder(target.parent)
        except BaseException as error:
            part.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise _unwritable(target, error) from None
            raise
    finally:
        os.close(descriptor)


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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(target: Path, error: OSError) -> Refuse:
    return Refuse(
        "data.write", f"{target}: {error.strerror or error}", "check its folder, mode and disk"
    )
