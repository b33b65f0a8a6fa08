"""A language model fails in every way it can: each ask gets an answer, and the counts are right."""

import asyncio
from contextlib import AsyncExitStack

import msgspec
import pytest
from clients import member_log, specs_of_asks
from llm_server import LlmServer, completion

from streamapp.agents.asking.answers import rows_of
from streamapp.agents.asking.asker import Answering, Asker
from streamapp.agents.asking.asks import Ask
from streamapp.core.metrics import Metrics
from streamapp.models.llm import Cache, Endpoint, Llm
from streamapp.models.llm.breaker import Breaker, Circuit
from streamapp.topics.catalogue import ANSWERS, ASK
from streamapp.transport.clients import Outgoing

LABELS = {"refund": (), "cancel": ()}
#: What a server does, and why its asks fall back.
FAILURES = {
    "hangs": ("hang", "llm.unanswered"),
    "dies within a body": ("cut", "llm.unanswered"),
    "resets": ("reset", "llm.unanswered"),
    "answers garbage": (b"<html>\xff", "llm.unanswered"),
    "500": (500, "llm.unanswered"),
    "429 with Retry-After": ((429, {"Retry-After": "600"}, {}), "llm.unanswered"),
    "half a JSON": ({"content": '{"intent": "ref'}, "llm.answer"),
    "another label": ({"content": '{"intent": "murder", "confidence": 90}'}, "llm.answer"),
    "half a channel": ({"content": "<|channel|>analysis"}, "llm.answer"),
    "401": (401, "llm.endpoint"),
}


class World:
    """A log, an asker on it, and the language model that it asks."""

    def __init__(self, log, server, metrics, breaker):
        self.log, self.server, self.metrics, self.breaker = log, server, metrics, breaker
        self.asks = 0

    async def asked(self, *texts):
        """Put asks about these texts; their rows, once all are answered."""
        first = self.asks
        for n, text in enumerate(texts, first):
            ask = Ask(
                kind="intent", topic="events.raw", partition=0, offset=n, id=f"e{n}", text=text
            )
            await self.log.producer.send(ASK, [Outgoing(msgspec.json.encode(ask), partition=0)])
        self.asks += len(texts)
        async with asyncio.timeout(20):
            while (await self.log.reader.bounds(ANSWERS, 0))[1] < self.asks:
                await asyncio.sleep(0.01)
        rows = rows_of(await self.log.reader.read(ANSWERS, 0, first)).to_pylist()
        assert [row["source_offset"] for row in rows] == list(range(first, self.asks))
        return rows

    def count(self, result):
        text = self.metrics.text().decode()
        sample = f'streamapp_asks_total{{kind="intent",result="{result}"}} '
        found = [line for line in text.splitlines() if line.startswith(sample)]
        return int(float(found[0].rpartition(" ")[2])) if found else 0


@pytest.fixture
async def world(tmp_path):
    server, metrics = LlmServer().start(), Metrics()
    async with AsyncExitStack() as stack:
        stack.callback(server.stop)
        log = await stack.enter_async_context(
            member_log(f"local://{tmp_path}/log", specs_of_asks())
        )
        breaker = Breaker(3, 3600)
        endpoint = Endpoint(server.url, answer_s_max=1, retry_s=0)
        cache = Cache(tmp_path / "answers.sqlite", 100)
        llm = Llm(endpoint, metrics, cache, breaker=breaker)
        stack.push_async_callback(llm.close)
        asker = Asker(log, Answering(llm, LABELS, metrics), metrics)
        running = asyncio.create_task(asker.run())
        stack.callback(running.cancel)
        stack.push_async_callback(asker.stop, 5)
        yield World(log, server, metrics, breaker)


@pytest.mark.parametrize(("act", "code"), FAILURES.values(), ids=FAILURES)
async def test_each_failure_costs_its_own_asks(world, act, code):
    [before] = await world.asked("a refund")
    world.server.always = act
    [row] = await world.asked("another refund")
    world.server.let.set()
    assert (before["source"], before["answer"]) == ("llm", "refund")
    assert (row["source"], row["answer"]) == ("fallback", "unknown")
    assert row["reason"].startswith(code)
    [kept] = await world.asked("a  refund")  # what is known needs no server
    assert kept["source"] == "llm"
    assert (world.count("llm"), world.count("fallback")) == (2, 1)
    if act[0] != 429 if isinstance(act, tuple) else True:
        world.server.always = None
        [after] = await world.asked("one more refund")
        assert after["source"] == "llm"


async def test_an_answer_under_a_name_without_end_is_one(world):
    def endless(body):
        return completion(
            {"content": '{"intent": "refund", "confidence": 70}'}, model="m" * 900_000
        )

    world.server.script = [endless]
    [row] = await world.asked("a refund")  # its record fits the topic
    assert (row["source"], row["answer"], row["model"]) == ("llm", "refund", "m" * 200)


async def test_an_outage_costs_a_few_calls_and_every_ask_is_answered(world):
    world.server.always = 500
    rows = await world.asked(*(f"refund {n}" for n in range(40)))
    assert {row["source"] for row in rows} == {"fallback"}
    assert world.count("fallback") == 40
    assert world.breaker.state is Circuit.OPEN
    # The three that opened it, and those that were under way by then.
    assert 3 <= len(world.server.calls) <= 3 + 4
    circuit = [row for row in rows if row["reason"].startswith("llm.circuit")]
    assert len(circuit) == 40 - len(world.server.calls)


async def test_a_server_that_dies_and_comes_back(world):
    world.server.stop()
    [row] = await world.asked("refund")
    assert row["source"] == "fallback"
    world.server.start()
    [row] = await world.asked("refund again")
    assert (row["source"], row["answer"]) == ("llm", "refund")
