"""What is unsure is asked about, and every ask gets its answer, whatever the model does."""

import asyncio
import json

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from clients import member_log, specs_of_asks

from streamapp.agents.asking.answers import rows_of
from streamapp.agents.asking.asker import GROUP, WINDOW, Answering, Asker
from streamapp.agents.asking.asks import Ask, Asking, asks_to, shape_of
from streamapp.agents.beside import beside
from streamapp.core.batch import Batch
from streamapp.core.errors import Refuse, Reject, Retry
from streamapp.core.metrics import Metrics
from streamapp.core.settings import Settings
from streamapp.models.llm import Answer
from streamapp.plugin.testing import batch_of
from streamapp.topics import catalogue
from streamapp.topics.catalogue import ANSWERS, ASK
from streamapp.transport.clients import Outgoing
from streamapp.workflow import Workflow

COLUMNS = pa.schema([("intent", pa.string()), ("intent_confidence", pa.float32())])
LABELS = {"refund": ("money back",), "cancel": ()}


def batch(**columns):
    rows = len(next(iter(columns.values())))
    if "intent_confidence" in columns:
        columns["intent_confidence"] = np.array(columns["intent_confidence"], np.float32)
    return batch_of(first=10, **{"text": [f"text {n}" for n in range(rows)], **columns})


def asked(events, *, below=None, types=False):
    """The asks of a batch."""
    [(topic, records)] = asks_to(Asking(below, types), COLUMNS, 1 << 18)(events)
    assert topic == ASK
    return [msgspec.json.decode(record.value, type=Ask) for record in records]


class TestAsks:
    def test_about_unknown_and_less_sure_intents(self):
        events = batch(
            intent=["cancel", "unknown", "cancel", None, "unknown"],
            intent_confidence=[0.9, 0.95, 0.2, 0.1, 0.1],
            text=["a", "b", "c", None, "  "],
        )
        asks = asked(events, below=0.5)
        assert [(one.offset, one.text, one.local) for one in asks] == [
            (11, "b", "unknown"),
            (12, "c", "cancel"),
        ]
        assert asks[1].confidence == pytest.approx(0.2)
        assert (asks[0].topic, asks[0].partition, asks[0].id) == ("events.raw", 0, "11")
        assert [one.offset for one in asked(events, below=0)] == [11]

    def test_about_types_by_names_of_fields_and_no_values(self):
        events = batch(
            type=["event", "event", "Order"],
            payload=['{"total":7,"to":{"zip":1},"card":"4111"}', "{}", '{"a":1}'],
            intent=["cancel"] * 3,
            intent_confidence=[1.0] * 3,
        )
        [ask] = asked(events, types=True)
        assert ask.fields == {"card": "string", "to": "object", "total": "integer"}
        assert (ask.kind, ask.text, ask.local) == ("type", "", "event")

    def test_shapes_are_bounded(self):
        wide = {f"k{n}": n for n in range(500)} | {"x" * 300: 1}
        assert len(shape_of(json.dumps(wide))) == 64

    def test_a_long_text_is_cut_and_an_empty_batch_asks_nothing(self):
        events = batch(intent=["unknown"], intent_confidence=[0.1], text=["x" * 10**6])
        [ask] = asked(events, below=0)
        assert len(ask.text) == 4000
        empty = Batch(events.rows.slice(0, 0), events.range)
        assert asked(empty, below=0, types=True) == []

    def test_a_workflow_that_makes_no_intents_is_refused(self):
        with pytest.raises(Refuse, match="no stage writes intent") as error:
            asks_to(Asking(0.5), pa.schema([("embedding", pa.float32())]), 1000)
        assert error.value.code == "workflow.ask"

    @pytest.mark.parametrize(
        ("url", "below", "publishes"),
        [("", 0.0, False), ("http://h/v1", None, False), ("http://h/v1", 0.0, True)],
    )
    def test_only_where_a_model_is_declared_and_the_workflow_wants_it(self, url, below, publishes):
        workflow = Workflow(path="w", stages=("intent",), ask_below=below)
        declared = catalogue.load(None, catalogue.ASKS)
        twin = beside(Settings(llm_base_url=url), workflow, COLUMNS, declared)
        assert (twin is not None) == publishes


