"""What only a real broker shows of ``kafka+batch://``; what every log does is in tests/contract."""

import asyncio
import json

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.structs import TopicPartition
from faust_apps import run  # noqa: F401  # a fixture
from yarl import URL

from streamapp.core.clock import now_ms
from streamapp.core.errors import Refuse
from streamapp.transport.kafka import Transport

PROGRAM = """
import asyncio, json, os, sys
from streamapp import transport
from streamapp.agents.app import make_app
from pathlib import Path

app = make_app(
    "NAME", "URL", Path("data"), web_bind="127.0.0.1", web_port=0, drain_s=10, session_s=2
)
app.conf.broker_commit_interval = 0.1
transport.configure(app, coalesce={"NAME"}, OPTIONS)

def say(word, **what):
    os.write(1, f"\\x1e{word} {json.dumps(what)}\\n".encode())

@app.agent(transport.slice_topic(app, "NAME"))
async def agent(stream):
    async for event in stream.noack().events():
        slice_ = event.value
        say(
            "SLICE", first=slice_.range.first, next=slice_.range.next,
            offsets=[record.offset for record in slice_.records],
            headers=[[[n, v.decode()] for n, v in record.headers] for record in slice_.records],
            timestamps=[record.timestamp for record in slice_.records],
        )
BODY
        event.ack()
"""


@pytest.fixture
async def topic_of(kafka):
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, max_request_size=16 << 20)
    await admin.start()
    await producer.start()

    class Topic:
        def __init__(self, name):
            self.name = name

        async def send(self, value=b"v", **options):
            return await producer.send_and_wait(self.name, value, partition=0, **options)

        async def forget_before(self, offset):
            await admin.delete_records(
                {TopicPartition(self.name, 0): RecordsToDelete(before_offset=offset)}
            )

        async def until_committed(self, offset):
            async with asyncio.timeout(20):
                while True:
                    found = await admin.list_consumer_group_offsets(self.name)
                    at = found.get(TopicPartition(self.name, 0))
                    if at is not None and at.offset == offset:
                        return
                    await asyncio.sleep(0.05)

        async def create(self):
            await admin.create_topics([NewTopic(self.name, 1, 1)])
            return self

    yield Topic
    await producer.stop()
    await admin.close()


@pytest.fixture
def start(run, tmp_path, kafka):  # noqa: F811
    def start(name, body="", options=""):
        text = PROGRAM.replace("NAME", name).replace("URL", kafka.url).replace("OPTIONS", options)
        (tmp_path / f"{name}.py").write_text(text.replace("BODY", body))
        return run("-m", "faust", "-A", name, "worker", "-l", "info", "--without-web")

    return start


@pytest.mark.parametrize("url", ["kafka+batch://user:secret@host", "kafka+batch://a_b!c"])
def test_a_url_that_our_clients_refuse_is_refused_without_repeating_a_password(url):
    with pytest.raises(Refuse) as refused:
        Transport([URL(url)], None)
    assert "secret" not in str(refused.value)


async def test_a_header_without_a_value_is_empty_and_the_rest_is_untouched(topic_of, start):
    topic = await topic_of("plain_headers").create()
    times = [now_ms(), now_ms() - 1000]
    await topic.send(headers=[("a", b"1"), ("a", b"2")], timestamp_ms=times[0])
    await topic.send(headers=[("none", None), ("b", b"")], timestamp_ms=times[1])
    worker = start(topic.name)
    [said] = await worker.until_said("SLICE")
    assert said["headers"] == [[["a", "1"], ["a", "2"]], [["none", ""], ["b", ""]]]
    assert said["timestamps"] == times
    assert await worker.terminate() == 0


async def test_records_larger_than_a_slice_come_one_by_one(topic_of, start):
    topic = await topic_of("large_records").create()
    for _ in range(3):
        await topic.send(b"x" * (1 << 20))
    worker = start(topic.name, options="batch_bytes_max=1000")
    said = await worker.until_said("SLICE", 3)
    assert [piece["offsets"] for piece in said] == [[0], [1], [2]]
    await topic.until_committed(3)
    assert await worker.terminate() == 0


async def test_retention_that_overtakes_a_worker_is_said_and_does_not_stop_the_commit(
    topic_of, start
):
    topic = await topic_of("overtaken").create()
    for _ in range(20):
        await topic.send()
    # The first Slice holds the agent until the rest has gone from the log.
    body = """
        while slice_.range.first == 0 and not os.path.exists("go"):
            await asyncio.sleep(0.02)
"""
    worker = start(topic.name, body, "batch_events_max=2, slices_in_flight_max=1")
    await worker.until_said("SLICE", 1)
    await topic.forget_before(15)
    await topic.send()  # what aiokafka already had in hand ends before this one
    worker.output.parent.joinpath("go").touch()
    await topic.until_committed(21)
    said = worker.said("SLICE")
    got = [offset for piece in said for offset in piece["offsets"]]
    assert got == sorted(set(got))
    assert {0, 1, 20} <= set(got)
    assert [piece["first"] for piece in said] == [0, *(piece["next"] for piece in said[:-1])]
    if 14 not in got:  # else aiokafka had fetched all of it before
        assert "are gone: the log's retention was faster" in worker.text()
    assert await worker.terminate() == 0


async def test_a_fetcher_that_died_silently_ends_the_process_for_its_supervisor(topic_of, start):
    """aiokafka's fetching is cancelled from outside: heartbeats go on, nothing arrives."""
    topic = await topic_of("stalled").create()
    await topic.send()
    body = """
        thread = app.consumer._thread
        fetcher = thread._consumer._fetcher
        def die():
            for task in (fetcher._fetch_task, *fetcher._pending_tasks):
                task.cancel()
            say("DEAD")
        thread.thread_loop.call_soon_threadsafe(die)
"""
    worker = start(topic.name, body, "stall_s_max=1")
    await worker.until_said("DEAD")
    await topic.send()
    assert await worker.ended() == 75
    text = worker.text()
    assert "stalled-0: nothing was fetched for 1 s from offset 1, the log ends at 2" in text
    assert "error: stalled-0: nothing was fetched for 2 s" in text
    assert not [word for word in ("Traceback", "NoneType") if word in text], text
    again = start(topic.name)
    [said] = await again.until_said("SLICE")
    assert json.dumps(said["offsets"]) == "[1]"
    assert await again.terminate() == 0
