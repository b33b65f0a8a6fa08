"""What gateways share by compacted topics, on Apache Kafka."""

import asyncio
from uuid import uuid4

import pytest

from streamapp.core.exports import Export
from streamapp.gateway.schemas import learned, shared

pytestmark = pytest.mark.timeout(300)
JSON = {"Content_Type": "application/json"}
EXPORT = Export("default", (b"k" * 24,), "https://example.com/hook")


async def test_what_is_learned_and_configured_is_known_to_another(serve_rest, kafka, monkeypatch):
    monkeypatch.setattr(shared, "_EVERY_S", 0.1)
    monkeypatch.setattr(learned, "_SHAPE_S", 0.1)
    kind = f"T-{uuid4().hex[:8]}"
    first, second = [await serve_rest(kafka.url, export=EXPORT) for _ in range(2)]
    await first.call("POST", "/ingest", {"type": kind, "a": 1}, **JSON)
    await second.call("POST", "/ingest", {"type": kind, "b": 1}, **JSON)

    async def fields(rest):
        _, told = await rest.call("GET", f"/api/schemas/{kind}")
        return set(told.get("fields", ()))

    async with asyncio.timeout(120):
        while not (await fields(first) == await fields(second) == {"type", "a", "b"}):
            await asyncio.sleep(0.2)
    for rest, change in ((first, {"batch_size": 7}), (second, {"interval_ms": 9})):
        status, _ = await rest.call("POST", "/api/config", change, **JSON)
        assert status == 200
    _, config = await first.call("GET", "/api/config")
    assert config["changed"] == {"batch_size": 7, "interval_ms": 9}