class Model:
    """Answers by the last word; what it raises or waits for is set by text."""

    def __init__(self):
        self.acts = {}
        self.asked = []

    async def ask(self, question):
        text = question.user.splitlines()[1]
        self.asked.append(text)
        act = self.acts.get(text)
        if isinstance(act, asyncio.Event):
            await act.wait()
        elif act is not None:
            raise act
        if question.name == "event_type":
            return Answer(value={"type": "OrderPlaced"}, model="m", mode="tool")
        return Answer(
            value={"intent": text.split()[-1], "confidence": 80},
            model="m",
            mode="tool",
            tokens_in=5,
            tokens_out=2,
        )


@pytest.fixture
async def log(tmp_path):
    async with member_log(f"local://{tmp_path}/log", specs_of_asks()) as log:
        yield log


@pytest.fixture
def model():
    return Model()


@pytest.fixture
async def asker_of(log, model):
    """Start an asker; all are stopped at the end."""
    started = []

    def start():
        metrics = Metrics()
        asker = Asker(log, Answering(model, LABELS, metrics), metrics)
        asker.metrics = metrics
        task = asyncio.create_task(asker.run())
        started.append((asker, task))
        return asker

    yield start
    for asker, task in started:
        await asker.stop(5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def send(log, *asks, partition=0):
    records = [
        Outgoing(one if isinstance(one, bytes) else msgspec.json.encode(one), partition=partition)
        for one in asks
    ]
    await log.producer.send(ASK, records)


def ask(offset, text="please refund", **given):
    given = {"kind": "intent", "local": "unknown", "confidence": 0.25} | given
    return Ask(topic="events.raw", partition=0, offset=offset, id=f"e{offset}", text=text, **given)


async def answers(log, count):
    """The newest rows, once there are so many."""
    async with asyncio.timeout(20):
        while (await log.reader.bounds(ANSWERS, 0))[1] < count:
            await asyncio.sleep(0.01)
    rows = rows_of(await log.reader.read(ANSWERS, 0, 0)).to_pylist()
    assert len(rows) == count
    return rows


async def committed(log, offset, partition=0):
    async with asyncio.timeout(20):
        while (await log.admin.committed(GROUP)).get((ASK, partition)) != offset:
            await asyncio.sleep(0.01)


async def test_an_ask_is_answered(log, model, asker_of):
    asker = asker_of()
    await send(log, ask(7))
    [row] = await answers(log, 1)
    said = {name: row[name] for name in ("source_topic", "source_offset", "id", "kind", "answer")}
    assert said == {
        "source_topic": "events.raw",
        "source_offset": 7,
        "id": "e7",
        "kind": "intent",
        "answer": "refund",
    }
    assert (row["source"], row["local"], row["model"], row["prompt"]) == (
        "llm",
        "unknown",
        "m",
        "intent@1",
    )
    assert row["confidence"] == pytest.approx(0.8)
    assert (row["tokens_in"], row["tokens_out"], row["reason"]) == (5, 2, None)
    await committed(log, 1)
    assert asker.ready == {"assigned": True}


async def test_a_type_is_named(log, asker_of):
    asker_of()
    await send(log, ask(1, "", kind="type", local="event", fields={"total": "number"}))
    [row] = await answers(log, 1)
    assert (row["kind"], row["answer"], row["local"]) == ("type", "OrderPlaced", "event")


@pytest.mark.parametrize(
    "error",
    [Retry("llm.circuit", "away"), Reject("llm.answer", "no"), Refuse("llm.endpoint", "401")],
)
async def test_without_an_answer_the_local_one_is_written_down_as_it_was(
    log, model, asker_of, error
):
    model.acts["x cancel"] = error
    asker = asker_of()
    await send(log, ask(1, "x cancel", local="cancel"), ask(2))
    first, second = await answers(log, 2)
    assert (first["source"], first["answer"], first["confidence"]) == ("fallback", "cancel", 0.25)
    assert first["reason"].startswith(error.code)
    assert (second["source"], second["answer"]) == ("llm", "refund")
    text = asker.metrics.text().decode()
    assert 'streamapp_asks_total{kind="intent",result="fallback"} 1.0' in text
    assert 'streamapp_asks_total{kind="intent",result="llm"} 1.0' in text


async def test_what_is_no_ask_is_passed_over(log, asker_of):
    asker_of()
    await send(log, b"\xff", b"[]", b'{"kind": "sql"}', ask(1))
    [row] = await answers(log, 1)
    assert row["source_offset"] == 1
    await committed(log, 4)


async def test_answers_are_published_in_order_and_committed_behind_them(log, model, asker_of):
    """One that takes long holds back what is behind it, and no other partition."""
    held = model.acts["slow refund"] = asyncio.Event()
    asker_of()
    await send(log, ask(0, "slow refund"), *(ask(n, f"{n} cancel") for n in range(1, 6)))
    await send(log, ask(9), partition=1)
    [row] = await answers(log, 1)
    assert row["source_offset"] == 9
    await committed(log, 1, partition=1)
    assert (await log.admin.committed(GROUP)).get((ASK, 0)) is None
    assert len(model.asked) == 7  # side by side
    held.set()
    rows = await answers(log, 7)
    assert [one["source_offset"] for one in rows[1:]] == list(range(6))
    await committed(log, 6)


async def test_no_more_are_under_way_than_the_window(log, model, asker_of):
    held = model.acts["slow refund"] = asyncio.Event()
    asker_of()
    await send(log, ask(0, "slow refund"), *(ask(n, f"{n} cancel") for n in range(1, WINDOW + 20)))
    async with asyncio.timeout(20):
        while len(model.asked) < WINDOW:
            await asyncio.sleep(0.01)
    await send(log, ask(99), partition=1)
    await answers(log, 1)  # the lanes went round meanwhile
    assert len(model.asked) == WINDOW + 1
    held.set()
    assert len(await answers(log, WINDOW + 21)) == WINDOW + 21


async def test_the_next_one_goes_on_where_it_was_committed(log, model, asker_of):
    first = asker_of()
    await send(log, ask(0), ask(1))
    await answers(log, 2)
    await committed(log, 2)
    await first.stop(5)
    await send(log, ask(2))
    asker_of()
    rows = await answers(log, 3)
    assert [one["source_offset"] for one in rows] == [0, 1, 2]


async def test_one_that_is_stopped_publishes_what_is_under_way(log, model, asker_of):
    held = model.acts["slow refund"] = asyncio.Event()
    asker = asker_of()
    await send(log, ask(0, "slow refund"))
    async with asyncio.timeout(20):
        while not model.asked:
            await asyncio.sleep(0.01)
    stopping = asyncio.create_task(asker.stop(10))
    await asyncio.sleep(0.05)
    held.set()
    await stopping
    assert len(await answers(log, 1)) == 1
    assert (await log.admin.committed(GROUP))[ASK, 0] == 1


async def test_two_share_the_partitions_and_answer_each_once(log, model, asker_of):
    asker_of()
    asker_of()
    for n in range(40):
        await send(log, ask(n, f"{n} cancel"), partition=n % 4)
    rows = await answers(log, 40)
    assert {one["source_offset"] for one in rows} == set(range(40))


async def test_a_workflow_without_labels_falls_back(log):
    metrics = Metrics()
    done = await Answering(Model(), {}, metrics).of(ask(1))
    assert (done.source, done.answer) == ("fallback", "unknown")
    assert "no labels" in done.reason
