"""examples/own_app on every transport: the same tables and the same rows, switched back and forth."""

import asyncio
import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from faust_apps import run  # noqa: F401

from streamapp.topics.enriched import decode
from streamapp.transport import Outgoing, TopicSpec, open_admin, open_producer, open_reader

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_app"
PARTITIONS = 4
CUSTOMERS = ("ana", "ben", "caio")
TEXTS = (
    "I love this wonderful shop",
    "this is terrible and I hate the service",
    "adorei o produto",
)
EACH = 60
WAIT_S = 90


class Shop:
    """The log that the example works on, from outside."""

    def __init__(self, url):
        self._clients = open_admin(url), open_producer(url), open_reader(url)
        self.admin, self.producer, self.reader = self._clients

    async def __aenter__(self):
        for client in self._clients:
            await client.start()
        await self.admin.create(TopicSpec("payments", PARTITIONS, 1 << 20))
        return self

    async def __aexit__(self, *_):
        for client in self._clients:
            await client.stop()

    async def sell(self, first, count):
        """Payments and reviews number ``first`` and on, of all customers in turn."""
        numbers = range(first, first + count)
        payments = [(n, {"cents": n}) for n in numbers]
        reviews = [(n, {"id": f"r{n}", "message": TEXTS[n % 5 % 3]}) for n in numbers]
        for topic, bodies in (("payments", payments), ("reviews", reviews)):
            await self.producer.send(
                topic,
                [
                    Outgoing(json.dumps(body).encode(), CUSTOMERS[n % 3].encode())
                    for n, body in bodies
                ],
            )

    async def records(self, topic):
        if topic not in await self.admin.topics():
            return []
        found = []
        for partition in range(PARTITIONS):
            at, end = await self.reader.bounds(topic, partition)
            while at < end:
                slice_ = await self.reader.read(topic, partition, at)
                found += slice_.records
                at = max(slice_.range.next, at + 1)
        return found

    async def rows(self):
        """Of the enriched topic, as often as each is there."""
        found = []
        for record in await self.records("reviews.enriched"):
            found += decode(record).rows.select(["id", "language", "sentiment"]).to_pylist()
        return found

    async def table(self, name):
        """What the table's changelog says last of each key."""
        last = defaultdict(float)
        for record in await self.records(f"shop-{name}-changelog"):
            last[json.loads(record.key)] = json.loads(record.value)
        return dict(last)

    async def until_sold(self, worker, count):
        """Wait until rows and tables have what ``count`` sales make."""
        async with asyncio.timeout(WAIT_S):
            while not await self.has_sold(count):
                assert worker.process.poll() is None, worker.text()
                await asyncio.sleep(0.1)

    async def has_sold(self, count):
        rows = await self.rows()
        if len(rows) < count or await self.table("paid") != paid(count):
            return False
        return await self.table("happy") == pytest.approx(happy(rows))


def paid(count):
    total = Counter()
    for number in range(count):
        total[CUSTOMERS[number % 3]] += number
    return dict(total)


def happy(rows):
    """The other table, from the rows themselves."""
    total = defaultdict(float)
    for row in sorted(rows, key=lambda row: int(row["id"][1:])):
        total[CUSTOMERS[int(row["id"][1:]) % 3]] += row["sentiment"] or 0
    return dict(total)


@pytest.fixture
def worker_of(run):  # noqa: F811
    def start(broker):
        arguments = ("-m", "faust", "-A", "app", "worker", "-l", "info", "--without-web")
        return run(*arguments, path=[EXAMPLE], BROKER_URL=broker)

    return start


async def sell_and_see(shop, brokers, worker_of):
    """A worker per broker URL, one after the other on the same log; what came out in the end."""
    for part, broker in enumerate(brokers):
        worker = worker_of(broker)
        await worker.ready()
        await shop.sell(part * EACH, EACH)
        await shop.until_sold(worker, (part + 1) * EACH)
        assert await worker.terminate() == 0
    rows = await shop.rows()
    assert Counter(row["id"] for row in rows) == Counter(
        f"r{n}" for n in range(len(brokers) * EACH)
    )
    assert {row["language"] for row in rows} == {"en", "pt"}
    return {row["id"]: row for row in rows}


async def test_on_the_embedded_log(worker_of, tmp_path):
    url = f"local://{tmp_path}/log"
    async with Shop(url) as shop:
        await sell_and_see(shop, [url] * 2, worker_of)


async def test_from_kafka_to_kafka_batch_and_back(worker_of, kafka_broker, tmp_path):
    kafka = kafka_broker().start()
    plain, batch = f"kafka://{kafka.bootstrap}", f"kafka+batch://{kafka.bootstrap}"
    async with Shop(kafka.url) as shop:
        on_kafka = await sell_and_see(shop, [plain, batch, plain], worker_of)
    embedded = f"local://{tmp_path}/log"
    async with Shop(embedded) as shop:
        assert await sell_and_see(shop, [embedded] * 3, worker_of) == on_kafka
