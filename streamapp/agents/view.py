"""What the agents share that keep a view of the enriched topic: one FIFO, one writer thread.

A view (the store, a ring) knows itself where it stands, so that position is where reading starts;
what the group committed is for lag tools only.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from streamapp.agents.outcome import guarded
from streamapp.agents.typed import SliceEvent, slice_events
from streamapp.core.metrics import Metrics

T = TypeVar("T")


class ViewAgent(ABC):
    """The body, the queue and the writer thread; a subclass opens, writes and closes its view.

    Args:
        name: of the writer thread.
        slices_max: Slices that may wait for the writer.
        metrics: of this process.
        generation: the consumer group's current generation.
    """

    def __init__(
        self, name: str, slices_max: int, metrics: Metrics, generation: Callable[[], int]
    ) -> None:
        self.ready = False
        self._metrics = metrics
        self._generation = generation
        self._queue: asyncio.Queue[SliceEvent] = asyncio.Queue(slices_max)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._task: asyncio.Task[None] | None = None

    async def run(self, stream: Any) -> None:
        """The agent's body: queue each Slice of enriched records."""
        if self._task is None:
            self._task = asyncio.create_task(guarded(self._work()))
        async for event in slice_events(stream):
            await self._queue.put(event)

    async def start_positions(self, tps: Iterable[tuple[str, int]]) -> Mapping[Any, int]:
        """Where the view stands in each enriched partition."""
        return await guarded(self._start_positions(tps))

    async def open(self) -> None:
        """Open the view, before the app joins its group.

        A second process of one view is refused here, by the view's own lock, and the first one's
        partitions stay where they are.
        """
        await guarded(self._open())

    async def stop(self) -> None:
        """Write nothing more and close the view."""
        if self._task is not None:
            self._task.cancel()
        await self._close()
        self._writer.shutdown(wait=False)

    @abstractmethod
    def positions(self) -> Mapping[tuple[str, int], int]:
        """The next enriched offset of each partition that is not in the view yet."""

    @abstractmethod
    async def _open(self) -> None:
        """Make the view ready; called before every assignment; importing the app locks no file."""

    @abstractmethod
    async def _work(self) -> None:
        """Take Slices from the queue, write them, acknowledge them; never returns."""

    @abstractmethod
    async def _close(self) -> None:
        """Close what ``_open`` opened, if it did."""

    def _is_current(self, event: SliceEvent) -> bool:
        """False for what was delivered before a rebalance: its partition may be another's now."""
        return event.message.generation_id == self._generation()

    async def _in_writer(self, function: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, function, *arguments)

    async def _start_positions(self, tps: Iterable[tuple[str, int]]) -> Mapping[Any, int]:
        await self._open()
        # In the writer's thread, so that a commit still at work is counted in.
        known = await self._in_writer(self.positions)
        wanted = list(tps)
        unknown = [tp for tp in wanted if (tp[0], tp[1]) not in known]
        starts = {**await self._first(unknown), **known}
        self.ready = True
        return {tp: starts[tp[0], tp[1]] for tp in wanted}

    async def _first(self, unknown: Sequence[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        """Where to start in partitions that the view knows nothing of."""
        return dict.fromkeys(unknown, 0)
