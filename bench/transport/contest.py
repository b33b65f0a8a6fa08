"""Starts contenders, each in a process of its own, and says how fast they were."""

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from transport.meter import Task
from transport.records import make_topics

BENCH = Path(__file__).parents[1]
CONTENDER_S_MAX = 120.0
POLL_S = 0.05
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Figure(NamedTuple):
    """Of one run: how many events a second, and CPU of the contender's process per event."""

    events_per_s: float
    cpu_us: float


class Failed(Exception):
    """A contender ended without a figure; its last words."""


@dataclass
class Contest:
    """Runs contenders against one broker."""

    bootstrap: str
    #: Interpreters other than ours, by module.
    pythons: dict[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def received(self, module: str, name: str, **task: Any) -> Figure:
        """A contender that measures itself and says so."""
        with self.process(module, name, Task(self.bootstrap, **task)) as process:
            try:
                said, _ = process.communicate(timeout=CONTENDER_S_MAX)
            except subprocess.TimeoutExpired:
                raise Failed(f"{module} {name}: no figure in {CONTENDER_S_MAX:.0f} s") from None
        at = said.rfind("{")  # Faust's worker plays with the cursor before it
        if at < 0:
            raise Failed(f"{module} {name}: {said[-2000:]}")
        found = json.loads(said[at : said.index("}", at) + 1])
        return Figure(found["events"] / found["seconds"], found["cpu_s"] / found["events"] * 1e6)

    def published(self, name: str, **task: Any) -> Figure:
        """A contender that publishes; the broker's clock says when the first and last arrived."""
        out = f"out-{os.getpid()}-{next(self._numbers)}"
        told = Task(self.bootstrap, out=out, **task)
        return asyncio.run(self._published(name, told))

    async def _published(self, name: str, task: Task) -> Figure:
        stamped = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(18 << 20)}
        await make_topics(self.bootstrap, [(task.out, task.partitions)], **stamped)
        await make_topics(
            self.bootstrap, [(f"{task.out}.dead", 1)], **{"max.message.bytes": str(18 << 20)}
        )
        with self.process("published", name, task) as process:
            async with watching(self.bootstrap, task.out, task.partitions) as watch:
                cpu: list[float] = []
                while watch.rows < task.events:
                    if process.poll() is not None or watch.waited_s > CONTENDER_S_MAX:
                        process.kill()
                        said = process.communicate()[0][-2000:]
                        raise Failed(
                            f"published {name}: {watch.rows} rows after {watch.waited_s:.0f} s\n{said}"
                        )
                    if await watch.look() and not cpu:
                        cpu.append(_cpu_s(process.pid))
                        begun = watch.rows
                cpu.append(_cpu_s(process.pid))
            process.kill()
        counted = watch.rows - watch.first_rows
        return Figure(counted / watch.seconds, (cpu[1] - cpu[0]) / max(watch.rows - begun, 1) * 1e6)

    @contextlib.contextmanager
    def process(self, module: str, name: str, task: Task) -> Iterator[subprocess.Popen[str]]:
        """A contender; it is killed at the end, so what it left on the disk is ours to remove."""
        python = self.pythons.get(module, sys.executable)
        with (
            tempfile.TemporaryDirectory(prefix="bench-contender-") as folder,
            subprocess.Popen(
                [python, "-P", "-m", f"transport.{module}", name, json.dumps(task._asdict())],
                cwd=BENCH,
                env=environment() | {"TMPDIR": folder},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()


def environment() -> dict[str, str]:
    """Of contenders: they find this folder and the package beside it."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(BENCH), str(BENCH.parent)])}


@dataclass
class Watch:
    """What has arrived on a topic: rows, and the broker's clock at the first and last record."""

    consumer: AIOKafkaConsumer
    started_s: float = field(default_factory=time.monotonic)
    rows: int = 0
    first_rows: int = 0
    first_ms: int = 0
    last_ms: int = 0

    @property
    def waited_s(self) -> float:
        return time.monotonic() - self.started_s

    @property
    def seconds(self) -> float:
        return (self.last_ms - self.first_ms) / 1000

    async def look(self) -> bool:
        """Count what is new, after a moment; False when nothing is."""
        await asyncio.sleep(POLL_S)
        fetched = await self.consumer.getmany(timeout_ms=0)
        for record in itertools.chain(*fetched.values()):
            rows = _rows(record)
            if not self.rows:
                self.first_rows, self.first_ms = rows, record.timestamp
            self.rows += rows
            self.last_ms = max(self.last_ms, record.timestamp)
        return bool(fetched)


@contextlib.asynccontextmanager
async def watching(bootstrap: str, topic: str, partitions: int) -> AsyncIterator[Watch]:
    """A watch over a topic from its beginning."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=16 << 20,
        check_crcs=False,
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, n) for n in range(partitions)])
        yield Watch(consumer)
    finally:
        await consumer.stop()


def _rows(record: Any) -> int:
    """Events in a record: ours says it in its header, a JSON record is one."""
    for name, value in record.headers:
        if name == "streamapp":
            return int(json.loads(value).get("rows", 0))
    return 1


def _cpu_s(pid: int) -> float:
    """User and system time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S
