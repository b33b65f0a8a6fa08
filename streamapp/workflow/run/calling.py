"""One try of a stage: its calls, cut and spread over processes, with an eye on their memory."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Refuse, Retry
from streamapp.workflow.run.binding import Bound
from streamapp.workflow.run.budget import Budget
from streamapp.workflow.run.cache import Cache, Entry, merged_models
from streamapp.workflow.run.keys import cut_key
from streamapp.workflow.run.messages import Call, Done, Job, Part
from streamapp.workflow.run.pool import Pool, Worker
from streamapp.workflow.run.sizing import Size

SAMPLE_S = 0.1
#: Code of an error: a stage makes room for others, and is done when they have ended.
CROWDED = "workflow.crowded"
Cut = tuple[int, int] | None


class Unit(NamedTuple):
    """One call that is to be made."""

    variant: int
    number: int
    cut: Cut


@dataclass
class Spent:
    """What a stage took, over all of its tries."""

    cpu_s: float = 0.0
    memory_bytes: int = 0
    calls: int = 0
    processes: int = 0
    seconds: float = 0.0
    rows: int = 0


@dataclass
class Calls:
    """The calls of one stage that are to be made.

    Attributes:
        name: of the stage.
        bounds: one for each choice of ``foreach`` that is not in the cache, by its number.
        keys: their keys.
        inputs: parts by name.
        sources: parts of declared sources by name.
        schema: of the stage's result.
        size: what it is given.
        token: of the run and the stage.
        advanced: told of rows that are done.
        done: entries of calls, by unit; what was done stays over several tries.
    """

    name: str
    bounds: Mapping[int, Bound]
    keys: Mapping[int, str]
    inputs: Mapping[str, tuple[Part, ...]]
    sources: Mapping[str, tuple[Part, ...]]
    schema: pa.Schema
    size: Size
    token: str
    advanced: Callable[[int], None]
    is_cut: bool
    spent: Spent
    budget: Budget
    done: dict[Unit, Entry] = field(default_factory=dict)

    async def make(self, pool: Pool, cache: Cache) -> dict[int, Entry]:
        """Make those calls that are still to be made; the result of each bound.

        Raises:
            StreamappError: the first that a call ended in, ``workflow.memory``, or ``CROWDED``.
        """
        units = [
            Unit(variant, number, cut)
            for variant in self.bounds
            for number, cut in enumerate(self.size.cuts)
        ]
        left = deque(unit for unit in units if not self._find(unit, cache))
        if left:
            started = monotonic_s()
            try:
                await self._make_all(left, pool, cache)
            finally:
                self.spent.seconds += monotonic_s() - started
        return {
            variant: joined([self.done[unit] for unit in units if unit.variant == variant])
            for variant in self.bounds
        }

    def _find(self, unit: Unit, cache: Cache) -> bool:
        if unit not in self.done and self.is_cut and unit.cut is not None:
            entry = cache.find(cut_key(self.keys[unit.variant], unit.cut))
            if entry is not None:
                self.done[unit] = entry
                self.advanced(unit.cut[1] - unit.cut[0])
        return unit in self.done

    async def _make_all(self, left: deque[Unit], pool: Pool, cache: Cache) -> None:
        in_threads = self.bounds[left[0].variant].parallel == "threads"
        processes = 1 if in_threads else min(self.size.workers, len(left))
        slots = self.size.workers if in_threads else 1
        workers = [await pool.take(slots) for _ in range(processes)]
        self.spent.processes = max(self.spent.processes, processes)
        before = sum(worker.usage().cpu_s for worker in workers)
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch(workers))
                makers = [
                    group.create_task(self._maker(worker, left, cache))
                    for worker in workers
                    for _ in range(slots)
                ]
                await asyncio.gather(*makers)
                watch.cancel()
        except BaseException as error:
            for worker in workers:
                pool.retire(worker)
            if isinstance(error, BaseExceptionGroup):
                raise first_of(error) from None
            raise
        self.spent.cpu_s += sum(worker.usage().cpu_s for worker in workers) - before
        for worker in workers:
            pool.give_back(worker)

    async def _maker(self, worker: Worker, left: deque[Unit], cache: Cache) -> None:
        """Make one call after the other, as long as there are."""
        while left:
            unit = left.popleft()
            seen = _Seen(self.advanced)
            answer = await worker.do(partial(self._message, unit), seen.more)
            self._note(worker)
            rows = unit.cut[1] - unit.cut[0] if unit.cut else self._rows()
            seen.up_to(rows)
            self.spent.calls += 1
            self.spent.rows += rows
            entry = entry_of(answer)
            self.done[unit] = entry
            if self.is_cut and unit.cut is not None:
                cache.keep(cut_key(self.keys[unit.variant], unit.cut), entry)

    def _message(self, unit: Unit, job: int) -> Job:
        bound = self.bounds[unit.variant]
        return Call(
            job,
            f"{self.token}/{unit.variant}",
            bound.operation,
            bound.config,
            dict(self.inputs),
            {name: self.sources[name] for name in bound.sources},
            unit.cut,
            self.schema.serialize().to_pybytes(),
            bound.variables,
            self.size.threads,
            self.size.memory_bytes_max,
        )

    def _rows(self) -> int:
        return sum(part.rows for parts in self.inputs.values() for part in parts)

    def _note(self, worker: Worker) -> None:
        self.spent.memory_bytes = max(self.spent.memory_bytes, worker.usage().memory_bytes)

    async def _watch(self, workers: list[Worker]) -> None:
        """Look at the memory of all of them, and stop the stage when it is too much.

        Too much with that of other stages is no error: those were thought to take less.
        """
        while True:
            held = sum(worker.usage().memory_bytes for worker in workers)
            self.spent.memory_bytes = max(self.spent.memory_bytes, held)
            if held > self.size.memory_bytes_max:
                limit = self.size.memory_bytes_max >> 20
                raise Refuse(
                    "workflow.memory",
                    f"it holds {held >> 20} MB of memory, and may hold {limit} MB",
                    "raise resources.memory_mb or --memory-mb, or lower resources.chunk_rows",
                )
            if self.budget.is_crowded(self.token, held):
                why = f"it holds {held >> 20} MB of memory, and others hold the rest"
                raise Retry(CROWDED, why, "raise --memory-mb, and they run beside each other")
            await asyncio.sleep(SAMPLE_S)


class _Seen:
    """Rows of one call that were told of, of which there are never more than it has."""

    def __init__(self, advanced: Callable[[int], None]) -> None:
        self._advanced, self._rows = advanced, 0

    def more(self, rows: int) -> None:
        self._rows += rows
        self._advanced(rows)

    def up_to(self, rows: int) -> None:
        if rows > self._rows:
            self.more(rows - self._rows)


def entry_of(answer: Done) -> Entry:
    """The result of one job."""
    parts = (answer.part,) if answer.part else ()
    return Entry(parts, answer.asides, answer.models, answer.told)


def joined(entries: list[Entry]) -> Entry:
    """The result of several calls, in order."""
    models: dict[str, str] = {}
    for entry in entries:
        models = merged_models(models, entry.models)
    asides = [aside for entry in entries for aside in entry.asides]
    parts = [part for entry in entries for part in entry.parts]
    filled = [part for part in parts if part.rows] or parts[:1]
    return Entry(tuple(filled), tuple(asides), models, _added([entry.told for entry in entries]))


def _added(told: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What several calls said of the same steps: numbers are added up."""
    first = next((steps for steps in told if steps), [])
    whole = [dict(step) for step in first]
    for steps in told[told.index(first) + 1 :] if first else ():
        for known, step in zip(whole, steps, strict=False):
            for name, value in step.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    known[name] = known.get(name, 0) + value
    return whole


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group of tasks."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
