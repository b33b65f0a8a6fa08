"""Opening a ring to read it."""

import os
from operator import index
from pathlib import Path
from time import sleep
from typing import NoReturn, SupportsIndex

import numpy as np

from streamapp.core import clock
from streamapp.core.errors import Halt, Refuse
from streamapp.ring import files
from streamapp.ring.engine import EngineName, Mapping
from streamapp.ring.layout import HEADER_DTYPE, SEQ_MAX

_LOOK_S = 0.1


def map_readable(path: Path, engine: EngineName) -> Mapping:
    """Map the ring at ``path`` read-only.

    Raises:
        Refuse: no ring there, not a ring, not to be trusted, from before a reboot (``ring.file``,
            ``ring.layout``, ``ring.stale``), or the C engine is not built (``ring.not_built``).
    """
    fd, geometry, page = files.open_checked(path, writable=False)
    try:
        header = np.frombuffer(page, HEADER_DTYPE, 1)[0]
        if bytes(header["boot_id"]) != files.boot_id():
            raise Refuse(
                "ring.stale",
                f"the ring {path} is from before this machine's last start",
                "start what writes it: `streamapp terminal`, or with ring = direct the worker",
            )
        return Mapping(fd, geometry, writable=False, engine=engine)
    finally:
        os.close(fd)


def await_file(path: Path, timeout: float | None) -> None:
    """Wait until there is something at ``path``, at most ``timeout`` seconds (None: for ever)."""
    end_s = None if timeout is None else clock.monotonic_s() + timeout
    while not _is_there(path) and (end_s is None or clock.monotonic_s() < end_s):
        sleep(_LOOK_S)


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError:
        return True  # opening it says what is wrong
    return True


def checked_id(frame_id: SupportsIndex) -> int:
    """A frame id as a plain int.

    Raises:
        Refuse: there cannot be such a frame (``ring.position``).
    """
    number = index(frame_id)
    if not 0 <= number < SEQ_MAX:
        raise Refuse(
            "ring.position", f"there can be no frame {number}", "frame ids count from 0: give one"
        )
    return number


class Closed:
    """In place of what a closed reader let go.

    Raises:
        Halt: whatever is asked of it (``ring.closed``).
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getattr__(self, _: str) -> NoReturn:
        raise Halt("ring.closed", f"the reader of {self._path} was closed", "open another")


def oldest(mapping: Mapping) -> int:
    """The first frame id that the writer has not come to overwrite."""
    return max(mapping.ops.claim() - mapping.spec.capacity, mapping.word("base"))
