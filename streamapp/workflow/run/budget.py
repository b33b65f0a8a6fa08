"""Admission: a stage starts when what it is expected to take is free."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from streamapp.workflow.run.sizing import Limits


class Budget:
    """The cores and the memory of a run; who waits longest goes first.

    Args:
        limits: of the run.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._cpu, self._memory, self._inside = limits.cpus, limits.memory_bytes, 0
        self._queue: deque[tuple[float, int, asyncio.Future[None]]] = deque()
        self._expected: dict[str, int] = {}
        self._held: dict[str, int] = {}

    @asynccontextmanager
    async def admitted(self, cpu: float, memory_bytes: int, who: str = "") -> AsyncIterator[None]:
        """Hold cores and memory; what alone is more than the limits is let in when it is alone.

        Args:
            cpu: cores that it is expected to take.
            memory_bytes: the same of memory.
            who: of whom ``is_crowded`` says more.
        """
        cpu = min(cpu, self._limits.cpus)
        memory_bytes = min(memory_bytes, self._limits.memory_bytes)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((cpu, memory_bytes, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            self._forget(cpu, memory_bytes, turn)
            raise
        self._expected[who] = memory_bytes
        try:
            yield
        finally:
            self._held.pop(who, None)
            self._free(cpu, memory_bytes)

    def is_crowded(self, who: str, memory_bytes: int) -> bool:
        """Note what one that is let in holds; whether it is the one that has to give way.

        That is who holds most, when more than one are in and hold more than the limit together.
        """
        self._held[who] = memory_bytes
        held = self._held.values()
        return sum(held) > self._limits.memory_bytes and len(held) > 1 and memory_bytes == max(held)

    def _unexpected(self) -> int:
        """What those that are in hold beyond what they were expected to."""
        return sum(max(0, held - self._expected[who]) for who, held in self._held.items())

    def _forget(self, cpu: float, memory_bytes: int, turn: "asyncio.Future[None]") -> None:
        if turn.done() and not turn.cancelled():
            self._free(cpu, memory_bytes)  # it was let in just now
        else:
            with suppress(ValueError):  # it may be out already
                self._queue.remove((cpu, memory_bytes, turn))
            self._admit()

    def _free(self, cpu: float, memory_bytes: int) -> None:
        self._cpu += cpu
        self._memory += memory_bytes
        self._inside -= 1
        self._admit()

    def _admit(self) -> None:
        while self._queue:
            cpu, memory, turn = self._queue[0]
            if turn.cancelled():  # it is on its way to be forgotten
                self._queue.popleft()
                continue
            fits = cpu <= self._cpu + 1e-9 and memory <= self._memory - self._unexpected()
            if not fits and self._inside:
                return
            self._queue.popleft()
            self._cpu -= cpu
            self._memory -= memory
            self._inside += 1
            turn.set_result(None)
