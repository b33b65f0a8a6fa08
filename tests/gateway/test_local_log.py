"""The gateway on the embedded log: what was answered is there, in order, after a restart."""

import asyncio

import aiohttp
import pytest

from streamapp.core.metrics import Metrics
from streamapp.gateway import GatewayConfig, create_app
from streamapp.gateway.listen import listening
from streamapp.topics import catalogue
from streamapp.topics.wire import decode_slice
from streamapp.transport.clients import TopicSpec
from streamapp.transport.urls import open_admin, open_producer, open_reader


@pytest.fixture
async def log(tmp_path):
    """(URL of a log with our topics, its admin)."""
    url = f"local://{tmp_path / 'log'}"
    admin = open_admin(url)
    await admin.start()
    for topic in catalogue.load():
        await admin.create(TopicSpec(topic.name, topic.partitions, topic.record_bytes_max))
    yield url, admin
    await admin.stop()


async def test_what_was_answered_is_in_the_log_where_the_answer_says(log):
    broker, admin = log
    producer = open_producer(broker)
    await producer.start()
    config = GatewayConfig(port=0)
    app = create_app(config, producer, catalogue.load(), Metrics(), admin=admin)
    async with listening(app, config) as (_, url), aiohttp.ClientSession() as http:

        async def send(n: int) -> tuple[str, int, int]:
            body = {"message": f"event {n}", "conversation_id": f"c{n % 7}", "id": f"e{n}"}
            async with http.post(url + "/ingest", json=body) as answer:
                assert answer.status == 200
                got = await answer.json()
                return got["id"], got["partition"], got["offset"]

        answers = await asyncio.gather(*(send(n) for n in range(300)))
        lines = b"\n".join(b'{"id":"l%d"}' % n for n in range(50))
        kind = {"Content-Type": "application/x-ndjson"}
        async with http.post(url + "/v1/events", data=lines, headers=kind) as answer:
            events = (await answer.json())["events"]
        async with http.get(url + "/readyz") as answer:
            assert answer.status == 200
    await producer.stop()

    answers += [(event["id"], event["partition"], event["offset"]) for event in events]
    reader = open_reader(broker)
    await reader.start()
    stored = []
    for partition in range(4):
        batch = decode_slice(await reader.read("events.raw", partition, 0), event_bytes_max=1 << 20)
        assert batch.rejects == ()
        ids = batch.strings("id")
        stored += [(id_, partition, offset) for offset, id_ in enumerate(ids)]
    await reader.stop()
    assert sorted(stored) == sorted(answers)
    assert len(stored) == 350


async def test_a_log_without_the_topic_is_not_ready_and_says_so(tmp_path):
    broker = f"local://{tmp_path / 'empty'}"
    producer, admin = open_producer(broker), open_admin(broker)
    await producer.start()
    await admin.start()
    config = GatewayConfig(port=0)
    app = create_app(config, producer, catalogue.load(), Metrics(), admin=admin)
    async with listening(app, config) as (_, url), aiohttp.ClientSession() as http:
        async with http.get(url + "/readyz") as answer:
            assert answer.status == 503
        async with http.post(url + "/ingest", json={"message": "x"}) as answer:
            assert answer.status == 503
            text = await answer.text()
            assert "topic.unknown" in text
            assert str(tmp_path) not in text
    await producer.stop()
    await admin.stop()
