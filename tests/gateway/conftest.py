import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from streamapp.core.errors import Refuse, Reject, StreamappError
from streamapp.core.metrics import Metrics
from streamapp.gateway import GatewayConfig, create_app
from streamapp.gateway.app import GATEWAY
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.listen import listening
from streamapp.topics import catalogue
from streamapp.transport.clients import Address, Outgoing


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
    """Start a gateway; keywords are GatewayConfig's, and ``admin``."""
    async with AsyncExitStack() as stack:

        async def begin(*, admin=None, **config: Any) -> Gate:
            metrics = Metrics()
            settings = GatewayConfig(port=0, **config)
            app = create_app(settings, producer, catalogue.load(), metrics, admin=admin)
            _, url = await stack.enter_async_context(listening(app, settings))
            http = await stack.enter_async_context(aiohttp.ClientSession())
            return Gate(url, http, producer, metrics, app[GATEWAY])

        yield begin
        producer.open.set()


@pytest.fixture
async def gate(start) -> Gate:
    return await start()
