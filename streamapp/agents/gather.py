"""What has come while the writer wrote is its next transaction."""

import asyncio
from typing import Generic, Protocol, TypeVar

from streamapp.core.clock import monotonic_s


class Sized(Protocol):
    """What is gathered knows how large it is."""

    @property
    def rows(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


class Gather(Generic[T]):
    """A FIFO between two tasks whose taker gets everything that waits, once that is worth it.

    Args:
        rows_enough: rows after which nothing more is waited for, and nothing more is let in.
        bytes_enough: the same in bytes.
        wait_s: longest the first of what is taken together waits for others.
    """

    def __init__(self, *, rows_enough: int, bytes_enough: int, wait_s: float) -> None:
        self._rows_enough = rows_enough
        self._bytes_enough = bytes_enough
        self._wait_s = wait_s
        self._waiting: list[T] = []
        self._since_s = 0.0
        self._changed = asyncio.Condition()

    async def put(self, item: T) -> None:
        """Add one; waits while there is enough, so that at most one item is more than that."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._enough())
            if not self._waiting:
                self._since_s = monotonic_s()
            self._waiting.append(item)
            self._changed.notify_all()

    async def take(self) -> list[T]:
        """All that waits, at least one, in order."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._waiting))
            try:
                async with asyncio.timeout(self._since_s + self._wait_s - monotonic_s()):
                    await self._changed.wait_for(self._enough)
            except TimeoutError:
                pass
            taken, self._waiting = self._waiting, []
            self._changed.notify_all()
            return taken

    def _enough(self) -> bool:
        return (
            sum(item.rows for item in self._waiting) >= self._rows_enough
            or sum(item.size_bytes for item in self._waiting) >= self._bytes_enough
        )
