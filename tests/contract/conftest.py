"""A broker and a worker per test, for each transport the contract is about."""

import asyncio
import re
import time
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest
from faust_apps import WAIT_S

from streamapp.transport import Outgoing, TopicSpec, open_admin, open_producer, open_reader

HERE = Path(__file__).parent
RECORD_BYTES_MAX = 2 << 20


class Broker(NamedTuple):
    """One of the logs, under one of the transports."""

    transport: str
    url: str
    #: For clients of ours: Faust's own transport has none.
    client_url: str

    @property
    def ours(self):
        return self.transport != "kafka"


@pytest.fixture(params=["local", "kafka+batch", "kafka"])
def broker(request, tmp_path):
    if request.param == "local":
        url = f"local://{tmp_path}/log"
        return Broker("local", url, url)
    kafka = request.getfixturevalue("kafka")
    return Broker(request.param, f"{request.param}://{kafka.bootstrap}", kafka.url)


@pytest.fixture
def group(request):
    """A consumer group, and the first part of topic names, that no other test has."""
    name = re.sub(r"[^a-z]+", "-", request.node.originalname.removeprefix("test_"))[:40]
    return f"{name}-{uuid4().hex[:8]}"


@pytest.fixture
def worker_of(run, broker, group):
    """Start a worker for one of the programs."""

    def start(program, **environment):
        return run(
            "-m", "faust", "-A", f"programs.{program}", "worker", "-l", "info", "--without-web",
            path=[HERE], BROKER=broker.url, CLIENT=broker.client_url, GROUP=group, **environment,
        )  # fmt: skip

    return start


@pytest.fixture
async def log(broker, group):
    clients = (
        open_admin(broker.client_url),
        open_producer(broker.client_url),
        open_reader(broker.client_url),
    )
    for client in clients:
        await client.start()
    yield Log(*clients, group)
    for client in clients:
        await client.stop()


class Log:
    """A test's topics, from outside."""

    def __init__(self, admin, producer, reader, group):
        self.admin, self.producer, self.reader, self.group = admin, producer, reader, group

    def topic(self, name):
        return f"{self.group}-{name}"

    async def create(self, *names, partitions=2):
        for name in names:
            await self.admin.create(TopicSpec(self.topic(name), partitions, RECORD_BYTES_MAX))

    async def send(self, name, records):
        return await self.producer.send(self.topic(name), records)

    async def send_numbers(self, name, numbers, key=None, partition=None):
        """Numbers as text; returns their addresses."""
        return await self.send(
            name, [Outgoing(b"%d" % n, key and key(n), partition=partition) for n in numbers]
        )

    async def committed(self, name, partition=0):
        """What the group committed for the partition; 0 when nothing."""
        return (await self.admin.committed(self.group)).get((self.topic(name), partition), 0)

    async def until_committed(self, name, offset, partition=0):
        deadline = time.monotonic() + WAIT_S
        while (committed := await self.committed(name, partition)) != offset:
            assert committed < offset
            assert time.monotonic() < deadline, f"{name} stays committed at {committed}"
            await asyncio.sleep(0.05)

    async def until_no_lag(self, *names, partitions=2):
        deadline = time.monotonic() + WAIT_S
        for name in names:
            while lag := await self.lag(name, partitions):
                assert time.monotonic() < deadline, f"{name} keeps a lag of {lag}"
                await asyncio.sleep(0.05)

    async def lag(self, name, partitions=2):
        """Offsets between what the group committed and the ends."""
        committed = await self.admin.committed(self.group)
        topic = self.topic(name)
        ends = [(await self.reader.bounds(topic, p))[1] for p in range(partitions)]
        return sum(end - committed.get((topic, p), 0) for p, end in enumerate(ends))
