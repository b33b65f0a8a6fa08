"""Files that people write, or we: short, and none that is read without an end."""

import errno
import stat
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from streamapp.core.config import read_toml
from streamapp.core.errors import Refuse

BYTES_MAX = 16 << 20
#: What a JSON decoder raises at bytes that are no such thing.
GARBLED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
T = TypeVar("T")


def check_small(path: Path) -> None:
    """Refuse a pipe, a device, or a file of more than ``BYTES_MAX``.

    Raises:
        OSError: it is one, or cannot be looked at.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no file", str(path))
    if found.st_size > BYTES_MAX:
        raise OSError(errno.EFBIG, f"it has more than {BYTES_MAX >> 20} MiB", str(path))


def read_json(path: Path, kind: type[T]) -> T:
    """What a short JSON file says.

    Raises:
        OSError: it cannot be read, or is no short file.
        GARBLED: it says something else.
    """
    check_small(path)
    return msgspec.json.decode(path.read_bytes(), type=kind)


def read_short_toml(path: Path) -> dict[str, Any]:
    """As ``core.config.read_toml``, of a short file.

    Raises:
        Refuse: also where it is no file, is too large, or is nested too deep.
    """
    try:
        check_small(path)
    except OSError as error:
        why = f"{path}: {error.strerror}"
        raise Refuse("file.read", why, "check the path and its mode") from None
    try:
        return read_toml(path)
    except RecursionError:
        why = f"{path}: it is nested too deep"
        raise Refuse("file.toml", why, "write fewer brackets") from None
