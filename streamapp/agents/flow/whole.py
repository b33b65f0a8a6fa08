"""The agent of a group whose one stage takes all rows of a run at once, of one input or several.

Who holds partition 0 of its first source works; the others only say that they saw theirs.  When a
run ends there, all its rows are read, of all partitions and sources, in the order in which they
were fed; what the operation makes of them is sent in pieces that are always the same, as inputs are
fed.  So a process that was killed at any moment is followed by one that sends the same, and what is
there already is left out.  Every record says where in its sources the run began and ended.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from streamapp.agents.flow.collect import Collect, Passed, Places, in_order, mark_before
from streamapp.agents.flow.record import Aside, mark_of
from streamapp.agents.flow.sending import Piece, Sending, Wrong, chunks
from streamapp.agents.flow.spool import own_folder
from streamapp.agents.flow.stage import Stage
from streamapp.agents.flow.topology import Group
from streamapp.agents.outcome import guarded, persist
from streamapp.agents.typed import SliceEvent, slice_events
from streamapp.core.errors import Halt, Refuse
from streamapp.core.metrics import Metrics
from streamapp.plugin import Cancelled
from streamapp.plugin.calling import CallWork
from streamapp.transport.clients import Producer, Reader
from streamapp.workflow.run.binding import Binding
from streamapp.workflow.run.parts import disk

_LOOK_EVERY_S = 0.5
_places = msgspec.msgpack.Decoder(tuple[Places, Places])


class _Standing(NamedTuple):
    """The last run that is on all topics of the group, and where in its sources the next begins.

    ``first`` has the offsets at which the partitions of the first source begin.
    """

    generation: int
    run: int
    begin: Places
    first: list[int]


class _Made(NamedTuple):
    rows: pa.Table
    asides: tuple[Aside, ...]


class WholeAgent:
    """The agent's body.

    Args:
        group: of the one stage.
        binding: of the whole workflow.
        make_work: what a call of the operation is given.
        producer: started by the agent, as ``reader``.
        reader: reads the sources, and where the group's topics stand.
        metrics: of this process.
        generation: the consumer group's current generation.
        record_bytes_max: of the group's topics.
        spool: where each process has a folder for a run's rows.
    """

    def __init__(
        self,
        group: Group,
        binding: Binding,
        make_work: Callable[[], CallWork],
        producer: Producer,
        reader: Reader,
        metrics: Metrics,
        generation: Callable[[], int],
        record_bytes_max: int,
        spool: Path,
    ) -> None:
        self._group, self._binding, self._make_work = group, binding, make_work
        self._producer, self._reader, self._metrics = producer, reader, metrics
        self._generation, self._spool = generation, spool
        self._record_bytes_max = record_bytes_max
        (self._step,) = group.steps
        self._standing: _Standing | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="streamapp-flow")
        self._opening, self._turn = asyncio.Lock(), asyncio.Lock()
        self._is_open = self._is_ending = False
        self.ready = False

    async def run(self, stream: Any) -> None:
        """The agent's body."""
        async for event in slice_events(stream):
            async with self._turn:
                await guarded(self._take(event))

    async def start_positions(self, tps: Iterable[tuple[str, int]]) -> Mapping[Any, int]:
        """Where to read each partition of the first source from."""
        return await guarded(self._start_positions(list(tps)))

    async def stop(self) -> None:
        """Wait until the work under way was left, or the operation has ended."""
        self._is_ending = True
        async with self._turn:
            await asyncio.get_running_loop().run_in_executor(self._thread, lambda: None)
        self._thread.shutdown(wait=False)
        await self._producer.stop()
        await self._reader.stop()

    async def _start_positions(self, tps: list[tuple[str, int]]) -> Mapping[Any, int]:
        async with self._opening:
            if not self._is_open:
                for client in (self._producer, self._reader):
                    await persist("connect", client.start, self._metrics)
                self._is_open = True
            generation = self._generation()
            if self._standing is None or self._standing.generation != generation:
                stand = partial(self._stand, generation)
                self._standing = await persist("recovery", stand, self._metrics)
            assert self._standing is not None  # noqa: S101  # persist without still_ours returns
            begin, first = self._standing.begin, self._standing.first
        self.ready = True
        return {(name, each): max(begin[name][each], first[each]) for name, each in tps}

    async def _stand(self, generation: int) -> _Standing:
        """What the group's topics say; the one that is behind the others counts."""
        fed = [await self._sending(topic).fed() for topic in self._group.publishes]
        last = min(fed, key=lambda each: (each.run, each.is_done))
        places: Places = {}
        run = last.run if last.is_done else last.run - 1
        if last.run:
            began, ended = _placed(last.state, self._step)
            places = ended if last.is_done else began
        for topic in self._group.takes.values():
            bounds = [await self._reader.bounds(topic, each) for each in self._partitions]
            at = places.setdefault(topic, [first for first, _ in bounds])
            for partition, (place, (first, end)) in enumerate(zip(at, bounds, strict=True)):
                mark = None
                if place <= end:
                    mark = await mark_before(self._reader, topic, partition, place, first)
                if place > end or (mark is not None and mark.run > run):
                    raise Halt(
                        "flow.source",
                        f"{topic!r} [{partition}] was made anew: it has {first} to {end}, and"
                        f" {place} is next",
                        "delete the workflow's topics and feed it anew",
                    )
        begins = [
            (await self._reader.bounds(self._group.topic, each))[0] for each in self._partitions
        ]
        return _Standing(generation, run, places, begins)

    @property
    def _partitions(self) -> range:
        return range(self._group.partitions)

    def _sending(self, topic: str, still_ours: Callable[[], bool] = lambda: True) -> Sending:
        return Sending(
            topic, self._group.partitions, self._producer, self._reader, self._metrics,
            self._record_bytes_max, still_ours=still_ours,
        )  # fmt: skip

    async def _take(self, event: SliceEvent) -> None:
        """A Slice of the first source; rows are looked at when their run has ended there."""
        generation = event.message.generation_id

        def still_ours() -> bool:
            return not self._is_ending and generation == self._generation()

        for record in event.value.records if event.value.range.partition == 0 else ():
            mark, at = mark_of(record), self._standing
            if at is None or at.generation != generation or not still_ours():
                return  # another's by now; not acknowledged, so that it gets it
            if mark is None or not mark.end or mark.run <= at.run:
                continue
            try:
                ended = await self._work(mark.run, at.begin, still_ours)
            except Passed:  # a run of the workflow as it was before
                continue
            except Cancelled:
                return
            if self._standing is at:  # else it is another's by now, or ours anew
                self._standing = at._replace(run=mark.run, begin=ended)
        event.ack()

    async def _work(self, run: int, begin: Places, still_ours: Callable[[], bool]) -> Places:
        """Do all of a run; where it ended in the sources.

        Raises:
            Cancelled: it is another's by now.
            Passed: not all that the stage takes was in that run.
        """
        with own_folder(self._spool) as folder:
            collect = Collect(
                self._reader, self._group.partitions, run, begin, self._metrics,
                still_ours=still_ours,
            )  # fmt: skip
            for node, topic in self._group.takes.items():
                with disk(folder):
                    await collect.rows(topic, self._binding.schemas[node], folder / node)
            given = {node: in_order(folder / node) for node in self._group.takes}
            made = await self._made(given, still_ours)
            state = msgspec.msgpack.encode((begin, collect.ended))
            for topic in self._group.publishes:
                sending = self._sending(topic, still_ours)
                if await sending.has(run):
                    continue
                pieces = _pieces(made, sending.value_bytes_max)
                await sending.send(pieces, made.rows.schema, run, self._wrong(topic), state)
        return collect.ended

    async def _made(self, given: Mapping[str, pa.Table], still_ours: Callable[[], bool]) -> _Made:
        """What the operation makes of all rows, as often tried as its file says."""
        rows = {node: table.num_rows for node, table in given.items()}

        async def attempt() -> _Made:
            stage = Stage(self._binding, self._step, self._make_work, rows)
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(self._thread, _run, stage, given, still_ours)
            try:
                while not (await asyncio.wait([work], timeout=_LOOK_EVERY_S))[0]:
                    if not still_ours():
                        stage.stop()
            finally:
                stage.stop()
            return work.result()

        made = await persist("operation", attempt, self._metrics, still_ours)
        if made is None:
            raise Cancelled
        return made

    def _wrong(self, topic: str) -> Wrong:
        name = self._step
        changed = Halt(
            "flow.repeat",
            f"stage {name!r} was stopped while its rows were sent, and now makes other rows",
            f"delete the topic {topic}, and those of what comes behind it",
        )

        def too_large(first: int, next_: int, size: int, size_max: int) -> Refuse:
            return Refuse(
                "flow.too_large",
                f"stage {name!r}: rows {first + 1} to {next_} of its result have {size:,} bytes;"
                f" a record may have {size_max:,}",
                "leave out columns, or run the workflow without --stream",
            )

        return Wrong(changed, too_large)


def _placed(state: bytes, step: str) -> tuple[Places, Places]:
    """Where a run began and ended, as its last record says."""
    try:
        return _places.decode(state)
    except msgspec.DecodeError:
        raise Halt(
            "flow.schema",
            f"the topic of stage {step!r} has rows that were not made of whole runs",
            "the workflow has changed: give it another name, or empty its topics",
        ) from None


def _run(stage: Stage, given: Mapping[str, pa.Table], still_ours: Callable[[], bool]) -> _Made:
    try:
        stage.open()
        rows = stage.run_whole(given, still_ours)
        return _Made(rows, tuple(stage.asides))
    finally:
        stage.close()


def _pieces(made: _Made, bytes_max: int) -> Iterator[Piece]:
    """The rows, then what was set aside."""
    for chunk in chunks(made.rows.to_batches(), made.rows.schema, bytes_max):
        yield Piece(chunk)
    nothing = made.rows.schema.empty_table()
    for stage, reason, rows in made.asides:
        for chunk in chunks(rows.to_batches(), rows.schema, bytes_max):
            yield Piece(nothing, Aside(stage, reason, chunk))
