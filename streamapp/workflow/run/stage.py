"""One stage: left out, taken from the cache, or tried until it is done or has failed for good."""

import asyncio
from collections.abc import Mapping

from streamapp.core.clock import monotonic_s, now_us
from streamapp.core.errors import Retry, StreamappError
from streamapp.workflow.graph.check import place
from streamapp.workflow.graph.expressions import holds
from streamapp.workflow.graph.spec import Step
from streamapp.workflow.run.binding import Bound, failure
from streamapp.workflow.run.cache import Entry
from streamapp.workflow.run.calling import CROWDED, Calls, Spent, joined
from streamapp.workflow.run.context import Context, Failure, Result
from streamapp.workflow.run.events import Advance, PartStarted, Waiting
from streamapp.workflow.run.keys import Key, key_of, same_models, why_again, why_models
from streamapp.workflow.run.messages import Part
from streamapp.workflow.run.parts import write_part
from streamapp.workflow.run.report import Problem, StageReport
from streamapp.workflow.run.retry import TIMEOUT, delay_s, is_tried_again
from streamapp.workflow.run.sizing import Measured, Size, remember, size, stage_name


async def run_stage(context: Context, step: Step) -> Result:
    """The rows of a stage.

    Raises:
        Failure: it failed, and its failure ends the run.
    """
    return await _Stage(context, step).run()


