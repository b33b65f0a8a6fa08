"""The engine: runs a workflow's graph, each part as soon as what it takes is there.

Every part works in processes of its own and leaves its rows in the cache, under a key of all that
they depend on.  So a part that was done before is not done again, whether the run before ended or
was killed: resuming is running.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import msgspec

from streamapp.core.clock import monotonic_s, now_us
from streamapp.core.errors import StreamappError
from streamapp.workflow.graph.spec import Graph
from streamapp.workflow.run.binding import Binding, bind, failure
from streamapp.workflow.run.budget import Budget
from streamapp.workflow.run.cache import BYTES_MAX, Cache
from streamapp.workflow.run.calling import first_of
from streamapp.workflow.run.context import Context, Failure, Result
from streamapp.workflow.run.events import Observer, RunEnded, RunStarted, nobody
from streamapp.workflow.run.outputs import write_outputs, write_quarantine
from streamapp.workflow.run.parts import disk
from streamapp.workflow.run.pool import Pool
from streamapp.workflow.run.reading import read_input, read_source
from streamapp.workflow.run.record import Record, keep_record, running, write_provenance
from streamapp.workflow.run.report import Problem, Report
from streamapp.workflow.run.sizing import Limits
from streamapp.workflow.run.stage import run_stage
from streamapp.workflow.run.targets import refuse_overwriting
from streamapp.workflow.run.watch import machine_cpus, machine_memory_bytes

#: Of the machine's memory, what a run may take unless it is said.
MEMORY_SHARE = 0.8


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is given beside its graph.

    Args:
        cache: folder of what was worked out before.
        environ: settings for the working processes, as an environment (``to_environment``).
        models: ``module:function`` that gives the Models for a folder; empty: the project's.
        cpus: cores at once; None: all that this process may use.
        memory_mb: of all working processes; None: most of the machine's.
        cache_bytes_max: the cache's parts that were used longest ago go beyond that.
    """

    cache: Path
    environ: dict[str, str] = {}
    models: str = ""
    cpus: float | None = None
    memory_mb: int | None = None
    cache_bytes_max: int = BYTES_MAX

    def limits(self) -> Limits:
        """Those that were given, or the machine's."""
        memory = int(machine_memory_bytes() * MEMORY_SHARE)
        if self.memory_mb is not None:
            memory = self.memory_mb << 20
        return Limits(self.cpus or float(machine_cpus()), memory)


def run(
    graph: Graph,
    *,
    folder_out: Path,
    services: Services,
    params: Mapping[str, Any] | None = None,
    progress: Observer = nobody,
    resumed: Record | None = None,
) -> Report:
    """Run a workflow and write its outputs; see ``run_async``.

    Ctrl-C, and so a KeyboardInterrupt, stops it; what is done is in the cache.
    """

    def work() -> Report:
        return asyncio.run(
            run_async(
                graph,
                folder_out=folder_out,
                services=services,
                params=params,
                progress=progress,
                resumed=resumed,
            )
        )

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(1) as thread:  # a notebook has a loop of its own
        return thread.submit(work).result()


async def run_async(
    graph: Graph,
    *,
    folder_out: Path,
    services: Services,
    params: Mapping[str, Any] | None = None,
    progress: Observer = nobody,
    resumed: Record | None = None,
) -> Report:
    """Run a workflow.

    Args:
        graph: as loaded or built; it is checked and bound here.
        folder_out: of its outputs; made when it is not there.
        services: what it is given.
        params: values over those of the file.
        progress: told of all that happens.
        resumed: the record of a run that ended early: what it read from the network is not read
            again.

    Returns:
        What came of it; a run that fails is a report with ``error``, whose cache stays.

    Raises:
        Refuse: something is wrong with the workflow: nothing was started.
        Retry: an input does not answer while the workflow is bound: nothing was started.
        CancelledError: it was cancelled; the record says so.
    """
    context = _context(graph, folder_out, services, params or {}, progress, resumed)
    return await _Run(context, services, folder_out).run()


def _context(
    graph: Graph,
    folder_out: Path,
    services: Services,
    params: Mapping[str, Any],
    progress: Observer,
    resumed: Record | None,
) -> Context:
    binding = bind(graph, params)
    refuse_overwriting(graph, binding.inputs, folder_out)
    refuse_overwriting(graph, binding.sources, folder_out, "source")
    with disk(folder_out):
        folder_out.mkdir(parents=True, exist_ok=True)
    cache = Cache(services.cache)
    limits = services.limits()
    pool = Pool(
        cache.folder,
        graph.folder.absolute(),
        services.environ,
        services.models,
        limits.memory_bytes,
    )
    record = Record(
        run=resumed.run if resumed else new_run(),
        workflow=graph.name,
        path=str(graph.path.absolute()) if graph.path else "",
        params=dict(params),
        folder_out=str(folder_out.absolute()),
        started_us=now_us(),
        state="running",
        pinned=dict(resumed.pinned) if resumed else {},
    )
    return Context(binding, cache, pool, Budget(limits), limits, progress, record)


