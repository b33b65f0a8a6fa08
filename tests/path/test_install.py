"""streamapp.install in somebody's own app, as it runs: what is promised, and what stays as it was."""

import asyncio
import json
import socket
import urllib.request
from collections import Counter
from uuid import uuid4

import pytest
from faust_apps import run  # noqa: F401
from outside import Outside

from streamapp.topics.enriched import decode
from streamapp.transport import Outgoing, TopicSpec

PROGRAM = """
import json, os, sys
import faust, streamapp
from streamapp.plugin import Reject, stage

app = faust.App("shop-{source}", topic_partitions=2, store="memory://", broker_commit_interval=0.1, {settings})

@stage("loud", version=1, reads=["text"], writes={{"loud": "string"}})
def loud(text):
    if text == "bad":
        raise Reject("loud.bad", "this one is bad")
    return {{"loud": text.upper()}}

def say(word, **what):
    os.write(1, b"\\x1e" + word.encode() + b" " + json.dumps(what).encode() + b"\\n")

{body}
"""
ENRICHED = """
orders = streamapp.install(app, source="orders", stages=[loud])

@app.agent(orders)
async def read(batches):
    async for batch in batches:
        for order in batch.select(["id", "loud"]).to_pylist():
            say("row", **order)
"""
SHORT_SESSION = "broker_session_timeout=3, broker_heartbeat_interval=0.6"


class Log(Outside):
    def __init__(self, url, source="orders"):
        super().__init__(url)
        self.source = source

    async def send(self, numbers, text="hi"):
        bodies = [json.dumps({"id": f"o{n}", "message": text}).encode() for n in numbers]
        records = [Outgoing(b, b"%d" % n) for n, b in enumerate(bodies)]
        await self.producer.send(self.source, records)

    async def ids(self):
        """Of all enriched rows, as often as they are there."""
        rows = [decode(record).rows for record in await self.records(f"{self.source}.enriched")]
        return Counter(id_ for batch in rows for id_ in batch.column("id").to_pylist())

    async def until_ids(self, count, worker):
        async with asyncio.timeout(90):
            while sum((ids := await self.ids()).values()) < count:
                assert worker.process.poll() is None, worker.text()
                await asyncio.sleep(0.05)
        return ids


@pytest.fixture
def url(tmp_path):
    return f"local://{tmp_path}/log"


@pytest.fixture
async def log(url):
    async with Log(url) as opened:
        yield opened


@pytest.fixture
def source():
    """A topic's name that no other test on the same broker has."""
    return f"orders-{uuid4().hex[:8]}"


@pytest.fixture
def app_of(run, tmp_path):  # noqa: F811
    """Write the program; returns how to start it with a broker."""

    def write(body, settings="", source="orders"):
        text = PROGRAM.format(body=body, settings=settings, source=source)
        (tmp_path / "shop.py").write_text(text.replace('"orders"', f'"{source}"'))

        def start(broker, *arguments):
            arguments = arguments or ("worker", "-l", "info", "--without-web")
            return run("-m", "faust", "-A", "shop", *arguments, BROKER_URL=broker)

        return start

    return write


def expected(count):
    return Counter(f"o{n}" for n in range(count))


async def test_a_plain_agent_reads_enriched_events(app_of, url, log):
    worker = await app_of(ENRICHED)(url).ready()
    await log.send(range(20))
    rows = await worker.until_said("row", 20)
    assert {row["loud"] for row in rows} == {"HI"}
    assert Counter(row["id"] for row in rows) == expected(20)
    assert await worker.terminate() == 0


@pytest.mark.parametrize("transport", ["local", "kafka", "kafka+batch"])
async def test_kill_9_loses_nothing_and_repeats_nothing(app_of, transport, url, source, request):
    client = broker = url
    if transport != "local":
        kafka = request.getfixturevalue("kafka")
        client, broker = kafka.url, f"{transport}://{kafka.bootstrap}"
    # A killed member is missed for as long as its session lasts, a minute by default.
    start, count = app_of(ENRICHED, SHORT_SESSION, source), 4000
    async with Log(client, source) as log:
        await log.admin.create(TopicSpec(source, 2, 1 << 20))
        await log.send(range(count))
        for enough in (1, 1500):
            worker = start(broker)
            if enough == 1:
                await worker.ready()
            await log.until_ids(enough, worker)
            await worker.kill()
        worker = await start(broker).ready()
        await log.send(range(count, count + 100))
        assert await log.until_ids(count + 100, worker) == expected(count + 100)
        assert await worker.terminate() == 0


PLAIN = pytest.param("kafka", marks=pytest.mark.soak)  # as slow as Faust is


@pytest.mark.parametrize("transport", [PLAIN, "kafka+batch"])
async def test_members_come_and_go_and_nothing_is_lost(app_of, transport, source, kafka):
    start = app_of(ENRICHED, SHORT_SESSION, source)
    async with Log(kafka.url, source) as log:
        await log.admin.create(TopicSpec(source, 2, 1 << 20))
        broker, sent, workers = f"{transport}://{kafka.bootstrap}", 0, []
        for leaves in (False, False, True, True):
            workers.append(await start(broker).ready())
            await log.send(range(sent, sent := sent + 1000))
            if leaves:
                assert await workers.pop(0).terminate() == 0
            await log.until_ids(sent, workers[-1])
        ids = await log.ids()
        assert set(ids) == set(expected(sent))
        for worker in workers:
            assert await worker.terminate() == 0


