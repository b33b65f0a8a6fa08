import asyncio
import io
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
import pytest
from npm_packages import node, npm_folder  # noqa: F401  # fixtures
from yarl import URL

from streamapp.core.clock import SYSTEM
from streamapp.core.errors import Refuse, Reject, StreamappError
from streamapp.core.metrics import Metrics
from streamapp.gateway import GatewayConfig, create_app
from streamapp.gateway.app import GATEWAY
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.listen import listening
from streamapp.topics import catalogue
from streamapp.transport import open_admin, open_members, open_producer, open_reader
from streamapp.transport.clients import Address, Outgoing, TopicSpec


@dataclass
class MemoryProducer:
    """A log in a dict that can be held back, told to fail, and asked what it got."""

    record_bytes_max: int = 2_097_152
    records: list[tuple[Address, Outgoing]] = field(default_factory=list)
    failures: list[StreamappError] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    called: asyncio.Event = field(default_factory=asyncio.Event)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.open.set()
        self._next: Counter[str] = Counter()

    async def start(self) -> None:
        self.log.append("start")

    async def stop(self) -> None:
        self.log.append("stop")

    async def send(self, topic, records):
        self.called.set()
        await self.open.wait()
        if self.failures:
            raise self.failures.pop(0)
        if topic == "missing":
            raise Refuse("topic.unknown", "no such topic")
        for record in records:
            if len(record.value) > self.record_bytes_max:
                raise Reject("record.too_large", f"{len(record.value)} bytes", "send less")
        addresses = []
        for record in records:
            address = Address(topic, 0, self._next[topic])
            self._next[topic] += 1
            self.records.append((address, record))
            addresses.append(address)
        return addresses

    @property
    def values(self) -> list[bytes]:
        return [record.value for _, record in self.records]

    def headers(self, index: int = -1) -> dict[str, str]:
        return {name: value.decode() for name, value in self.records[index][1].headers}


@dataclass
class Gate:
    """A gateway on a real port of the loopback, and a client for it."""

    url: str
    http: aiohttp.ClientSession
    producer: MemoryProducer
    metrics: Metrics
    gateway: Gateway

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    async def post(self, path: str, body: Any, **options: Any) -> tuple[int, Any]:
        """Status and JSON of an answer; a body of bytes goes as application/json."""
        headers = {"Content-Type": "application/json"} | options.pop("headers", {})
        if isinstance(body, dict | list):
            options["json"] = body
        else:
            options["data"] = io.BytesIO(body) if isinstance(body, bytes) else body
        async with self.http.post(self.url + path, headers=headers, **options) as answer:
            return answer.status, await answer.json(content_type=None)

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        async with self.http.get(self.url + path, **options) as answer:
            return answer.status, await answer.json(content_type=None)

    async def raw(self, request: bytes, *, until: bytes = b"") -> bytes:
        """Bytes to the port; what came back until ``until`` was in it, or until it closed."""
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            writer.write(request)
            got = b""
            while chunk := await reader.read(65_536):
                got += chunk
                if until and until in got:
                    break
            return got
        finally:
            writer.close()


@pytest.fixture
def producer() -> MemoryProducer:
    return MemoryProducer()


@pytest.fixture
async def start(producer) -> AsyncIterator[Callable[..., Awaitable[Gate]]]:
    """Start a gateway; keywords are GatewayConfig's, ``admin``, ``clock``, ``declared`` topics."""
    async with AsyncExitStack() as stack:

        async def begin(
            *, admin=None, declared=None, clock=SYSTEM, models=None, **config: Any
        ) -> Gate:
            metrics = Metrics()
            settings = GatewayConfig(port=0, **config)
            declared = declared or catalogue.load()
            app = create_app(
                settings, producer, declared, metrics, admin=admin, clock=clock, models=models
            )
            _, url = await stack.enter_async_context(listening(app, settings))
            http = await stack.enter_async_context(aiohttp.ClientSession())
            return Gate(url, http, producer, metrics, app[GATEWAY])

        yield begin
        producer.open.set()


@pytest.fixture
async def gate(start) -> Gate:
    return await start()


@dataclass
class Rest:
    """A gateway on a log of the catalogue's topics and ``plain`` (two partitions, any bytes)."""

    url: str
    http: aiohttp.ClientSession
    producer: Any
    reader: Any
    admin: Any
    gateway: Gateway

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Status and JSON (None for none) of an answer; the headers are in ``last``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes | None) else msgspec.json.encode(body)
        data = io.BytesIO(data) if isinstance(data, bytes) else data
        target = URL(path if path.startswith("http") else self.url + path, encoded=True)
        async with self.http.request(method, target, data=data, headers=named) as answer:
            self.last = answer.headers
            raw = await answer.read()
            return answer.status, msgspec.json.decode(raw) if raw else None

    async def v2(self, path: str, records: list[Any], format_: str = "json") -> Any:
        """Produce."""
        kind = f"application/vnd.kafka.{format_}.v2+json"
        return await self.call("POST", path, {"records": records}, Content_Type=kind)

    async def records(self, topic: str, partition: int = 0) -> list[Any]:
        """Everything a partition holds."""
        return list((await self.reader.read(topic, partition, 0)).records)


PLAIN = TopicSpec("plain", 2, 100_000)


@pytest.fixture
async def serve_rest() -> AsyncIterator[Callable[..., Awaitable[Rest]]]:
    """Start a gateway on the log at a URL; keywords are GatewayConfig's."""
    async with AsyncExitStack() as stack:

        async def begin(broker: str, *, declared=None, **config: Any) -> Rest:
            opened = [
                open_(broker) for open_ in (open_producer, open_reader, open_admin, open_members)
            ]
            for client in opened:
                await client.start()
                stack.push_async_callback(client.stop)
            producer, reader, admin, members = opened
            declared = declared or catalogue.load()
            await create_topics(admin, declared)
            settings = GatewayConfig(port=0, **config)
            app = create_app(
                settings, producer, declared, Metrics(), admin=admin, reader=reader, members=members
            )
            _, url = await stack.enter_async_context(listening(app, settings))
            http = await stack.enter_async_context(aiohttp.ClientSession())
            return Rest(url, http, producer, reader, admin, app[GATEWAY])

        yield begin


async def create_topics(admin: Any, declared: Any = None) -> None:
    """The catalogue's and ``plain``."""
    there = await admin.topics()
    for spec in [*(TopicSpec(*t.log_spec()) for t in declared or catalogue.load()), PLAIN]:
        if spec.name not in there:
            await admin.create(spec)


@pytest.fixture(scope="session")
def log_with_topics(tmp_path_factory):
    """A folder to copy: to make a topic costs several syncs of the disk."""
    folder = tmp_path_factory.mktemp("topics") / "log"

    async def make() -> None:
        admin = open_admin(f"local://{folder}")
        await admin.start()
        await create_topics(admin)
        await admin.stop()

    with ThreadPoolExecutor(1) as pool:  # whoever asks for it late is on a loop already
        pool.submit(asyncio.run, make()).result()
    return folder


@pytest.fixture
def log_url(log_with_topics, tmp_path) -> str:
    """An embedded log of this test's own."""
    shutil.copytree(log_with_topics, tmp_path / "log")
    return f"local://{tmp_path / 'log'}"


@pytest.fixture
async def rest(serve_rest, log_url) -> Rest:
    """On the embedded log."""
    return await serve_rest(log_url)
