"""STREAMAPP_JSON_TWIN: the worker publishes every enriched row as JSON, too.

Without it there is no such topic: test_one_event.py.
"""

import asyncio
import json
import shutil

import pytest
from faust_apps import run  # noqa: F401

from streamapp import compose
from streamapp.core.config import load, to_environment
from streamapp.topics.catalogue import ENRICHED, RAW, TWIN, defaults
from streamapp.topics.enriched import decode
from streamapp.transport import Outgoing, open_producer, open_reader

COUNT = 40


@pytest.fixture
def topics(tmp_path):
    folder = shutil.copytree(defaults("topics"), tmp_path / "topics")
    (folder / "workflow.toml").write_text('[workflow]\nstages = ["language"]\n')
    return folder


async def all_of(reader, topic):
    found = []
    for partition in range(4):
        at, end = await reader.bounds(topic, partition)
        while at < end:
            slice_ = await reader.read(topic, partition, at)
            found += [(partition, record) for record in slice_.records]
            at = max(slice_.range.next, at + 1)
    return found


async def test_the_twin(run, topics, tmp_path):  # noqa: F811
    settings, _ = load(
        {"home": tmp_path / "home", "topics_dir": topics, "json_twin": "true"},
        environ={},
        folder=tmp_path,
    )
    await compose.ensure_topics(settings)
    arguments = ("-m", "faust", "-A", "streamapp.worker", "worker", "-l", "info", "--without-web")
    worker = run(*arguments, **to_environment(settings))
    clients = open_producer(settings.broker_url), open_reader(settings.broker_url)
    for client in clients:
        await client.start()
    producer, reader = clients
    bodies = [json.dumps({"id": f"e{n}", "message": "good morning"}).encode() for n in range(COUNT)]
    await producer.send(RAW, [Outgoing(body, b"c%d" % (n % 9)) for n, body in enumerate(bodies)])
    rows = {}
    async with asyncio.timeout(90):
        while len(rows) < COUNT:
            assert worker.process.poll() is None, worker.text()
            await asyncio.sleep(0.05)
            for partition, record in await all_of(reader, ENRICHED):
                for row in decode(record).rows.to_pylist():
                    rows[partition, row["source_offset"]] = row
    twins = await all_of(reader, TWIN)
    said = {(p, json.loads(r.value)["source_offset"]): json.loads(r.value) for p, r in twins}
    assert said.keys() == rows.keys()
    assert {row["language"] for row in said.values()} == {"en"}
    assert [said[key]["id"] for key in rows] == [row["id"] for row in rows.values()]
    assert {record.key for _, record in twins} == {b"c%d" % n for n in range(9)}
    assert await worker.terminate() == 0
    for client in clients:
        await client.stop()