class _Stage:
    def __init__(self, context: Context, step: Step) -> None:
        self._context, self._step = context, step
        self._started_s = monotonic_s()
        self._spent = Spent()
        self._attempt = self._workers = 0
        self._models_why = ""
        self._calls = context.binding.calls[step.name]
        self._operation = self._calls[0].operation
        self._label = f"{self._operation}@{self._calls[0].kind.version}"
        self._given = {name: context.results[name] for name in context.graph.takes(step)}

    async def run(self) -> Result:
        context, step = self._context, self._step
        missing = [name for name, result in self._given.items() if result.entry is None]
        if missing:
            self._tell("skipped", f"{', '.join(missing)} gave nothing")
            return Result(None)
        try:
            self._calls = tuple(call for call in self._calls if self._holds(call))
            if not self._calls:
                result = self._nothing()
                self._tell("left out", f"when {step.when} does not hold", result)
                return result
            return await self._result()
        except StreamappError as error:
            index = context.graph.stages.index(step)
            said = failure(error, f"stage {step.name!r}")
            told = place(context.graph, said, "stages", index)
            final = type(error)(error.code, told.message, error.fix)
            final.__notes__ = getattr(error, "__notes__", [])
            self._tell("failed", "", error=Problem.of(final))
            if step.on_failure == "fail":
                raise Failure(final) from None
            return self._nothing() if step.on_failure == "continue" else Result(None)

    async def _result(self) -> Result:
        """From the cache, as far as it is there; the rest is worked out."""
        keys = [self._key(call) for call in self._calls]
        found = [self._find(key) for key in keys]
        left = {index: self._calls[index] for index, entry in enumerate(found) if entry is None}
        if not left:
            result = Result.of(joined([entry for entry in found if entry]))
            self._tell("cached", "nothing that it depends on changed", result)
            return result
        why = self._why(keys[next(iter(left))])
        made = await self._work(left, {i: keys[i].digest for i in left}, why)
        for index, entry in made.items():
            self._context.cache.keep(keys[index].digest, entry)
        entries = [made[index] if entry is None else entry for index, entry in enumerate(found)]
        result = Result.of(joined(entries))
        self._context.cache.save("last", self._name(), keys[0])
        self._tell("ran", why, result)
        return result

    def _find(self, key: Key) -> Entry | None:
        """A result that is there, if it would get the same models now."""
        entry = self._context.cache.find(key.digest)
        if entry is None or not entry.models:
            return entry
        now = self._context.models_now(entry.models)
        if same_models(entry.models, now):
            return entry
        self._models_why = why_models(entry.models, now)
        return None

    async def _work(
        self, left: Mapping[int, Bound], keys: Mapping[int, str], why: str
    ) -> dict[int, Entry]:
        context, step = self._context, self._step
        inputs = {name: _parts(result) for name, result in self._given.items()}
        given = self._size(left, inputs)
        self._workers = given.workers
        first = next(iter(inputs.values()), ())
        rows = sum(part.rows for part in first) * len(left)
        calls = Calls(
            step.name, left, keys, inputs, self._sources(left),
            context.binding.schemas[step.name], given, f"{context.record.run}/{step.name}",
            lambda rows: context.tell(Advance("stage", step.name, rows)),
            self._calls[0].scope == "row", self._spent, context.budget,
        )  # fmt: skip
        memory_bytes = given.memory_bytes
        while True:
            try:
                async with context.budget.admitted(given.cpu, memory_bytes, calls.token):
                    if not self._attempt:
                        self._attempt = 1
                        workers = given.workers
                        context.tell(PartStarted("stage", step.name, rows, workers, why, now_us()))
                    entries = await self._try(calls)
            except StreamappError as error:
                wait_s = self._wait_s(error)
                if wait_s is None:
                    raise
                if error.code == CROWDED:  # it waits until as much is free as it held
                    memory_bytes = min(self._spent.memory_bytes, given.memory_bytes_max)
                context.tell(Waiting(step.name, self._attempt, wait_s, error.message))
                self._attempt += error.code != CROWDED
                await asyncio.sleep(wait_s)
            else:
                self._remember(given)
                return entries

    def _wait_s(self, error: StreamappError) -> float | None:
        """Seconds until a stage that failed is tried again; None: it is not."""
        policy = self._step.retry
        if error.code == CROWDED:
            return 0.0
        if policy is None or not is_tried_again(policy, error, self._attempt):
            return None
        return delay_s(policy, self._attempt)

    async def _try(self, calls: Calls) -> dict[int, Entry]:
        timeout_s = self._step.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await calls.make(self._context.pool, self._context.cache)
        except TimeoutError:
            why = f"it was not done within {timeout_s:g} s"
            fix = "raise timeout_s, or give it less or more workers"
            raise Retry(TIMEOUT, why, fix) from None

    def _size(self, left: Mapping[int, Bound], inputs: Mapping[str, tuple[Part, ...]]) -> Size:
        call = self._calls[0]
        context = self._context
        first = next(iter(inputs.values()), ())
        size_ = size(
            call.scope,
            call.parallel,
            self._step.resources,
            context.limits,
            sum(part.rows for part in first),
            sum(part.bytes for parts in inputs.values() for part in parts),
            context.cache.load("measured", self._name(), Measured),
        )
        if len(left) == 1 or size_.workers > 1:
            return size_
        # The calls of a foreach go beside each other.
        fits = max(1, size_.memory_bytes_max // size_.memory_bytes)
        workers = min(len(left), max(1, int(size_.cpu)), fits)
        threads = max(1, size_.threads // workers)
        memory = min(workers * size_.memory_bytes, size_.memory_bytes_max)
        return size_._replace(workers=workers, threads=threads, memory_bytes=memory)

    def _remember(self, given: Size) -> None:
        spent = self._spent
        remember(
            self._context.cache, self._name(), rows=spent.rows, seconds=spent.seconds,
            cpu_s=spent.cpu_s, workers=given.workers, processes=spent.processes,
            bytes_=spent.memory_bytes,
        )  # fmt: skip

    def _sources(self, left: Mapping[int, Bound]) -> dict[str, tuple[Part, ...]]:
        names = {name for call in left.values() for name in call.sources}
        return {name: _parts(self._context.results[f"source:{name}"]) for name in names}

    def _key(self, call: Bound) -> Key:
        results = self._context.results
        return key_of(
            call,
            {name: result.content for name, result in self._given.items()},
            {name: results[f"source:{name}"].content for name in call.sources},
        )

    def _why(self, key: Key) -> str:
        last = self._context.cache.load("last", self._name(), Key)
        return self._models_why or why_again(last, key)

    def _name(self) -> str:
        return stage_name(self._context.graph.name, self._step.name, self._operation)

    def _holds(self, call: Bound) -> bool:
        """Whether a call is to be made, by the stage's ``when``."""
        if self._step.when is None:
            return True
        rows = {name: result.entry.rows for name, result in self._given.items() if result.entry}
        values = {"params": self._context.binding.params, "rows": rows, **call.variables}
        return holds(self._step.when, values)

    def _nothing(self) -> Result:
        """No rows, of the stage's columns."""
        schema = self._context.binding.schemas[self._step.name]
        return Result.of(Entry((write_part(self._context.cache.folder, schema, ()),)))

    def _tell(
        self, state: str, why: str, result: Result | None = None, error: Problem | None = None
    ) -> None:
        entry = result.entry if result else None
        spent = self._spent
        given = {n: r for n, r in self._given.items() if r.entry}
        report = StageReport(
            self._step.name, "stage", state, self._label, why,  # type: ignore[arg-type]
            rows_in=sum(r.entry.rows for r in given.values() if r.entry),
            rows_out=entry.rows if entry else 0,
            rejected=entry.rejected if entry else 0,
            seconds=monotonic_s() - self._started_s,
            cpu_s=spent.cpu_s,
            memory_mb=spent.memory_bytes / (1 << 20),
            workers=self._workers,
            calls=spent.calls,
            attempts=self._attempt,
            inputs={name: r.content for name, r in given.items()},
            result=result.content if result else "",
            models=entry.models if entry else {},
            steps=entry.told if entry else [],
            error=error,
        )  # fmt: skip
        self._context.ended("stage", report)


def _parts(result: Result) -> tuple[Part, ...]:
    return result.entry.parts if result.entry else ()
