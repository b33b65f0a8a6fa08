"""Where the process is between its first request and its last."""

import asyncio

from streamapp.core.errors import Halt


class Life:
    """Requests that are being answered, and whether new ones are still taken."""

    def __init__(self) -> None:
        self.requests = 0
        self.draining = False
        self.stopping = asyncio.Event()
        self.fault: Halt | None = None
        self._idle = asyncio.Event()

    def stop(self) -> None:
        """Ask the server to drain and end."""
        self.draining = True
        self.stopping.set()

    def fail(self, fault: Halt) -> None:
        """Ask the server to end with a fault."""
        self.fault = self.fault or fault
        self.stop()

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
