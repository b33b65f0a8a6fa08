"""examples/own_app on every transport: the same tables and the same rows, switched back and forth."""

import asyncio
import json
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from faust_apps import run  # noqa: F401
from outside import Outside

from streamapp.topics.enriched import decode
from streamapp.transport import Outgoing, TopicSpec

pytestmark = pytest.mark.timeout(600)

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_app"
PARTITIONS = 4
CUSTOMERS = ("ana", "ben", "caio")
TEXTS = (
    "I love this wonderful shop",
    "this is terrible and I hate the service",
    "adorei o produto",
)
EACH = 60
STILL_S = 90
#: What came out of the log that was first; of the next the same has to come.
SEEN = {}


class Shop(Outside):
    """The log that the example works on."""

    async def __aenter__(self):
        await super().__aenter__()
        await self.admin.create(TopicSpec("payments", PARTITIONS, 1 << 20))
        return self

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
        """Wait until rows and tables have what ``count`` sales make; meanwhile more must come."""
        seen, deadline = None, 0.0
        while True:
            rows = await self.rows()
            now = len(rows), await self.table("paid"), await self.table("happy")
            if now == (count, paid(count), pytest.approx(happy(rows))):
                return
            if now != seen:
                seen, deadline = now, time.monotonic() + STILL_S
            assert time.monotonic() < deadline, f"at {now} for {STILL_S} s\n{worker.text()}"
            assert worker.process.poll() is None, worker.text()
            await asyncio.sleep(0.3)


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


@pytest.mark.parametrize("log", ["local", "kafka"])
async def test_the_same_rows_on_every_log(log, worker_of, request, tmp_path):
    """On Kafka with a worker on Faust's transport, one on ours, and back."""
    url = f"local://{tmp_path}/log"
    brokers = [url] * 3
    if log == "kafka":
        kafka = request.getfixturevalue("kafka")
        url, plain = kafka.url, f"kafka://{kafka.bootstrap}"
        brokers = [plain, url, plain]
    async with Shop(url) as shop:
        rows = await sell_and_see(shop, brokers, worker_of)
    assert rows == SEEN.setdefault("rows", rows)
