"""A real terminal process on the embedded log: killed at any moment it misses and repeats nothing."""

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pytest
from machine import free_ports, wait_for

from streamapp import compose
from streamapp.core.batch import vector_column
from streamapp.core.config import load
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.ring import RingReader, unpack_source
from streamapp.topics.catalogue import ENRICHED, RAW
from streamapp.topics.enriched import Cover, Enriched, encode
from streamapp.topics.wire import decode_slice
from streamapp.transport import Outgoing

DIM = 384
PARTITIONS = 4


class Log:
    """The project's log, filled as gateway and worker fill it."""

    def __init__(self, settings):
        self.next = dict.fromkeys(range(PARTITIONS), 0)
        self._producer = compose.producer(settings)
        self._clock = itertools.count(1_700_000_000_000)

    async def __aenter__(self):
        await self._producer.start()
        return self

    async def __aexit__(self, *_):
        await self._producer.stop()

    async def add(self, partition, count):
        """Take ``count`` raw events and publish them enriched, as one record."""
        first = self.next[partition]
        raw = [
            Record(first + i, next(self._clock), None, b'{"message": "m"}') for i in range(count)
        ]
        await self._producer.send(
            RAW, [Outgoing(r.value, partition=partition, timestamp_ms=r.timestamp) for r in raw]
        )
        place = OffsetRange(RAW, partition, first, first + count)
        batch = decode_slice(Slice(place, raw), event_bytes_max=999)
        vectors = np.ones((count, DIM), np.float32) * (np.arange(count)[:, None] + first + 1)
        batch = batch.with_columns(
            {"embedding": vector_column(vectors), "intent_id": pa.array([partition] * count)}
        )
        cover = Cover(topic=RAW, partition=partition, first=first, next=first + count, rows=count)
        value, headers = encode(Enriched(cover, batch.rows))
        await self._producer.send(ENRICHED, [Outgoing(value, headers=headers, partition=partition)])
        self.next[partition] += count

    def addresses(self):
        return {(p, offset) for p, end in self.next.items() for offset in range(end)}


