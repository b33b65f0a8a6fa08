"""From POST to the enriched record: one client at a steady rate, our gateway, and a worker behind it.

A latency runs from the moment the POST was due, so that a client which falls behind does not hide
it, to the moment a reader of the enriched topic has the record.
"""

import asyncio
import contextlib
import itertools
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from pyarrow import ipc
from transport.contest import Contest, Failed, environment
from transport.meter import Task
from transport.records import events, make_topics

from streamapp import compose
from streamapp.core.config import Settings, to_environment
from streamapp.topics.catalogue import RAW

READY_S_MAX = 120.0
DRAIN_S_MAX = 20.0
#: Events that are sent first and not counted: everything is connected and was used once.
WARM = 20


class Identified(msgspec.Struct):
    """What we read of an event's JSON."""

    id: str | None = None


class Latency(NamedTuple):
    """Milliseconds of one run, and the rate that the client reached."""

    p50_ms: float
    p99_ms: float
    #: Of these, until the gateway's answer, which says that the raw topic has the event.
    answered_p50_ms: float
    answered_p99_ms: float
    events_per_s: float


def latencies(contest: Contest, name: str, rates: list[int], seconds: float) -> dict[int, Latency]:
    """Of one worker at each rate (events/s), by rate."""
    return asyncio.run(_latencies(contest, name, rates, seconds))


_identified = msgspec.json.Decoder(Identified)


async def _latencies(
    contest: Contest, name: str, rates: list[int], seconds: float
) -> dict[int, Latency]:
    out = f"{name}-{os.getpid()}-{time.monotonic_ns()}"
    with tempfile.TemporaryDirectory(prefix="bench-latency-") as home:
        settings = Settings(
            home=Path(home),
            broker=f"kafka+batch://{contest.bootstrap}",
            gateway_port=_free_port(),
        )
        await compose.ensure_topics(settings)
        large = {"max.message.bytes": str(18 << 20)}
        await make_topics(contest.bootstrap, [(out, 4)], **large)
        await make_topics(contest.bootstrap, [(f"{out}.dead", 1)], **large)
        task = Task(contest.bootstrap, RAW, 4, 0, out)
        with contest.process("published", name, task), _gateway(settings):
            async with _arrivals(contest.bootstrap, out) as arrivals:
                return await _at_rates(settings, arrivals, rates, seconds)


async def _at_rates(
    settings: Settings, arrivals: "Arrivals", rates: list[int], seconds: float
) -> dict[int, Latency]:
    url = f"http://127.0.0.1:{settings.gateway_port}"
    found: dict[int, Latency] = {}
    numbered = events(1 << 30, first=time.time_ns() % 10**12)  # others may be on the topic already
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await _ready(session, url)
        for rate, spell_s in [(WARM, 1.0), *((rate, seconds) for rate in rates)]:
            values = [v for _, v in itertools.islice(numbered, max(int(rate * spell_s), WARM))]
            due, answered, took_s = await _post_all(session, f"{url}/ingest", values, rate)
            seen = await _all_arrived(due, arrivals)
            found[rate] = Latency(
                *_quantiles_ms(due, seen), *_quantiles_ms(due, answered), len(values) / took_s
            )
    return {rate: found[rate] for rate in rates}


def _quantiles_ms(due: Mapping[str, float], done: Mapping[str, float]) -> tuple[float, float]:
    """Median and 99th percentile of what lies between."""
    waits = [(done[id_] - at_s) * 1000 for id_, at_s in due.items()]
    cuts = statistics.quantiles(waits, n=100, method="inclusive")
    return cuts[49], cuts[98]


async def _post_all(
    session: aiohttp.ClientSession, url: str, values: list[bytes], rate: int
) -> tuple[dict[str, float], dict[str, float], float]:
    """POST at a steady rate, never waiting for an answer.

    When each was due, when it was answered, and how long all took to send.
    """
    headers = {"Content-Type": "application/json"}

    async def post(id_: str, value: bytes) -> None:
        async with session.post(url, data=value, headers=headers) as answer:
            if answer.status != 200:
                raise Failed(f"{url}: {answer.status} {await answer.text()}")
            answered[id_] = time.monotonic()

    due: dict[str, float] = {}
    answered: dict[str, float] = {}
    started_s = time.monotonic()
    async with asyncio.TaskGroup() as posts:
        for number, value in enumerate(values):
            at_s = started_s + number / rate
            if (ahead_s := at_s - time.monotonic()) > 0:
                await asyncio.sleep(ahead_s)
            id_ = _identified.decode(value).id or ""
            due[id_] = at_s
            posts.create_task(post(id_, value))
        took_s = time.monotonic() - started_s
    return due, answered, took_s


async def _all_arrived(due: dict[str, float], arrivals: "Arrivals") -> dict[str, float]:
    """When each of those events was seen."""
    deadline_s = time.monotonic() + READY_S_MAX
    while missing := due.keys() - (seen := arrivals.by_id()).keys():
        if time.monotonic() > deadline_s:
            raise Failed(f"{len(missing)} of {len(due)} events never became enriched")
        await asyncio.sleep(0.05)
    return seen


class Arrivals:
    """Enriched records as they come; looked into only when asked, for that takes time too."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._records: list[tuple[float, Any]] = []
        self._seen: dict[str, float] = {}

    async def watch(self) -> None:
        while True:
            fetched = await self._consumer.getmany(timeout_ms=1000)
            now_s = time.monotonic()
            self._records += [(now_s, record) for record in itertools.chain(*fetched.values())]

    def by_id(self) -> dict[str, float]:
        """When each event was first seen."""
        records, self._records = self._records, []
        for at_s, record in records:
            for id_ in _ids(record):
                self._seen.setdefault(id_, at_s)
        return self._seen


@contextlib.asynccontextmanager
async def _arrivals(bootstrap: str, topic: str) -> AsyncIterator[Arrivals]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    consumer.assign([TopicPartition(topic, n) for n in range(4)])
    arrivals = Arrivals(consumer)
    watching = asyncio.create_task(arrivals.watch())
    try:
        yield arrivals
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        await consumer.stop()


def _ids(record: Any) -> list[str]:
    """Ids of the events in an enriched record: ours is Arrow, a JSON record is one event."""
    if not any(name == "streamapp" for name, _ in record.headers):
        return [_identified.decode(record.value).id or ""]
    ids: list[str] = ipc.open_stream(record.value).read_all()["id"].to_pylist()
    return ids


async def _ready(session: aiohttp.ClientSession, url: str) -> None:
    deadline_s = time.monotonic() + READY_S_MAX
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(f"{url}/readyz") as answer:
                if answer.status == 200:
                    return
        if time.monotonic() > deadline_s:
            raise Failed(f"{url}/readyz is not ready")
        await asyncio.sleep(0.1)


@contextlib.contextmanager
def _gateway(settings: Settings) -> Any:
    """Our gateway, a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "streamapp.cli", "gateway"],
        env={**environment(), **to_environment(settings)},
        cwd=settings.home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    ) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(DRAIN_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
