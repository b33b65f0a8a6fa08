"""Workflows on a log in memory, and agents of their groups that are killed at chosen moments."""

import asyncio
import json
from types import SimpleNamespace

from streamapp.agents.flow.agent import FlowAgent
from streamapp.agents.flow.chain import Chain, works
from streamapp.agents.flow.collect import Collect, in_order
from streamapp.agents.flow.feed import Feed
from streamapp.agents.flow.topology import topology
from streamapp.agents.flow.whole import WholeAgent
from streamapp.core.metrics import Metrics
from streamapp.testing.log import MemoryLog
from streamapp.transport.clients import TopicSpec
from streamapp.workflow.graph.load import graph_of
from streamapp.workflow.run.binding import bind

RECORD_BYTES_MAX = 1 << 20


def graph(folder, stages, outputs, rows=()):
    """A workflow ``t`` of one input ``rows``, in a folder of its own."""
    lines = [json.dumps(row) for row in rows or [{"n": 1, "text": "a"}]]
    (folder / "rows.jsonl").write_text("\n".join([*lines, ""]))
    return graph_of(
        {
            "name": "t",
            "inputs": {"rows": {"type": "file", "path": "rows.jsonl"}},
            "stages": stages,
            "outputs": outputs,
        },
        folder,
    )


class Killing:
    """A producer of a process that is killed at its ``n``-th append, before or after that."""

    def __init__(self, log, kills):
        self._inner, self._kills = log.producer(), kills

    async def start(self):
        await self._inner.start()

    async def stop(self):
        await self._inner.stop()

    async def send(self, topic, records):
        kill = self._kills.pop(0) if self._kills else "no"
        if kill == "leave":  # killed, and not started again
            raise EOFError
        if kill == "before":
            raise asyncio.CancelledError
        sent = await self._inner.send(topic, records)
        if kill == "after":
            raise asyncio.CancelledError
        return sent


class Bench:
    """A bound workflow on a log in memory."""

    def __init__(self, graph_, partitions=1):
        self.log = MemoryLog()
        self.binding = bind(graph_)
        self.topology = topology(self.binding, partitions)
        self.partitions = partitions
        for topic in self.topology.topics:
            self.log.create(TopicSpec(topic, partitions, RECORD_BYTES_MAX))
        self.runs = 0

    async def feed(self, kills=(), collected=0):
        """Feed all rows, however often the process is killed; the number of the run."""
        kills = list(kills)
        inputs = {topic: self.binding.inputs[name] for name, topic in self.topology.inputs.items()}
        while True:
            producer, reader = Killing(self.log, kills), self.log.reader()
            await producer.start()
            await reader.start()
            feed = Feed(inputs, self.partitions, producer, reader, Metrics(), RECORD_BYTES_MAX)
            try:
                run = await feed.begin(collected)
                await feed.run(run)
            except asyncio.CancelledError:
                continue
            except EOFError:
                return 0
            else:
                return run

    async def work(
        self, name, sizes=(), kills=(), record_bytes_max=RECORD_BYTES_MAX, most=1_000_000
    ):
        """Run a group over what its topic has, in Slices of these sizes; how often begun.

        A process takes ``most`` Slices.
        """
        kills, sizes = list(kills), list(sizes)
        begun = 0
        while True:
            begun += 1
            agent = self.agent(name, kills, record_bytes_max)
            try:
                await self.run(agent, name, sizes, most)
            except asyncio.CancelledError:
                continue
            else:
                return begun
            finally:
                await agent.stop()

    def agent(self, name, kills, record_bytes_max=RECORD_BYTES_MAX):
        """A group's agent, not started."""
        group = self.topology.group(name)
        clients = Killing(self.log, kills), self.log.reader()
        others = *clients, Metrics(), lambda: 1, record_bytes_max
        if group.is_whole:
            make_work = works(self.binding, lambda: None)
            spool = self.binding.graph.folder / "spool" / name
            return WholeAgent(group, self.binding, make_work, *others, spool)
        chain = Chain(self.binding, group.steps, lambda: None)
        return FlowAgent(group, chain, self.binding.schemas[group.source], *others)

    async def run(self, agent, name, sizes=(), most=1_000_000):
        """Hand an agent all that its topic has now."""
        topic = self.topology.group(name).topic
        tps = [(topic, partition) for partition in range(self.partitions)]
        starts = await agent.start_positions(tps)
        await agent.run(Stream(self.log, starts, sizes, most))

    async def rows(self, node, tmp_path, run=1, begin=None):
        """The rows of a run on a topic, and what was set aside."""
        topic = f"t.{node}"
        reader = self.log.reader()
        await reader.start()
        collect = Collect(reader, self.partitions, run, begin or {}, Metrics())
        name = next(s for g in self.topology.groups for t, s in g.publishes.items() if t == topic)
        into = tmp_path / "rows.arrow"
        async with asyncio.timeout(20):
            asides = await collect.rows(topic, self.binding.schemas[name], into)
        rows = in_order(into).to_pylist()
        return rows, [(a.stage, a.reason, a.rows.to_pylist()) for a in asides], collect.ended


class Stream:
    """What Faust hands an agent: Slices of the log, each an event."""

    def __init__(self, log, starts, sizes, most):
        self._log, self._starts, self._sizes = log, dict(starts), sizes
        self._most = most

    def noack(self):
        return self

    async def events(self):
        reader = self._log.reader()
        await reader.start()
        ends = {tp: (await reader.bounds(*tp))[1] for tp in self._starts}
        while behind := [tp for tp, at in self._starts.items() if at < ends[tp]]:
            for tp in behind:
                if self._most <= 0:
                    return
                self._most -= 1
                size = self._sizes.pop(0) if self._sizes else 3
                slice_ = await reader.read(*tp, self._starts[tp], records_max=size)
                self._starts[tp] = slice_.range.next
                message = SimpleNamespace(generation_id=1)
                yield SimpleNamespace(value=slice_, message=message, ack=lambda: True)
