"""From the raw log through a worker and a language model to a view of the store, whatever fails."""

import asyncio
import json

import pytest
from fleet import Fleet
from llm_server import LlmServer
from machine import free_ports, wait_for

from streamapp.topics.catalogue import RAW
from streamapp.transport import Outgoing, open_producer

_STAGE = '''
import pyarrow as pa
from streamapp.plugin import BaseStage, float32, string

class Guess(BaseStage):
    """Sure of what it was told, of nothing else."""

    name = "guess"
    reads = ("text",)
    writes = {"intent": string, "intent_confidence": float32, "intent_source": string}
    labels = ("refund", "cancel")

    def enrich(self, batch):
        sure = ["sure" in (text or "") for text in batch.strings("text")]
        return {
            "intent": pa.array(["cancel" if one else "unknown" for one in sure], string),
            "intent_confidence": pa.array([0.9 if one else 0.1 for one in sure], float32),
            "intent_source": pa.array(["prototype"] * len(sure), string),
        }
'''
_WORKFLOW = """
[workflow]
stages = ["vectors", "guess"]
ask_below = 0.5
ask_types = true

[stages.vectors]
seconds = 0
hold = "{hold}"
"""


@pytest.fixture
def llm():
    server = LlmServer().start()
    yield server
    server.stop()


@pytest.fixture(params=["duckdb", pytest.param("parquet", marks=pytest.mark.soak)])
def fleet(request, tmp_path, llm):
    home = tmp_path / "fleet"
    home.mkdir()
    fleet = Fleet(
        home,
        f"local://{tmp_path / 'log'}",
        stage_s=0,
        store=request.param,
        parquet_flush_ms_max=50,
        llm_base_url=llm.url,
        llm_retry_s=1,
        llm_answer_s_max=1,
    )
    site = home / "site"
    (site / "guess_stage.py").write_text(_STAGE)
    points = site / "promised_stages-1.dist-info" / "entry_points.txt"
    points.write_text(points.read_text() + "guess = guess_stage:Guess\n")
    (home / "topics" / "workflow.toml").write_text(_WORKFLOW.format(hold=fleet.hold))
    fleet.ports["ask"] = free_ports(1)[0]
    yield fleet
    fleet.stop()


async def send(fleet, first, count, **more):
    producer = open_producer(fleet.broker)
    await producer.start()
    for n in range(first, first + count):
        text = f"{'sure' if n % 2 else 'refund maybe'} {n}"
        event = {"id": f"e{n}", "message": text, "conversation": f"c{n % 5}", "type": "m", **more}
        await producer.send(RAW, [Outgoing(json.dumps(event).encode(), f"c{n % 5}".encode())])
    await producer.stop()


def rows(fleet, sql):
    return [tuple(row.values()) for row in fleet.rows(sql)]


def until(fleet, sql, expected):
    wait_for(lambda: rows(fleet, sql) == expected, f"{sql} to be {expected}", 30)


BY_SOURCE = "SELECT intent_source, intent, count(*)::INT FROM answered GROUP BY ALL ORDER BY ALL"


def test_what_is_unsure_is_answered_and_an_outage_stalls_nothing(fleet, llm):
    fleet.start("worker", "store", "ask")
    asyncio.run(send(fleet, 0, 20))
    until(fleet, BY_SOURCE, [("llm", "refund", 10), ("prototype", "cancel", 10)])
    assert len(llm.messages) == 10

    llm.stop()  # killed: events flow on, and intents fall back
    asyncio.run(send(fleet, 20, 20))
    until(
        fleet,
        BY_SOURCE,
        [("fallback", "unknown", 10), ("llm", "refund", 10), ("prototype", "cancel", 20)],
    )
    asks = {source: fleet.metric("ask", f'streamapp_asks_total{{kind="intent",result="{source}"}}')
            for source in ("llm", "fallback")}  # fmt: skip
    assert asks == {"llm": 10, "fallback": 10}

    fleet.kill("ask", "store")  # what was answered is stored once, whoever died
    fleet.start("store", "ask")
    llm.start()
    asyncio.run(send(fleet, 40, 2, type=None, total=3))
    until(fleet, "SELECT type, type_source, count(*)::INT FROM answered WHERE type_source IS NOT NULL GROUP BY ALL",
          [("OrderPlaced", "llm", 2)])  # fmt: skip
    repeated = "SELECT log_offset FROM answers GROUP BY ALL HAVING count(*) > 1"
    assert rows(fleet, repeated) == []
    assert rows(fleet, "SELECT count(*)::INT FROM answered") == [(42,)]
    assert fleet.terminate("worker", "store", "ask") == {0}


#: What a server does instead of answering.
FAILURES = [
    "hang",
    "cut",
    "reset",
    b"<html>",
    500,
    (429, {"Retry-After": "600"}, {}),
    {"content": '{"intent": "ref'},
]


@pytest.mark.soak
def test_whatever_the_model_does_events_flow_and_counts_are_right(fleet, llm):
    """One failure after the other; between two of them all is well, so the circuit stays closed."""
    fleet.start("worker", "store", "ask")
    asyncio.run(send(fleet, 0, 2))
    llm_count, fallbacks = 1, 0
    by_llm = "SELECT count(*)::INT FROM answered WHERE intent_source = 'llm'"
    until(fleet, by_llm, [(llm_count,)])
    for n, act in enumerate(FAILURES, 1):
        llm.always = act
        asyncio.run(send(fleet, 4 * n, 2))
        fallbacks += 1
        until(fleet, "SELECT count(*)::INT FROM answers WHERE source = 'fallback'", [(fallbacks,)])
        llm.let.set()
        llm.always = None
        if isinstance(act, tuple):  # until then nobody asks
            fleet.kill("ask")
            fleet.start("ask")
        asyncio.run(send(fleet, 4 * n + 2, 2))
        llm_count += 1
        until(fleet, by_llm, [(llm_count,)])
        llm.let.clear()
    expected = [("fallback", fallbacks), ("llm", llm_count), ("prototype", fallbacks + llm_count)]
    until(
        fleet,
        "SELECT intent_source, count(*)::INT FROM answered GROUP BY ALL ORDER BY ALL",
        expected,
    )
    assert fleet.terminate("worker", "store", "ask") == {0}
