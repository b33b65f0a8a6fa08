"""A workflow on topics: ``streamapp run FILE --stream``, and a group of it as a Faust app.

``faust -A streamapp.flows worker`` runs the group ``flow_group`` of the file ``flow_file``.
"""

import asyncio
import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa

from streamapp import compose
from streamapp.agents.flow.agent import FlowAgent
from streamapp.agents.flow.chain import Chain, works
from streamapp.agents.flow.collect import Collect, Places, in_order, joined
from streamapp.agents.flow.feed import Feed
from streamapp.agents.flow.record import Aside
from streamapp.agents.flow.topology import Topology, check_endless, topology
from streamapp.agents.flow.whole import WholeAgent
from streamapp.agents.outcome import persist
from streamapp.core.config import Settings, to_environment
from streamapp.core.errors import Refuse, Retry, StreamappError
from streamapp.core.files import draft
from streamapp.core.metrics import Metrics
from streamapp.screen.supervisor import Child, Printer, Supervisor
from streamapp.transport import TopicSpec, configure, slice_topic
from streamapp.transport.acks import generation_of
from streamapp.transport.clients import started
from streamapp.workflow.data import open_input, open_output
from streamapp.workflow.data.replacing import Together
from streamapp.workflow.graph.load import load_graph
from streamapp.workflow.run.binding import Binding, bind
from streamapp.workflow.run.outputs import aside_lines, write_lines
from streamapp.workflow.run.parts import disk
from streamapp.workflow.run.report import Written
from streamapp.workflow.run.targets import refuse_overwriting

#: Of every topic of a workflow.
RECORD_BYTES_MAX = 8 << 20
RETENTION_MS = 7 * 86_400_000
#: What one Slice of a group may have; a unit of work is no larger.
_SLICE_BYTES_MAX = 1 << 20
#: For the log to say where a group stands.
_STAND_S_MAX = 10.0
_params = msgspec.json.Decoder(dict[str, Any])


def __getattr__(name: str) -> Any:
    """``app``, for ``faust -A``; made only for who asks for it."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return compose.app_or_exit(flow_app)


def flow_app(settings: Settings) -> Any:
    """One group's Faust app.

    Raises:
        Refuse: the workflow is wrong, or has no such group.
    """
    from streamapp.agents.app import make_app, on_shutdown

    if settings.flow_file is None:
        raise Refuse("flow.file", "flow_file is not set", "streamapp run FILE --stream sets it")
    binding = bind(load_graph(settings.flow_file), _params.decode(settings.flow_params))
    plan = topology(binding, settings.flow_partitions)
    group, metrics = plan.group(settings.flow_group), Metrics()
    name = f"streamapp-flow-{binding.graph.name}-{group.name}"
    app = make_app(
        name,
        settings.broker_url,
        settings.home / "faust" / name,
        web_bind="127.0.0.1",
        web_port=0,
        drain_s=settings.drain_s,
        session_s=settings.session_s,
        security=compose.security(settings),
        wait_empty=False,
    )
    clients = compose.producer(settings), compose.reader(settings)
    others = *clients, metrics, lambda: generation_of(app), RECORD_BYTES_MAX
    agent: FlowAgent | WholeAgent
    if group.is_whole:
        make_work = works(binding, lambda: compose.registry(settings))
        spool = home_of(settings, binding.graph.name) / "whole" / group.name
        agent = WholeAgent(group, binding, make_work, *others, spool)
    else:
        chain = Chain(binding, group.steps, lambda: compose.registry(settings))
        agent = FlowAgent(group, chain, binding.schemas[group.source], *others)
    configure(
        app,
        coalesce={group.topic},
        start_positions=agent.start_positions,
        batch_events_max=settings.batch_events_max,
        batch_bytes_max=_SLICE_BYTES_MAX,
        batch_wait_ms_max=settings.batch_wait_ms_max,
        stall_s_max=settings.stall_s_max,
    )
    needed = [*group.takes.values(), *group.topics]

    async def before_start() -> None:
        await persist("topics", lambda: _check_topics(settings, needed), metrics)

    app.before_start = before_start
    app.agent(slice_topic(app, group.topic), name=group.name, concurrency=1)(agent.run)
    on_shutdown(app, agent.stop)
    return app


async def _check_topics(settings: Settings, needed: list[str]) -> None:
    async with started(compose.admin(settings)) as admin:
        there = await admin.topics()
    if missing := sorted(set(needed) - set(there)):
        raise Refuse(
            "topic.missing",
            f"{settings.broker_url} has no topic {', '.join(missing)}",
            "streamapp run FILE --stream creates them",
        )
    partitions = settings.flow_partitions
    if other := [name for name in needed if there[name].partitions != partitions]:
        raise Refuse(
            "flow.partitions",
            f"topic {other[0]} has {there[other[0]].partitions} partitions, not {partitions}",
            f"set flow_partitions to {there[other[0]].partitions}",
        )


def home_of(settings: Settings, name: str) -> Path:
    """What this machine keeps of a workflow on topics."""
    return settings.home / "flows" / name


@dataclass(frozen=True, slots=True)
class Progress:
    """Told while a workflow runs on topics."""

    fed: Callable[[int], None] = lambda _: None
    collected: Callable[[int], None] = lambda _: None
    printed: Printer | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a fed run read, in rows, and wrote: its outputs, and files of rows set aside."""

    run: int
    inputs: Mapping[str, int]
    outputs: tuple[Written, ...]
    quarantine: tuple[Written, ...]


