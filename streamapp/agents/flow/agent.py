"""The agent of one group: Slices of its source in, one record per unit and topic out, in order.

A range of the source is acknowledged only after every topic of the group has what came of it.
Where the group stands is read from those topics, together with the state of its windows, so a
process that was killed goes on as if it had not been.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from streamapp.agents.flow.chain import Chain
from streamapp.agents.flow.record import OVERHEAD_BYTES, Aside, Mark, decode, encode, mark_of
from streamapp.agents.flow.topology import Group
from streamapp.agents.flow.units import Repeats, Unit, rows_of, units
from streamapp.agents.outcome import guarded, persist
from streamapp.agents.recovery import last_record
from streamapp.agents.typed import SliceEvent, slice_events
from streamapp.core.errors import Halt, Refuse
from streamapp.core.metrics import Metrics
from streamapp.plugin import Cancelled
from streamapp.transport.clients import Outgoing, Producer, Reader


class _Standing:
    """One partition: what each topic covers of the source."""

    def __init__(self, covered: dict[str, int], generation: int, repeats: Repeats) -> None:
        self.covered = covered
        self.generation = generation
        self.repeats = repeats

    @property
    def next(self) -> int:
        """The first offset that some topic has nothing of."""
        return min(self.covered.values())


class FlowAgent:
    """The agent's body.

    Args:
        group: whose stages it runs.
        chain: of them, not opened.
        schema: of the source's rows.
        producer: started by the agent, as ``reader``.
        reader: reads the group's topics when a partition is taken over.
        metrics: of this process.
        generation: the consumer group's current generation.
        record_bytes_max: of the group's topics.
    """

    def __init__(
        self,
        group: Group,
        chain: Chain,
        schema: pa.Schema,
        producer: Producer,
        reader: Reader,
        metrics: Metrics,
        generation: Callable[[], int],
        record_bytes_max: int,
    ) -> None:
        self._group, self._chain, self._schema = group, chain, schema
        self._producer, self._reader, self._metrics = producer, reader, metrics
        self._generation = generation
        self._value_bytes_max = record_bytes_max - OVERHEAD_BYTES
        self._partitions: dict[int, _Standing] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="streamapp-flow")
        self._starting = asyncio.Lock()
        self._is_open = self._is_ending = False
        self.ready = False

    async def run(self, stream: Any) -> None:
        """The agent's body."""
        async for event in slice_events(stream):
            await guarded(self._take(event))

    async def start_positions(self, tps: Iterable[tuple[str, int]]) -> Mapping[Any, int]:
        """Where to read each partition of the source from."""
        return await guarded(self._start_positions(list(tps)))

    def positions(self) -> Mapping[tuple[str, int], int]:
        """The next offset of each partition that is not done yet."""
        return {(self._group.topic, part): at.next for part, at in self._partitions.items()}

    async def stop(self) -> None:
        """Finish the try in work, and free the operations."""
        self._is_ending = True
        self._partitions.clear()
        await self._in_thread(self._chain.close)
        self._thread.shutdown(wait=False)
        await self._producer.stop()
        await self._reader.stop()

    async def _start_positions(self, tps: list[tuple[str, int]]) -> Mapping[Any, int]:
        async with self._starting:
            if not self._is_open:
                for client in (self._producer, self._reader):
                    await persist("connect", client.start, self._metrics)
                await persist("open", lambda: self._in_thread(self._chain.open), self._metrics)
                self._is_open = True
        generation, starts = self._generation(), {}
        for tp in tps:
            partition = tp[1]
            held = self._partitions.get(partition)
            if held is None or held.generation != generation:
                held = await persist("recovery", lambda: self._stand(partition), self._metrics)  # noqa: B023  # awaited at once
                assert held is not None  # noqa: S101  # persist without still_ours returns
                self._partitions[partition] = held
            starts[tp] = held.next
        for partition in set(self._partitions) - {tp[1] for tp in tps}:
            if self._partitions[partition].generation != generation:
                del self._partitions[partition]
        self.ready = True
        return starts

    async def _stand(self, partition: int) -> _Standing:
        """What the group's topics say of a partition; the state of its windows is put back."""
        covered, states = {}, {}
        begin, end = await self._reader.bounds(self._group.topic, partition)
        for topic in self._group.publishes:
            bounds = await self._reader.bounds(topic, partition)
            record = await last_record(self._reader, topic, partition, *bounds)
            part = None if record is None else decode(record)
            covered[topic] = part.mark.next if part else begin
            states[topic] = part.state if part else b""
        at = min(covered.values())
        if at < begin or max(covered.values()) > end:
            what = "lost rows" if at < begin else "was made anew"
            raise Halt(
                "flow.source",
                f"{self._group.topic!r} [{partition}] {what}: it has {begin} to {end},"
                f" and {at} is next",
                "delete the workflow's topics and feed it anew",
            )
        first = next(topic for topic, next_ in covered.items() if next_ == at)
        await self._in_thread(self._chain.restore, states[first])
        before = None
        if at > begin:
            before = await last_record(self._reader, self._group.topic, partition, begin, at)
        mark = mark_of(before) if before is not None else None
        return _Standing(covered, self._generation(), Repeats(mark.place) if mark else Repeats())

    async def _take(self, event: SliceEvent) -> None:
        range_ = event.value.range
        held = self._partitions.get(range_.partition)
        if held is None or held.generation != event.message.generation_id:
            return  # another's by now; not acknowledged, so that it gets it
        slice_ = event.value.since(max(held.next, range_.first))
        todo = list(units(slice_, set(held.covered.values())))
        while todo:
            unit = todo.pop(0)
            if not self._is_current(held):
                return
            try:
                if unit.next > held.next and not await self._publish(unit, held, range_.partition):
                    todo[:0] = unit.halves()
            except Cancelled:
                return
        event.ack()

    def _is_current(self, held: _Standing) -> bool:
        return held.generation == self._generation()

    async def _publish(self, unit: Unit, held: _Standing, partition: int) -> bool:
        """Publish what comes of a unit; False when it must be halved for that.

        Raises:
            Cancelled: the partition is another's by now, or the process ends.
        """
        made = await persist(
            "operation",
            lambda: self._in_thread(self._made, unit, held, partition),
            self._metrics,
            lambda: self._is_current(held),
        )
        if made is None:
            return not self._is_current(held)
        for topic, record in made.items():
            if unit.next <= held.covered[topic]:
                continue
            sent = await persist(
                "publish",
                lambda: self._producer.send(topic, [record]),  # noqa: B023  # awaited at once
                self._metrics,
                lambda: self._is_current(held),
            )
            if sent is None:
                return True
            held.covered[topic] = unit.next
        return True

    def _made(self, unit: Unit, held: _Standing, partition: int) -> dict[str, Outgoing] | None:
        """The unit's record for each topic; None when one would be too large and may be smaller.

        When it raises, or returns None, the group stands where it stood.
        """
        before, place = self._chain.state(), held.repeats
        repeats = place.copy()
        try:
            rows, bad = rows_of(unit.records, self._schema, repeats)
            tables, asides = self._chain.run(
                rows,
                is_end=unit.end,
                still_ours=lambda: not self._is_ending and self._is_current(held),
            )
        except BaseException:
            self._chain.restore(before)
            raise
        asides = [*(Aside(self._group.source, why, each) for each, why in bad), *asides]
        mark = Mark(unit.first, unit.next, unit.run, unit.end)
        state = self._chain.state()
        made = {
            topic: encode(mark, tables[name], state, asides, partition)
            for topic, name in self._group.publishes.items()
        }
        largest = max(len(record.value or b"") for record in made.values())
        if largest <= self._value_bytes_max:
            held.repeats = repeats
            return made
        self._chain.restore(before)
        if len(unit.records) > 1:
            return None
        raise Refuse(
            "flow.too_large",
            f"what {self._group.name!r} makes of offset {unit.first} has {largest:,} bytes;"
            f" a record may have {self._value_bytes_max:,}",
            "feed fewer rows at a time, or leave out columns",
        )

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, *arguments)
