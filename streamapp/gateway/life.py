"""Where the process is between its first request and its last."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from streamapp.core.errors import Halt

#: What a body that is on its way may still take when the gateway stops.
STOPPING_BODY_S = 2.0


class Life:
    """Requests that are being answered, and whether new ones are still taken."""

    def __init__(self) -> None:
        self._bodies: set[asyncio.Timeout] = set()
        self.requests = 0
        self.draining = False
        self.stopping = asyncio.Event()
        self.fault: Halt | None = None
        self._idle = asyncio.Event()

    def stop(self) -> None:
        """Ask the server to drain and end."""
        self.draining = True
        self.stopping.set()
        for limit in self._bodies:
            _hurry(limit)

    def fail(self, fault: Halt) -> None:
        """Ask the server to end with a fault."""
        self.fault = self.fault or fault
        self.stop()

    @contextlib.asynccontextmanager
    async def body(self, seconds: float) -> AsyncIterator[None]:
        """Raise TimeoutError when the block takes so long, or too long for one that drains."""
        async with asyncio.timeout(seconds) as limit:
            if self.draining:
                _hurry(limit)
            self._bodies.add(limit)
            try:
                yield
            finally:
                self._bodies.discard(limit)

    def enter(self) -> None:
        self.requests += 1

    def leave(self) -> None:
        self.requests -= 1
        if self.draining and not self.requests:
            self._idle.set()

    async def idle(self) -> None:
        """Wait, once draining, for the last request's answer."""
        if self.requests:
            await self._idle.wait()


#: Where an application has its.
LIFE = web.AppKey("life", Life)


def _hurry(limit: asyncio.Timeout) -> None:
    end_s = asyncio.get_running_loop().time() + STOPPING_BODY_S
    limit.reschedule(min(limit.when() or end_s, end_s))
