"""The agent of one group: Slices of its source in, one record per unit and topic out, in order.

A range of the source is acknowledged only after every topic of the group has what came of it.
Where the group stands is read from those topics, together with the state of its windows, so a
process that was killed goes on as if it had not been.

What is parted by a key follows the record it is of, and is sent once more by who takes over.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from streamapp.agents.flow.chain import Chain
from streamapp.agents.flow.collect import mark_before
from streamapp.agents.flow.fronts import Fronts
from streamapp.agents.flow.keyed import idle_parts, latest_us, parts
from streamapp.agents.flow.record import OVERHEAD_BYTES, Aside, Mark, Part, decode, encode, mark_of
from streamapp.agents.flow.topology import Group
from streamapp.agents.flow.units import Repeats, Unit, rows_of, units
from streamapp.agents.outcome import guarded, persist
from streamapp.agents.recovery import last_record
from streamapp.agents.typed import SliceEvent, slice_events
from streamapp.core.errors import Halt, Refuse
from streamapp.core.metrics import Metrics
from streamapp.plugin import Cancelled
from streamapp.transport.clients import Outgoing, Producer, Reader

#: How long nothing may come of a source before the windows behind it no longer wait for its rows.
IDLE_S = 30.0
_states = msgspec.msgpack.Decoder(tuple[bytes, bytes])
_encode = msgspec.msgpack.encode


class _Made(NamedTuple):
    """What goes to one topic: its record, and the same rows by key, each with its topic."""

    record: Outgoing
    parts: list[tuple[str, list[Outgoing]]]
    has_times: bool


class _Standing:
    """One partition: what each topic covers of the source, and the state after that.

    ``quiet`` has the topics from which nothing came since they were last looked at, and where the
    source then ended; ``idle`` those of which that was told.
    """

    def __init__(
        self, covered: dict[str, int], generation: int, seen: Repeats | Fronts, state: bytes
    ) -> None:
        self.covered = covered
        self.generation = generation
        self.seen, self.state = seen, state
        self.quiet: dict[str, int] = {}
        self.idle: set[str] = set()

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
        self._turn = asyncio.Lock()  # to send, or to look where the topics end
        self._loaded: _Standing | None = None  # whose state the chain has
        self._watching: asyncio.Task[None] | None = None
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
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        self._partitions.clear()
        await self._in_thread(self._chain.close)
        self._thread.shutdown(wait=False)
        await self._producer.stop()
        await self._reader.stop()

    async def _start_positions(self, tps: list[tuple[str, int]]) -> Mapping[Any, int]:
        async with self._turn:
            return await self._stood(tps)

    async def _stood(self, tps: list[tuple[str, int]]) -> Mapping[Any, int]:
        if not self._is_open:
            for client in (self._producer, self._reader):
                await persist("connect", client.start, self._metrics)
            await persist("open", lambda: self._in_thread(self._chain.open), self._metrics)
            self._is_open = True
            if self._group.by_key:
                self._watching = asyncio.create_task(guarded(self._watch()))
        generation, starts = self._generation(), {}
        for tp in tps:
            partition = tp[1]
            held = self._partitions.get(partition)
            if held is None or held.generation != generation:
                stand = partial(self._stand, partition, generation)
                held = await persist("recovery", stand, self._metrics)
                assert held is not None  # noqa: S101  # persist without still_ours returns
                self._partitions[partition] = held
            starts[tp] = held.next
        for partition in set(self._partitions) - {tp[1] for tp in tps}:
            if self._partitions[partition].generation != generation:
                del self._partitions[partition]
        self.ready = True
        return starts

    async def _stand(self, partition: int, generation: int) -> _Standing:
        """What the group's topics say of a partition that this generation gives to us."""
        covered, found = dict[str, int](), dict[str, Part | None]()
        begin, end = await self._reader.bounds(self._group.topic, partition)
        for topic in self._group.publishes:
            bounds = await self._reader.bounds(topic, partition)
            record = await last_record(self._reader, topic, partition, *bounds)
            part = found[topic] = None if record is None else decode(record)
            covered[topic] = part.mark.next if part else begin
            if part is not None:
                for to, records in self._parts_again(topic, part, partition):
                    await self._producer.send(to, records)
        at = min(covered.values())
        last = next(found[topic] for topic, next_ in covered.items() if next_ == at)
        is_anew = max(covered.values()) > end
        if last is not None and not is_anew:
            before = await mark_before(self._reader, self._group.topic, partition, at, begin)
            is_anew = before is not None and before.run > last.mark.run
        if at < begin or is_anew:
            what = "lost rows" if at < begin else "was made anew"
            raise Halt(
                "flow.source",
                f"{self._group.topic!r} [{partition}] {what}: it has {begin} to {end},"
                f" and {at} is next",
                "delete the workflow's topics and feed it anew",
            )
        state, reached = (last.state, last.mark.reached) if last else (b"", (0, 0))
        seen: Repeats | Fronts = Repeats(reached)
        if self._group.is_keyed:
            fronts, state = _states.decode(state) if state else (b"", b"")
            seen = Fronts(self._group.partitions, fronts)
        return _Standing(covered, generation, seen, state)

    async def _take(self, event: SliceEvent) -> None:
        range_ = event.value.range
        held = self._partitions.get(range_.partition)
        if held is None or held.generation != event.message.generation_id:
            return  # another's by now; not acknowledged, so that it gets it
        slice_ = event.value.since(max(held.next, range_.first))
        borders = set(held.covered.values())
        todo = list(units(slice_, borders, apart=self._group.is_ordered))
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
        for topic, (record, others, has_times) in made.items():
            if unit.next <= held.covered[topic]:
                continue
            for to, records in ((topic, [record]), *others):
                async with self._turn:  # who looks for the last record waits for this one
                    sent = await persist(
                        "publish",
                        partial(self._producer.send, to, records),
                        self._metrics,
                        lambda: self._is_current(held),
                    )
                if sent is None:
                    return True
            held.covered[topic] = unit.next
            if has_times:
                held.quiet.pop(topic, None)
                held.idle.discard(topic)
        return True

    async def note_idle(self) -> None:
        """Tell the windows behind of what was quiet since this was last called.

        That is a topic that got no rows with a time, though all that its source had then is done.
        """
        for partition, held in list(self._partitions.items()):
            _, end = await self._reader.bounds(self._group.topic, partition)
            for topic, keyed in self._group.by_key.items():
                if not self._is_current(held) or topic in held.idle:
                    continue
                if topic not in held.quiet:
                    held.quiet[topic] = end
                elif held.covered[topic] >= held.quiet[topic]:
                    records = idle_parts(held.covered[topic], partition, self._group.partitions)
                    for each in keyed:
                        await self._producer.send(each.name, records)
                    if topic in held.quiet:  # and no rows came meanwhile
                        held.idle.add(topic)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(IDLE_S)
            await persist("idle", self.note_idle, self._metrics)

    def _made(self, unit: Unit, held: _Standing, partition: int) -> dict[str, _Made] | None:
        """The unit's record for each topic; None when one would be too large and may be smaller.

        When it raises, or returns None, the group stands where it stood.
        """
        if self._loaded is not held:
            self._chain.restore(held.state)
            self._loaded = held
        seen = held.seen.copy()
        try:
            rows, bad, times = rows_of(unit.records, self._schema, seen)
            is_end = seen.end() if isinstance(seen, Fronts) else unit.end
            tables, asides = self._chain.run(
                rows,
                is_end=is_end,
                still_ours=lambda: not self._is_ending and self._is_current(held),
                times=times,
            )
        except BaseException:
            self._chain.restore(held.state)
            raise
        asides = [*(Aside(self._group.source, why, each) for each, why in bad), *asides]
        reached = seen.place if isinstance(seen, Repeats) else (0, 0)
        mark = Mark(unit.first, unit.next, unit.run, is_end, at=self._rank(unit), reached=reached)
        state = self._chain.state()
        kept = _encode((seen.state(), state)) if isinstance(seen, Fronts) else state
        made = {}
        for topic, name in self._group.publishes.items():
            table = tables.get(name, rows)
            record = encode(mark, table, kept, asides, partition)
            keyed = self._group.by_key.get(topic, ())
            has_times = any(latest_us(table, each) is not None for each in keyed)
            made[topic] = _Made(record, self._parts(topic, mark, table, partition), has_times)
        if max(map(_largest, made.values())) <= self._value_bytes_max:
            held.seen, held.state = seen, state
            return made
        self._chain.restore(held.state)
        if len(unit.records) > 1:
            return None
        largest = max(map(_largest, made.values()))
        raise Refuse(
            "flow.too_large",
            f"what {self._group.name!r} makes of offset {unit.first} has {largest:,} bytes;"
            f" a record may have {self._value_bytes_max:,}",
            "feed fewer rows at a time, or leave out columns",
        )

    def _rank(self, unit: Unit) -> int | None:
        mark = mark_of(unit.records[0]) if self._group.is_ordered and unit.records else None
        return mark.rank if mark else None

    def _parts(
        self, topic: str, mark: Mark, rows: pa.Table, partition: int
    ) -> list[tuple[str, list[Outgoing]]]:
        """The rows of a topic's record once more, by key."""
        count = self._group.partitions
        return [
            (keyed.name, parts(mark, rows, partition, keyed, count))
            for keyed in self._group.by_key.get(topic, ())
        ]

    def _parts_again(
        self, topic: str, last: Part, partition: int
    ) -> list[tuple[str, list[Outgoing]]]:
        """Those of a topic's last record, which may be of the workflow as it was before."""
        try:
            return self._parts(topic, last.mark, last.rows, partition)
        except (KeyError, pa.ArrowException) as error:
            raise Halt(
                "flow.schema",
                f"the rows of topic {topic} cannot go to a window by its key: {error}",
                "the workflow has changed: give it another name, or empty its topics",
            ) from None

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, *arguments)


def _largest(made: _Made) -> int:
    """Bytes of the largest record."""
    records = [made.record, *(each for _, found in made.parts for each in found)]
    return max(len(record.value or b"") for record in records)