class Flow:
    """A workflow on topics, as one command runs it.

    Args:
        settings: of this process; those of the groups are the same.
        path: of the workflow's file.
        params: of this run.
        partitions: of each topic.
        is_fed: its inputs will be fed, so that their rows have an end.

    Raises:
        Refuse: the workflow is wrong, or cannot run on topics, or not without an end.
        Retry: an input or a source does not answer now.
    """

    def __init__(
        self,
        settings: Settings,
        path: Path,
        params: Mapping[str, Any],
        partitions: int = 1,
        *,
        is_fed: bool = True,
    ) -> None:
        self.binding: Binding = bind(load_graph(path), params)
        self.topology: Topology = topology(self.binding, partitions)
        if not is_fed:
            check_endless(self.binding)
        self._settings, self._path = settings, path.absolute()
        self._params, self._partitions = dict(params), partitions
        self._home = home_of(settings, self.binding.graph.name)

    async def make_topics(self) -> list[str]:
        """Create the topics that are missing; their names.

        Raises:
            Refuse: one has another number of partitions.
            Retry: the log does not answer.
        """
        made = []
        async with started(compose.admin(self._settings)) as admin:
            for name in self.topology.topics:
                spec = TopicSpec(name, self._partitions, RECORD_BYTES_MAX, RETENTION_MS)
                if await admin.create(spec):
                    made.append(name)
        return made

    def supervisor(self, printer: Printer | None = None) -> Supervisor:
        """A process for each group, not started."""
        own = {
            "flow_file": str(self._path),
            "flow_params": msgspec.json.encode(self._params).decode(),
            "flow_partitions": str(self._partitions),
        }
        env = {**os.environ, **to_environment(self._settings)}  # noqa: TID251  # children inherit
        env |= {f"STREAMAPP_{name.upper()}": value for name, value in own.items()}
        argv = (sys.executable, "-P", "-m", "faust", "-A", "streamapp.flows", "--quiet", "worker")
        level = self._settings.log_level
        options = ("--loglevel", "warn" if level == "warning" else level, "--without-web")
        children = [
            Child(group.name, (*argv, *options), {**env, "STREAMAPP_FLOW_GROUP": group.name})
            for group in self.topology.groups
        ]
        logs = self._home / "logs"
        drain_s = self._settings.drain_s
        return Supervisor(children, logs, drain_s=drain_s, printer=printer, stand=self._stand)

    async def _stand(self, name: str) -> object:
        """Where the topics of a group end; never the same while nobody can say."""
        found = []
        try:
            async with asyncio.timeout(_STAND_S_MAX), started(compose.reader(self._settings)) as at:
                for topic in self.topology.group(name).publishes:
                    found += [await at.bounds(topic, each) for each in range(self._partitions)]
        except (Retry, TimeoutError):  # the log is away, which is no fault of the group's
            return object()
        except StreamappError as error:
            return error.code
        return [end for _, end in found]

    def alone(self) -> IO[str]:
        """The lock of the one process that feeds and collects; close it to let it go.

        Raises:
            Refuse: ``flow.busy``: another process has it.
        """
        with disk(self._home):
            self._home.mkdir(parents=True, exist_ok=True)
            file = (self._home / "lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise Refuse(
                "flow.busy",
                f"another process feeds the workflow {self.binding.graph.name!r}",
                "wait until it has ended",
            ) from None
        return file

    async def run_through(self, folder_out: Path, progress: Progress) -> Result:
        """Feed the inputs, wait for what comes of them, and write the outputs.

        The groups run elsewhere, and ``alone`` is held.  Stopped and called again, it goes on where
        it stood.

        Raises:
            Refuse: ``flow.inputs``, or what reading and writing raise.
            Retry: an input died; call it again.
        """
        settings, metrics = self._settings, Metrics()
        self._check_out(folder_out)
        async with AsyncExitStack() as stack:
            producer = await stack.enter_async_context(started(compose.producer(settings)))
            reader = await stack.enter_async_context(started(compose.reader(settings)))
            bad: list[Aside] = []
            inputs = self._inputs(bad)
            feed = Feed(
                inputs, self._partitions, producer, reader, metrics, RECORD_BYTES_MAX, progress.fed
            )
            done, begin = self._done()
            run = await feed.begin(done)
            collect = Collect(reader, self._partitions, run, begin, metrics, progress.collected)
            spool = self._home / "spool"
            shutil.rmtree(spool, ignore_errors=True)  # of one that was killed
            spool.mkdir()
            stack.callback(shutil.rmtree, spool)
            async with asyncio.TaskGroup() as tasks:
                feeding = tasks.create_task(feed.run(run))
                gathering = tasks.create_task(self._gather(collect, spool))
            outputs, quarantine = await asyncio.to_thread(
                self._write, spool, [*bad, *gathering.result()], folder_out
            )
            self._note(run, collect.ended)
            fed = feeding.result()
            rows = {name: fed[topic] for name, topic in self.topology.inputs.items()}
            return Result(run, rows, outputs, quarantine)

    def _check_out(self, folder_out: Path) -> None:
        """Make the folder; refuse outputs that would replace what is read."""
        binding = self.binding
        refuse_overwriting(binding.graph, binding.inputs, folder_out)
        refuse_overwriting(binding.graph, binding.sources, folder_out, "source")
        with disk(folder_out):
            folder_out.mkdir(parents=True, exist_ok=True)

    def _inputs(self, bad: list[Aside]) -> dict[str, Any]:
        """Inputs by topic; rows that cannot be read go to ``bad``."""
        graph, found = self.binding.graph, {}
        for name, topic in self.topology.inputs.items():

            def on_bad(row: Any, name: str = name) -> None:
                columns = {"file": row.origin, "line": row.line, "text": row.text}
                table = pa.table({key: pa.array([value]) for key, value in columns.items()})
                bad.append(Aside(name, row.reason, table))

            found[topic] = open_input(graph.inputs[name], graph.folder, name=name, on_bad=on_bad)
        return found

    async def _gather(self, collect: Collect, spool: Path) -> list[Aside]:
        """The rows of every topic that groups publish, and what they set aside, each once."""
        asides: list[Aside] = []
        schemas = self.binding.schemas
        for group in self.topology.groups:
            for count, (topic, step) in enumerate(group.publishes.items()):
                found = await collect.rows(topic, schemas[step], spool / f"{topic}.arrow")
                asides += found if not count else []  # they are in the record of each topic
        for name, topic in self.topology.inputs.items():
            if topic in self.topology.outputs.values():
                await collect.rows(topic, schemas[name], spool / f"{topic}.arrow")
        return asides

    def _write(
        self, spool: Path, asides: list[Aside], folder_out: Path
    ) -> tuple[tuple[Written, ...], tuple[Written, ...]]:
        graph, written, together = self.binding.graph, [], Together()
        for name, topic in self.topology.outputs.items():
            output = graph.outputs[name]
            writer = open_output(output, folder_out, name=name, home=graph.folder)
            with together.held():
                rows = writer.write(in_order(spool / f"{topic}.arrow").to_reader())
            where = output.path or output.url or f"{name}.{output.format}"
            shown = where if output.url else str(folder_out / where)
            written.append(Written(name, shown, rows))
        together.take_places()
        parts = (*graph.inputs, *(step.name for step in graph.stages))
        return tuple(written), _write_quarantine(asides, parts, folder_out)

    def _done(self) -> tuple[int, Places]:
        """The last run whose results were written, and where it ended on each topic."""
        path = self._home / "done.json"
        if not path.is_file():
            return 0, {}
        try:
            return msgspec.json.decode(path.read_bytes(), type=tuple[int, Places])
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            what = "remove it; the last run is then written once more"
            raise Refuse("flow.done", f"{path}: {error}", what) from None

    def _note(self, run: int, ended: Places) -> None:
        path = self._home / "done.json"
        with disk(path), draft(self._home, msgspec.json.encode((run, ended))) as part:
            part.replace(path)


def _write_quarantine(
    asides: list[Aside], parts: Sequence[str], folder_out: Path
) -> tuple[Written, ...]:
    """A file of JSON lines for each stage and input: a reason, then the row.

    Those of an earlier run, of parts that now set none aside, are removed.
    """
    by_part: dict[str, list[bytes]] = {}
    for (part, reason), rows in joined(asides).items():
        by_part.setdefault(part, []).extend(aside_lines(reason, rows))
    written = []
    for part, lines in by_part.items():
        path = folder_out / "quarantine" / f"{part}.jsonl"
        path.parent.mkdir(exist_ok=True)
        write_lines(path, lines)
        written.append(Written(part, str(path), len(lines)))
    for part in set(parts) - by_part.keys():
        path = folder_out / "quarantine" / f"{part}.jsonl"
        with disk(path):
            path.unlink(missing_ok=True)
    return tuple(written)