class Terminal:
    """``streamapp terminal`` as a process of its own."""

    def __init__(self, home, **settings):
        self.ring = home.parent / "x.ring"
        self.port = free_ports(1)[0]
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("STREAMAPP_")},
            "STREAMAPP_HOME": str(home),
            "STREAMAPP_RING_PATH": str(self.ring),
            "STREAMAPP_TERMINAL_PORT": str(self.port),
            **{f"STREAMAPP_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.settings, _ = load(environ=self.env)
        self.log = home.parent / "terminal.log"
        self.process = None

    def start(self):
        """Start it; :meth:`ring_made` waits until it writes."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "streamapp.cli", "terminal"],
                env=self.env, cwd=self.log.parent, stdout=output, stderr=output,
            )  # fmt: skip
        return self

    def ring_made(self):
        wait_for(lambda: self.ring.exists() or self.process.poll() is not None, "the ring")
        assert self.ring.exists(), self.log.read_text()

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(60)

    def refused(self):
        """Exit code and last words of one that must not start."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "streamapp.cli", "terminal"],
            env=self.env, cwd=self.log.parent, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr


class Follower(threading.Thread):
    """A reader that follows all the time; what it got, in order."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.got = []
        self.lost = 0
        self._path = path
        self._over = threading.Event()

    def run(self):
        with RingReader.open(self._path) as reader:
            while not self._over.is_set():
                frames = reader.read(256, timeout=0.05)
                _, offsets = unpack_source(frames.source_offset)
                assert (frames.semantic[:, 0] == offsets + 1).all()
                self.got += zip(frames.intent_id.tolist(), offsets.tolist(), strict=True)
            self.lost = reader.lost

    def stop(self):
        self._over.set()
        self.join(30)


@pytest.fixture
def terminal(tmp_path):
    made = []

    def make(**settings):
        one = Terminal(tmp_path / "home", **settings)
        made.append(one)
        return one

    yield make
    for one in made:
        if one.process is not None and one.process.poll() is None:
            one.process.kill()
            one.process.wait(30)


def kill_and_feed(terminal, kills, seed):
    """Feed the log without a pause while the terminal is killed again and again."""
    chance = random.Random(seed)
    asyncio.run(compose.ensure_topics(terminal.settings))

    async def feed(stop):
        async with Log(terminal.settings) as log:
            while not stop.is_set():
                await log.add(chance.randrange(PARTITIONS), chance.choice((1, 3, 40)))
                await asyncio.sleep(0.005)
        return log

    stop = threading.Event()
    fed = []
    feeder = threading.Thread(target=lambda: fed.append(asyncio.run(feed(stop))))
    terminal.start()
    terminal.ring_made()
    follower = Follower(terminal.ring)
    follower.start()
    feeder.start()
    try:
        for _ in range(kills):
            count = len(follower.got)
            wait_for(lambda count=count: len(follower.got) > count, "frames", 60)
            stop.wait(chance.uniform(0, 0.5))  # a random moment, not a condition
            terminal.end(signal.SIGKILL)
            terminal.start()
    finally:
        stop.set()
        feeder.join(60)
    [log] = fed
    wanted = log.addresses()
    wait_for(lambda: len(follower.got) >= len(wanted), f"{len(wanted)} frames", 60)
    assert terminal.end(signal.SIGTERM) == 0
    follower.stop()
    return wanted, follower


@pytest.mark.parametrize(
    ("kills", "frames"),
    [(3, 65_536), pytest.param(60, 524_288, marks=[pytest.mark.soak, pytest.mark.timeout(900)])],
)
def test_killed_at_random_it_leaves_no_gap_and_no_frame_twice(terminal, kills, frames):
    wanted, follower = kill_and_feed(terminal(ring_frames=frames), kills, seed=kills)
    assert follower.lost == 0
    assert len(follower.got) == len(wanted), "nothing twice"
    assert set(follower.got) == wanted, "nothing missed"
    for partition in range(PARTITIONS):
        offsets = [offset for p, offset in follower.got if p == partition]
        assert offsets == sorted(offsets)


def test_a_new_ring_gets_the_newest_and_a_removed_one_comes_again(terminal):
    """Also: a second writer is told who writes."""
    one = terminal(ring_frames=256)
    asyncio.run(compose.ensure_topics(one.settings))

    async def fill(rounds):
        async with Log(one.settings) as log:
            for _ in range(rounds):
                for partition in range(PARTITIONS):
                    await log.add(partition, 25)
        return log

    log = asyncio.run(fill(20))
    one.start()
    one.ring_made()
    newest = {(p, offset) for p, offset in log.addresses() if offset >= 500 - 64}

    def held():
        if not one.ring.exists():
            return set()
        with RingReader.open(one.ring) as reader:
            frames = reader.latest(256)
            return set(
                zip(frames.intent_id.tolist(), (frames.semantic[:, 0] - 1).tolist(), strict=True)
            )

    wait_for(lambda: len(held()) == 256, "a full ring")
    assert len(held() & newest) > 230, "the newest of all partitions, not all of one"
    with RingReader.open(one.ring) as reader:
        assert reader.stat()["frames"] == 256, "the log was not mirrored from its beginning"
        before = held()
        one.ring.unlink()
        wait_for(lambda: held() == before, "the same frames in a new ring")
    code, said = terminal(ring_frames=256, terminal_port=0).refused()
    assert code == 2
    assert f"process {one.process.pid} (" in said, "who it is"
    assert f"writes the ring {one.ring}" in said


def test_where_the_worker_writes_the_ring_no_terminal_starts(terminal):
    code, said = terminal(ring="direct").refused()
    assert code == 2
    error, fix = said.strip().splitlines()
    assert error.startswith("error: ring = direct: the worker of this host writes")
    assert fix == "fix: run no terminal beside it, or set ring = c for one that the terminal writes"
