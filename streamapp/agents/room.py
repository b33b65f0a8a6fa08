"""A bound on bytes in work that lets a single large piece of work through."""

import asyncio


class Room:
    """Bytes in work, at most so many but for a single Slice."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._taken = 0
        self._given = asyncio.Event()

    async def take(self, size: int) -> None:
        """Wait until there is room."""
        while self._taken and self._taken + size > self._bytes_max:
            self._given.clear()
            await self._given.wait()
        self._taken += size

    def give(self, size: int) -> None:
        """Room for others."""
        self._taken -= size
        self._given.set()
