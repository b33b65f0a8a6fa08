"""The enrich agent: Slices of raw events in, enriched records out, in order per partition.

Each partition that is ours is a :class:`Pipeline`; the models have one thread for all of them.  A
source range is acknowledged only after its enriched record is durable.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from streamapp.agents.making import Twin, no_frames
from streamapp.agents.outcome import guarded, persist
from streamapp.agents.pipeline import EnrichConfig, Pipeline, Shared
from streamapp.agents.publish import Standpoint, lost_record
from streamapp.agents.recovery import Standing, recover
from streamapp.agents.typed import slice_events
from streamapp.core.metrics import Metrics
from streamapp.core.ranges import OffsetRange
from streamapp.transport.clients import Producer, Reader
from streamapp.workflow import Plan

if TYPE_CHECKING:  # who writes no ring does without it
    from streamapp.agents.direct import DirectRing

__all__ = ["EnrichAgent", "EnrichConfig", "Twin"]

T = TypeVar("T")


class EnrichAgent:
    """The agent's body and its partitions.

    Args:
        plan: opened before the first Slice.
        producer: publishes enriched records and dead letters.
        reader: reads the enriched topic when a partition is taken over.
        generation: the consumer group's current generation.
        twin: what else to publish of a batch; it is in the log before the batch is.
        direct: the ring that this worker writes, where no terminal does.
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
        direct: "DirectRing | None" = None,
    ) -> None:
        self._plan = plan
        self._producer = producer
        self._reader = reader
        self._config = config
        self._metrics = metrics
        self._generation = generation
        self._direct = direct
        self._partitions: dict[tuple[str, int], Pipeline] = {}
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix="streamapp-decoding")
        # One thread: onnxruntime spreads a call over the cores itself.
        self._inference = ThreadPoolExecutor(1, thread_name_prefix="streamapp-inference")
        self._shared = Shared(
            plan, producer, config, metrics, generation,
            self._decoding, self._inference, self._bounds, twin,
            no_frames if direct is None else direct.frames.around,
        )  # fmt: skip
        self._started = asyncio.Lock()
        self.ready = False

    async def open(self) -> None:
        """Become the ring's writer, if we are to, before the app joins its group."""
        if self._direct is not None:
            await guarded(self._direct.open(self._in_inference))

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
        await self._in_inference(self._plan.close)
        if self._direct is not None:
            await self._direct.close()
        self._decoding.shutdown(wait=False)
        self._inference.shutdown(wait=False)
        await self._producer.stop()
        await self._reader.stop()

    async def _start_positions(self, tps: Sequence[tuple[str, int]]) -> Mapping[Any, int]:
        await self._open()
        generation = self._generation()
        for key in [key for key, p in self._partitions.items() if p.generation != generation]:
            self._partitions.pop(key).drop()
        keys = {tp: (tp[0], tp[1]) for tp in tps}
        new = [key for key in keys.values() if key not in self._partitions]
        stands = {key: await self._stand(key) for key in new}
        if self._direct is not None:
            await self._direct.take_over({key: position for key, (_, position) in stands.items()})
        for key, (standing, position) in stands.items():
            self._partitions[key] = Pipeline(self._shared, key, generation, standing, position)
        self.ready = True
        return {tp: self._partitions[key].position for tp, key in keys.items()}

    async def _open(self) -> None:
        async with self._started:
            if not self._plan.is_open:
                # A model may be on a server that is away.
                await persist("models", lambda: self._in_inference(self._plan.open), self._metrics)
                for client in (self._producer, self._reader):
                    await persist("connect", client.start, self._metrics)

    async def _stand(self, key: tuple[str, int]) -> tuple[Standing, int]:
        """What is known of a partition that becomes ours, and its next source offset."""
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
        return standing, position

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

    async def _in_inference(self, function: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._inference, function, *arguments)