def new_run() -> str:
    """An id for a run, by which runs are in order of their start."""
    return f"{now_us() // 1_000:013d}-{secrets.token_hex(3)}"


class _Run:
    """One run."""

    def __init__(self, context: Context, services: Services, folder_out: Path) -> None:
        self._context, self._services, self._out = context, services, folder_out
        self._started_s = monotonic_s()

    async def run(self) -> Report:
        """Run all parts, write the outputs, and tell how it was."""
        with running(self._context.cache, self._context.record.run):
            return await self._run()

    async def _run(self) -> Report:
        context = self._context
        binding = context.binding
        sources = {name: source.schema() for name, source in binding.sources.items()}
        schemas = {**sources, **binding.schemas}
        context.tell(RunStarted(context.record.run, context.graph.name, now_us(), schemas))
        keep_record(context.cache, context.record)
        try:
            report = await self._try()
        except asyncio.CancelledError:
            self._end(self._report("cancelled"))
            raise
        except StreamappError as error:
            report = self._report("failed", error=error)
        finally:
            await context.pool.close()
        self._end(report)
        return report

    async def _try(self) -> Report:
        await self._parts()
        await write_outputs(self._context, self._out)
        quarantine = write_quarantine(self._context, self._out)
        report = msgspec.structs.replace(self._report("done"), quarantine=quarantine)
        write_provenance(self._context, self._out, report)
        self._context.cache.prune(self._services.cache_bytes_max)
        return report

    async def _parts(self) -> None:
        """Start each part as soon as all that it takes is done; the first failure ends the run."""
        jobs = _jobs(self._context)
        sorter = TopologicalSorter(_waits(self._context.binding))
        sorter.prepare()
        working: dict[asyncio.Task[Result], str] = {}
        try:
            while sorter.is_active():
                for node in sorter.get_ready():
                    working[asyncio.create_task(jobs[node]())] = node
                done, _ = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    node = working.pop(task)
                    self._context.results[node] = _result_of(task)
                    sorter.done(node)
        finally:
            for task in working:
                task.cancel()
            if working:
                await asyncio.wait(working)

    def _report(self, state: Any, error: StreamappError | None = None) -> Report:
        context = self._context
        notes = [
            f"the cache of another version is left alone: {context.cache.folder.parent / other}"
            for other in context.cache.others
        ]
        return Report(
            run=context.record.run,
            workflow=context.graph.name,
            version=context.graph.version,
            state=state,
            seconds=monotonic_s() - self._started_s,
            parts=tuple(context.reports),
            outputs=tuple(context.written),
            notes=tuple(notes),
            error=Problem.of(error) if error else None,
        )

    def _end(self, report: Report) -> None:
        context = self._context
        state = report.state
        keep_record(context.cache, msgspec.structs.replace(context.record, state=state))
        context.tell(RunEnded(report, now_us()))


def _result_of(task: "asyncio.Task[Result]") -> Result:
    try:
        return task.result()
    except BaseExceptionGroup as group:
        raise first_of(group) from None
    except Failure as error:
        raise error.error from None


def _waits(binding: Binding) -> dict[str, set[str]]:
    """What each part waits for; parts are named ``source:NAME``, or as in the file."""
    waits: dict[str, set[str]] = {name: set() for name in binding.inputs}
    waits |= {f"source:{name}": set() for name in binding.sources}
    for step in binding.graph.stages:
        sources = {f"source:{name}" for call in binding.calls[step.name] for name in call.sources}
        waits[step.name] = {*binding.graph.takes(step), *sources}
    return waits


def _jobs(context: Context) -> Mapping[str, Callable[[], Any]]:
    """What does each part."""
    jobs: dict[str, Callable[[], Any]] = {}
    for name in context.binding.inputs:
        jobs[name] = partial(read_input, context, name)
    for name in context.binding.sources:
        jobs[f"source:{name}"] = partial(read_source, context, name)
    for step in context.graph.stages:
        jobs[step.name] = partial(run_stage, context, step)
    return jobs


__all__ = ["Services", "failure", "new_run", "run", "run_async"]
