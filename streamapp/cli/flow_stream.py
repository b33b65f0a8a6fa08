"""``streamapp run FILE --stream``: a workflow on topics, a process for each group."""

import asyncio
from collections.abc import Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from streamapp.cli.output import Lines, print_json
from streamapp.cli.stopping import stop_by_signal
from streamapp.core.clock import monotonic_s, now_us
from streamapp.core.config import Settings
from streamapp.core.counted import counted
from streamapp.core.errors import Halt, Refuse, StreamappError

if TYPE_CHECKING:
    from streamapp.flows import Flow, Result
    from streamapp.screen.supervisor import Supervisor
    from streamapp.workflow.run.events import Observer

_TOLD_EVERY_S = 1.0
_INTERRUPTED = 130
_FIX = "mend that and start again"


def run_stream(
    settings: Settings,
    path: Path,
    params: Mapping[str, Any],
    folder_out: Path,
    *,
    feed: bool,
    as_json: bool,
    partitions: int = 1,
    lineage: str | None = None,
    lineage_token: str = "",
) -> int:
    """Run a workflow's groups until a signal, or until its inputs are through.

    Args:
        settings: of all its processes.
        path: of its file.
        params: of this run.
        folder_out: of its outputs, when it is fed.
        feed: send the inputs' rows to their topics, write the outputs and end.
        as_json: print what came of it as JSON.
        partitions: of each topic.
        lineage: where events of lineage go, when it is fed.
        lineage_token: that a server wants for them.

    Returns:
        The exit code.
    """
    from streamapp.flows import Flow

    flow = Flow(settings, path, params, partitions, is_fed=feed)
    stream = _Stream(flow, folder_out, feed=feed, as_json=as_json)
    if lineage is None:
        return asyncio.run(stream.run())
    from streamapp.workflow.run.lineage import Lineage

    told = Lineage(flow.binding.graph, lineage, Path.cwd(), token=lineage_token)
    with closing(told):
        return _observed(stream, flow, told)


def _observed(stream: "_Stream", flow: "Flow", tell: "Observer") -> int:
    """The exit code of a run that is told when it begins and when it ends."""
    from streamapp.workflow.run.engine import new_run
    from streamapp.workflow.run.events import RunEnded, RunStarted
    from streamapp.workflow.run.report import Problem, Report, StageReport

    run, graph, began_s = new_run(), flow.binding.graph, monotonic_s()
    error = None
    tell(RunStarted(run, graph.name, now_us(), flow.binding.schemas))
    try:
        return asyncio.run(stream.run())
    except StreamappError as failed:
        error = Problem.of(failed)
        raise
    finally:
        done = stream.result
        report = Report(
            run, graph.name, graph.version,
            "failed" if error else "done" if done else "cancelled",
            monotonic_s() - began_s,
            tuple(
                StageReport(name, "input", "ran", rows_out=rows)
                for name, rows in (done.inputs.items() if done else ())
            ),
            done.outputs if done else (),
            error=error,
        )  # fmt: skip
        tell(RunEnded(report, now_us()))


class _Stream:
    def __init__(self, flow: "Flow", folder_out: Path, *, feed: bool, as_json: bool) -> None:
        self._flow, self._out = flow, folder_out
        self._feed, self._as_json = feed, as_json
        self._stop, self._last_words = asyncio.Event(), dict[tuple[str, str], str]()
        self._lines = Lines(12, self._stop.set, err=True)
        #: What came of it, once it has ended.
        self.result: Result | None = None
        self._fed = self._collected = 0
        self._told_s = self._began_s = monotonic_s()

    async def run(self) -> int:
        """The exit code.

        Raises:
            Refuse: ``flow.busy``: it is fed already; nothing was started.
        """
        with self._flow.alone() if self._feed else nullcontext():
            return await self._run()

    async def _run(self) -> int:
        stop_by_signal(self._stop.set)
        for name in await self._flow.make_topics():
            self._say("topic", f"{name} made")
        groups = self._flow.supervisor(None if self._as_json else self._say)
        await groups.start()
        try:
            if self._feed:
                self.result = await self._run_through(groups)
            else:
                self._invite()
                while not self._stop.is_set():
                    _end_if_one_ended(groups)
                    await _pause(self._stop)
        finally:
            clean = await groups.stop()
        if self.result is not None:
            self._show(self.result)
            return 0
        return _INTERRUPTED if self._feed else int(not clean)

    async def _run_through(self, groups: "Supervisor") -> "Result | None":
        """What was written; None when a signal came first."""
        from streamapp.flows import Progress

        progress = Progress(self._count_fed, self._count_collected)
        work = asyncio.create_task(self._flow.run_through(self._out, progress))
        try:
            while not work.done():
                _end_if_one_ended(groups)
                if self._stop.is_set():
                    self._say("run", "stopped; the same command goes on where it stood")
                    return None
                await asyncio.wait([work], timeout=_TOLD_EVERY_S / 4)
            return _plain(work)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    def _invite(self) -> None:
        """How rows get in and out."""
        plan = self._flow.topology
        for what, topics in (("in", plan.inputs), ("out", plan.outputs)):
            for name, topic in topics.items():
                self._say(what, f"{name}: topic {topic}")

    def _count_fed(self, rows: int) -> None:
        self._fed += rows
        self._tell()

    def _count_collected(self, rows: int) -> None:
        self._collected += rows
        self._tell()

    def _tell(self) -> None:
        now_s = monotonic_s()
        if now_s - self._told_s >= _TOLD_EVERY_S:
            self._told_s = now_s
            rate = self._collected / (now_s - self._began_s)
            self._say(
                "run", f"{counted(self._fed, 'row')} in, {self._collected:,} out ({rate:,.0f}/s)"
            )

    def _say(self, name: str, line: str) -> None:
        word, is_word, _ = line.partition(": ")
        if is_word and word in {"error", "fix"}:  # of a group, which may end by it again and again
            if self._last_words.get((name, word)) == line:
                return
            self._last_words[name, word] = line
        if not self._as_json:
            self._lines(name, line)

    def _show(self, result: "Result") -> None:
        if self._as_json:
            print_json(msgspec.to_builtins(result))
            return
        for written in result.outputs:
            click.echo(f"{written.name}: {counted(written.rows, 'row')} in {written.path}")
        for aside in result.quarantine:
            click.echo(f"{aside.name}: {counted(aside.rows, 'row')} set aside in {aside.path}")


def _end_if_one_ended(groups: "Supervisor") -> None:
    """Raise when a group is not started again: a Refuse where it refuses, else a Halt."""
    from streamapp.screen.supervisor import FAULTS_MAX, ending

    child = groups.refused()
    if child is None:
        return
    if child.exit_code == Refuse.exit_code:
        what = f"will not start: {child.error or 'it did not say why'}"
        raise Refuse("flow.refused", f"group {child.name!r} {what}", child.fix or _FIX)
    assert child.exit_code is not None  # noqa: S101  # it has ended
    why = child.error or f"{ending(child.exit_code)}, see {groups.log(child)}"
    what = f"ended {FAULTS_MAX} times and got no further: {why}"
    raise Halt("flow.halted", f"group {child.name!r} {what}", child.fix or _FIX)


def _plain(work: "asyncio.Task[Result]") -> "Result":
    """The result; of several tasks' errors the first."""
    try:
        return work.result()
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


async def _pause(stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_TOLD_EVERY_S):
            await stop.wait()
    except TimeoutError:
        return
