"""How a reader learns of new records at once and costs nothing while there are none.

After a commit the writer touches ``wake/TOPIC``; readers of any process watch that folder with
inotify (https://man7.org/linux/man-pages/man7/inotify.7.html).  A writer that dies between the two
leaves its records unannounced, so every wait has an end after which the reader looks for itself.
"""

import asyncio
import ctypes
import os
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from streamapp.core.errors import Retry

FOLDER = "wake"

#: Rung when a group's members or assignments change; it is no topic's name.
GROUPS = "@groups"

#: A reader that waits looks for itself this often.
LOOK_EVERY_S = 1.0

_IN_MODIFY = 0x2
_IN_Q_OVERFLOW = 0x4000
_EVENT = struct.Struct("iIII")  # wd, mask, cookie, length of the name that follows
_READ_BYTES = 64 << 10


class Bell:
    """The writer's side: rings for a topic."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._handles: dict[str, int] = {}

    def ring(self, topic: str) -> None:
        """Wake everyone who waits for the topic (a valid name: its file is open), or GROUPS."""
        with suppress(OSError):  # on a full disk whoever waits looks for itself a moment later
            handle = self._handles.get(topic)
            if handle is None:
                handle = os.open(self._folder / topic, os.O_WRONLY | os.O_CREAT, 0o644)
                self._handles[topic] = handle
            os.pwrite(handle, b"\n", 0)

    def close(self) -> None:
        while self._handles:
            os.close(self._handles.popitem()[1])


class Ear:
    """The readers' side: one inotify descriptor per event loop, any number of waiters."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._waiters: set[tuple[frozenset[str], asyncio.Event]] = set()
        self._handle: int | None = None

    def start(self) -> None:
        """Begin to listen on the running event loop.

        Raises:
            Retry: this user has no inotify instance left.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if handle < 0 or libc.inotify_add_watch(handle, os.fsencode(self._folder), _IN_MODIFY) < 0:
            reason = os.strerror(ctypes.get_errno())
            if handle >= 0:
                os.close(handle)
            raise Retry(
                "log.watch",
                f"cannot watch {self._folder}: {reason}",
                "raise fs.inotify.max_user_instances and max_user_watches",
            )
        self._handle = handle
        asyncio.get_running_loop().add_reader(handle, self._heard)

    def stop(self) -> None:
        """Stop listening; whoever waits waits to its own end."""
        handle, self._handle = self._handle, None
        if handle is not None:
            asyncio.get_running_loop().remove_reader(handle)
            os.close(handle)

    @contextmanager
    def listening(self, topics: Collection[str]) -> Iterator[asyncio.Event]:
        """An event that is set whenever one of the topics has new records.

        Clear it, look, then wait for it: nothing is missed in between.
        """
        waiter = frozenset(topics), asyncio.Event()
        self._waiters.add(waiter)
        try:
            yield waiter[1]
        finally:
            self._waiters.discard(waiter)

    def _heard(self) -> None:
        if self._handle is None:
            return
        data = os.read(self._handle, _READ_BYTES)
        heard: set[str] = set()
        overflow = False
        at = 0
        while at < len(data):
            _, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            overflow |= bool(mask & _IN_Q_OVERFLOW)
            heard.add(os.fsdecode(data[at - length : at].rstrip(b"\0")))
        for topics, event in self._waiters:
            if overflow or not topics.isdisjoint(heard):
                event.set()


async def heard_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event, at most so long; False when it did not come."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
