"""``async for frames in reader``: a thread waits on the ring's futex, the event loop reads."""

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self

from streamapp.core.errors import Halt
from streamapp.ring.engine import Mapping
from streamapp.ring.frames import Frames
from streamapp.ring.layout import State

if TYPE_CHECKING:
    from streamapp.ring.reader import RingReader

#: After this long a wait ends: to see another file at the path, or that nobody waits any more.
_SLICE_S = 0.1


class Arrivals:
    """The frames that come to a reader, batch by batch; ends when the reader is closed.

    After a cancelled wait it goes on where it was.
    """

    def __init__(self, reader: "RingReader", watch: "Watch") -> None:
        self._reader = reader
        self._watch = watch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frames:
        await asyncio.sleep(0)  # a ring that always has frames must not starve the other tasks
        while not self._reader.closed:
            frames = self._reader.read()
            if len(frames) or frames.lost or frames.void:
                return frames
            await self._watch.beyond(self._reader.position, self._reader.mapping)
        raise StopAsyncIteration


class _Ask(NamedTuple):
    mapping: Mapping
    position: int
    loop: asyncio.AbstractEventLoop
    news: asyncio.Future[None]


class Watch:
    """A thread, begun when it is first needed, that waits for one task at a time.

    It reads nothing and holds no reader: it only says when to look.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._news: asyncio.Future[None] | None = None
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._ask: _Ask | None = None
        self._stopped = False

    async def beyond(self, position: int, mapping: Mapping) -> None:
        """Return when the ring goes beyond ``position``, or in a while, to look for another file.

        Raises:
            Halt: another task waits already.
        """
        loop = asyncio.get_running_loop()
        if self._news and not self._news.done() and self._news.get_loop() is loop:
            raise Halt("ring.reader", "two tasks wait for one reader", "open a reader for each")
        if self._thread is None or not self._thread.is_alive():  # or this is a forked child
            self._begin()
            self._thread = threading.Thread(target=self._run, name="ring-watch", daemon=True)
            self._thread.start()
        self._news = loop.create_future()
        with self._changed:
            self._ask = _Ask(mapping, position, loop, self._news)
            self._changed.notify()
        await self._news

    def stop(self) -> None:
        """End the thread; it notices within a slice of its wait."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _run(self) -> None:
        while ask := self._next():
            ask.mapping.ops.wait(ask.position, 0, int(_SLICE_S * 1e9))
            if ask.mapping.word("state") == State.RETIRED:  # does not wait: leave time for a file
                self._pause()
            with suppress(RuntimeError):  # the loop was closed: nobody waits there
                ask.loop.call_soon_threadsafe(_tell, ask.news)
            del ask  # while idle, hold no mapping

    def _next(self) -> _Ask | None:
        with self._changed:
            while self._ask is None and not self._stopped:
                self._changed.wait()
            ask, self._ask = self._ask, None
            return ask

    def _pause(self) -> None:
        with self._changed:
            if self._ask is None and not self._stopped:
                self._changed.wait(_SLICE_S)


def _tell(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)
