"""The enrich agent: Slices of raw events in, enriched records out, in order per partition.

Each partition that is ours is a :class:`Pipeline`; the models have one thread for all of them.  A
source range is acknowledged only after its enriched record is durable.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from streamapp.agents.outcome import guarded, persist
from streamapp.agents.pipeline import EnrichConfig, Pipeline, Shared, Twin
from streamapp.agents.publish import Standpoint, lost_record
from streamapp.agents.recovery import Standing, recover
from streamapp.agents.typed import slice_events
from streamapp.core.metrics import Metrics
from streamapp.core.ranges import OffsetRange
from streamapp.transport.clients import Producer, Reader
from streamapp.workflow import Plan

__all__ = ["EnrichAgent", "EnrichConfig", "Twin"]


class EnrichAgent:
    """The agent's body and its partitions.

    Args:
        plan: opened before the first Slice.
        producer: publishes enriched records and dead letters.
        reader: reads the enriched topic when a partition is taken over.
        generation: the consumer group's current generation.
        twin: what else to publish of a batch; it is in the log before the batch is.
    """

    def __init__(
        self,
        plan: Plan,
        producer: Producer,
        reader: Reader,
        config: EnrichConfig,
        metrics: Metrics,
        generation: Callable[[], int],
        twin: Twin | None = None,
    ) -> None:
        self._plan = plan
        self._producer = producer
        self._reader = reader
        self._config = config
        self._metrics = metrics
        self._generation = generation
        self._partitions: dict[tuple[str, int], Pipeline] = {}
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix="streamapp-decoding")
        # One thread: onnxruntime spreads a call over the cores itself.
        self._inference = ThreadPoolExecutor(1, thread_name_prefix="streamapp-inference")
        self._shared = Shared(
            plan, producer, config, metrics, generation,
            self._decoding, self._inference, self._bounds, twin,
        )  # fmt: skip
        self._started = asyncio.Lock()
        self.ready = False

    async def run(self, stream: Any) -> None:
        """The agent's body: hand each Slice to its partition, wait when that is full."""
        async for event in slice_events(stream):
            partition = self._partitions.get((event.value.range.topic, event.value.range.partition))
            if partition is not None and partition.generation == event.message.generation_id:
                await partition.queue.put(event)

    async def start_positions(self, tps: Iterable[tuple[str, int]]) -> Mapping[Any, int]:
        """Where to read each source partition from; asked on assignment and on seeking back."""
        return await guarded(self._start_positions(list(tps)))

    def positions(self) -> Mapping[tuple[str, int], int]:
        """The next source offset of each partition that is not enriched yet."""
        return {key: pipeline.position for key, pipeline in self._partitions.items()}

    async def stop(self) -> None:
        """Finish the Slices that the models have begun, and free the models.

        What only waits is not acknowledged, so the next owner gets it: a drain takes as long as
        about one Slice of each partition, however many were delivered.
        """
        held = list(self._partitions.values())
        self._partitions.clear()
        await asyncio.gather(*(pipeline.finish() for pipeline in held))
        await asyncio.get_running_loop().run_in_executor(self._inference, self._plan.close)
        self._decoding.shutdown(wait=False)
        self._inference.shutdown(wait=False)
        await self._producer.stop()
        await self._reader.stop()

    async def _start_positions(self, tps: Sequence[tuple[str, int]]) -> Mapping[Any, int]:
        await self._open()
        generation = self._generation()
        for key in [key for key, p in self._partitions.items() if p.generation != generation]:
            self._partitions.pop(key).drop()
        positions: dict[Any, int] = {}
        for tp in tps:
            key = (tp[0], tp[1])
            if key not in self._partitions:
                await self._take_over(key, generation)
            positions[tp] = self._partitions[key].position
        self.ready = True
        return positions

    async def _open(self) -> None:
        async with self._started:
            if not self._plan.is_open:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._inference, self._plan.open)
                for client in (self._producer, self._reader):
                    await persist("connect", client.start, self._metrics)

    async def _take_over(self, key: tuple[str, int], generation: int) -> None:
        config = self._config
        standing = await persist(
            "recovery",
            lambda: recover(self._reader, key, config.enriched, config.conversations_max),
            self._metrics,
        )
        assert standing is not None  # noqa: S101  # persist without still_ours always returns
        begin, _ = await self._bounds(key)
        position = begin if standing.next is None else standing.next
        if position < begin:
            await self._publish_loss(OffsetRange(*key, position, begin), standing)
            position = begin
        self._partitions[key] = Pipeline(self._shared, key, generation, standing, position)

    async def _publish_loss(self, lost: OffsetRange, standing: Standing) -> None:
        """A position below the log's beginning is loss by retention: publish, count, go on."""
        record = lost_record(lost, Standpoint(standing.snapshot, self._plan.provenance()))
        await persist(
            "publish", lambda: self._producer.send(self._config.enriched, [record]), self._metrics
        )
        self._metrics.lost.inc(lost.size)
        standing.since_snapshot += 1

    async def _bounds(self, key: tuple[str, int]) -> tuple[int, int]:
        bounds = await persist("bounds", lambda: self._reader.bounds(*key), self._metrics)
        assert bounds is not None  # noqa: S101  # persist without still_ours always returns
        return bounds