@pytest.mark.parametrize("transport", ["kafka", "kafka+batch"])
async def test_our_clients_are_let_in_with_the_app_s_own_login(app_of, transport, source, kafka):
    login = 'faust.SASLCredentials(username="admin", password="admin-secret", mechanism="PLAIN")'
    start = app_of(ENRICHED, f"broker_credentials={login}", source)
    async with Log(kafka.url, source) as log:
        await log.admin.create(TopicSpec(source, 2, 1 << 20))
        await log.send(range(20))
        worker = await start(kafka.sasl_url.replace("kafka+batch", transport)).ready()
        assert await log.until_ids(20, worker) == expected(20)
        assert await worker.terminate() == 0


async def test_a_bad_event_is_a_dead_letter_of_the_app_s_own(app_of, url, log):
    worker = await app_of(ENRICHED)(url).ready()
    await log.send(range(3), "bad")
    await log.send(range(3, 5))
    await worker.until_said("row", 2)
    letters = await log.records("orders.dead")
    assert [json.loads(letter.value)["message"] for letter in letters] == ["bad"] * 3
    assert await worker.terminate() == 0


async def test_an_agent_that_reads_the_source_too_gets_its_records(app_of, url, log):
    body = f"""{ENRICHED}
counts = app.Table("counts", default=int)

@app.agent(app.topic("orders", key_type=str))
async def count(stream):
    async for key, order in stream.items():
        counts[key] += 1
        say("order", id=order["id"], count=counts[key])
"""
    worker = await app_of(body)(url).ready()
    await log.send(range(30))
    orders = await worker.until_said("order", 30)
    rows = await worker.until_said("row", 30)
    assert Counter(order["id"] for order in orders) == expected(30)
    assert Counter(row["id"] for row in rows) == expected(30)
    assert await worker.terminate() == 0


async def test_the_enriched_topic_follows_its_source_not_the_app(app_of, url, log):
    await log.admin.create(TopicSpec("orders", 5, 1 << 20))
    worker = await app_of(ENRICHED)(url).ready()
    topics = await log.admin.topics()
    assert topics["orders.enriched"].partitions == 5
    assert await worker.terminate() == 0


@pytest.mark.parametrize(
    ("there", "why"),
    [
        (
            TopicSpec("orders.enriched", 3, 8 << 20),
            "orders has 2 partitions and orders.enriched has 3",
        ),
        (
            TopicSpec("orders.enriched", 2, 1 << 20),
            "orders.enriched takes records of 1,048,576 bytes",
        ),
        (TopicSpec("orders.dead", 1, 4096), "orders.dead takes records of 4,096 bytes"),
    ],
)
async def test_a_topic_that_does_not_fit_ends_in_two_lines(app_of, url, log, there, why):
    await log.admin.create(TopicSpec("orders", 2, 1 << 20))
    await log.admin.create(there)
    worker = app_of(ENRICHED)(url)
    assert await worker.ended() == 2
    text = worker.text()
    assert "Traceback" not in text
    assert f"error: {why}" in text
    assert "\nfix: " in text


async def test_topics_are_not_declared_where_the_app_forbids_it(app_of, url, log):
    start = app_of(ENRICHED, "topic_allow_declare=False, topic_disable_leader=True")
    worker = start(url)
    assert await worker.ended() == 2
    assert "has no topic orders, and topic_allow_declare is off" in worker.text()
    command = start(url, "streamapp-topics")
    assert await command.ended() == 0
    assert "created  orders.enriched  2 partitions" in command.text()
    assert set(await log.admin.topics()) == {"orders", "orders.enriched", "orders.dead"}


async def test_the_json_twin_has_the_same_rows(app_of, url, log):
    body = ENRICHED.replace("stages=[loud]", "stages=[loud], json_twin=True")
    worker = await app_of(body)(url).ready()
    await log.send(range(20))
    await log.until_ids(20, worker)
    twins = await log.records("orders.enriched.json")
    assert Counter(json.loads(twin.value)["id"] for twin in twins) == expected(20)
    assert {json.loads(twin.value)["loud"] for twin in twins} == {"HI"}
    assert await worker.terminate() == 0


async def test_pages_and_commands(app_of, url, log):
    body = f"""{ENRICHED}
streamapp.install(app, source="reviews", stages=["language"])

@app.page("/healthz")
async def mine(self, request):
    return self.text("mine")
"""
    start = app_of(body)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    worker = await start(url, "worker", "-l", "info", "--web-port", str(port)).ready()
    await log.send(range(6))
    await worker.until_said("row", 6)

    def get(path):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.read().decode()

    ready = json.loads(await asyncio.to_thread(get, "/streamapp/readyz"))
    assert ready == {"assigned.orders": True, "assigned.reviews": True, "not_draining": True}
    metrics = await asyncio.to_thread(get, "/streamapp/metrics")
    assert "streamapp_enrich_events_total 6.0" in metrics
    assert 'streamapp_consumer_lag_records{partition="0",topic="orders"} 0.0' in metrics
    assert await asyncio.to_thread(get, "/healthz") == "mine"
    command = start(url, "streamapp-rows", "--last", "2")
    assert await command.ended() == 0
    rows = [json.loads(line) for line in command.text().splitlines()]
    assert [row["loud"] for row in rows] == ["HI", "HI"]
    none = start(url, "streamapp-rows", "--last", "0")
    assert await none.ended() == 2
    assert "0 is not in the range" in none.text()
    assert await worker.terminate() == 0
