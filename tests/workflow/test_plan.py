"""The Plan: every stage once per batch, and a failed event costs itself alone."""

import json
import re
from collections.abc import Mapping

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.batch import Batch
from streamapp.core.errors import Halt, Refuse, Reject, Retry
from streamapp.core.slice import Record
from streamapp.plugin import BaseStage, StatefulStage, int32, stage
from streamapp.plugin.testing import HashModels, batch_of
from streamapp.workflow import PartitionState, Plan, Workflow


class Length(BaseStage):
    """Fails on texts that say so; counts its calls."""

    name = "length"
    reads = ("text",)
    writes: Mapping = {"length": int32}
    calls = 0

    def enrich(self, batch):
        type(self).calls += 1
        texts = batch.strings("text")
        if "bad" in texts:
            raise Reject("length.bad", "a text is bad", "send better")
        if "crash" in texts:
            raise ValueError("boom")
        if "wait" in texts:
            raise Retry("length.wait", "nobody answers")
        if "halt" in texts:
            raise Halt("length.halt", "impossible")
        return {"length": pa.array([len(text) for text in texts], int32)}


class Count(StatefulStage):
    """How many events there were before, and refuses what ``length`` calls 13."""

    name = "count"
    reads = ("length",)
    writes: Mapping = {"count": int32}

    def enrich(self, batch, state=None):
        counts = []
        for offset, length in zip(batch.offsets().tolist(), batch.column("length"), strict=True):
            count = state.get("all", "events") or 0
            state.put("all", "events", offset, count + 1)
            if length.as_py() == 13:
                raise ValueError("unlucky")
            counts.append(count)
        return {"count": pa.array(counts, int32)}


def opened(*factories, **options):
    names = tuple(factory.name for factory in factories)
    workflow = Workflow(path="w.toml", stages=names)
    made = {factory.name: factory for factory in factories}
    plan = Plan(workflow, HashModels(), factories=made, **options)
    plan.open()
    return plan


def run(plan, texts, state=None, first=0):
    raw = {
        first + i: Record(first + i, 7, b"key", f"raw {i}".encode(), (("h", b"v"),))
        for i in range(len(texts))
    }
    return plan.run(batch_of(first, text=texts), state or PartitionState(10), raw)


def test_stages_run_in_order_and_add_their_columns():
    plan = opened(Count, Length)
    assert [one.name for one in plan.stages] == ["length", "count"]
    assert plan.columns().names == ["length", "count"]
    batch, changes = run(plan, ["a", "bb"])
    assert batch.column("length").to_pylist() == [1, 2]
    assert batch.column("count").to_pylist() == [0, 1]
    assert [entry.value for entry in changes] == [1, 2]
    assert batch.rows.schema.names[-2:] == ["length", "count"]


def test_each_stage_is_called_once_per_batch_and_timed():
    Length.calls = 0
    told = []
    plan = opened(Length, Count, on_stage=lambda *one: told.append(one))
    run(plan, ["a"] * 300)
    assert Length.calls == 1
    assert [(name, rows) for name, rows, _ in told] == [("length", 300), ("count", 300)]
    assert all(seconds >= 0 for *_, seconds in told)


def test_an_empty_batch_gets_its_columns():
    batch, changes = run(opened(Length, Count), [])
    assert len(batch) == 0
    assert batch.rows.schema.field("count").type == int32
    assert list(changes) == []


texts = st.lists(st.sampled_from(["a", "bb", "bad", "crash", "unlucky 13 ch"]), max_size=25)


@given(texts, st.integers(0, 5))
def test_a_failed_event_costs_itself_alone(given_texts, first):
    state = PartitionState(10)
    batch, changes = run(opened(Length, Count), given_texts, state, first)
    good = [i for i, text in enumerate(given_texts) if text in {"a", "bb"}]
    assert batch.offsets().tolist() == [first + i for i in good]
    assert batch.column("length").to_pylist() == [len(given_texts[i]) for i in good]
    assert batch.column("count").to_pylist() == list(range(len(good)))
    assert batch.range == (batch.range.topic, 0, first, first + len(given_texts))
    rejects = [reject.source_offset - first for reject in batch.rejects]
    assert rejects == [i for i in range(len(given_texts)) if i not in good]
    for reject in batch.rejects:
        assert reject.value == f"raw {reject.source_offset - first}".encode()
        assert reject.headers == (("h", b"v"),)
    # What a failed attempt put is forgotten.
    assert [entry.source_offset - first for entry in changes] == good
    entries = state.snapshot()
    assert [entry.value for entry in entries] == ([len(good)] if good else [])


def test_rejects_say_who_and_why():
    batch, _ = run(opened(Length), ["bad", "a", "crash"])
    found = [(one.stage, one.code, one.reason) for one in batch.rejects]
    assert found == [
        ("length", "length.bad", "a text is bad (send better)"),
        ("length", "stage.error", "ValueError: boom"),
    ]


def test_rejects_of_decoding_are_kept_in_order():
    batch = batch_of(text=["bad", "a"])
    earlier = run(opened(Length), ["a", "a", "bad"])[0].rejects
    raw = {0: Record(0, 7, None, b"raw")}
    result, _ = opened(Length).run(Batch(batch.rows, batch.range, earlier), PartitionState(1), raw)
    assert [reject.source_offset for reject in result.rejects] == [0, 2]


@pytest.mark.parametrize(("text", "error"), [("wait", Retry), ("halt", Halt)])
def test_retry_and_halt_go_up_and_change_nothing(text, error):
    state = PartitionState(10)
    plan = opened(Length, Count)
    run(plan, ["a"], state)
    before = state.snapshot()
    with pytest.raises(error):
        run(plan, ["a", text], state, first=1)
    assert state.snapshot() == before


def test_how_a_batch_is_cut_does_not_matter():
    given_texts = ["a", "bad", "bb", "unlucky 13 ch", "a", "crash", "bb"]
    whole, changes = run(opened(Length, Count), given_texts)
    state, parts = PartitionState(10), []
    for i, text in enumerate(given_texts):
        parts.append(run(opened(Length, Count), [text], state, first=i))
    assert whole.column("count").to_pylist() == [
        value for batch, _ in parts for value in batch.column("count").to_pylist()
    ]
    assert list(changes) == [entry for _, part in parts for entry in part]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({}, "columns"),
        ({"x": pa.array([1], int32), "y": pa.array([1])}, "columns"),
        ({"x": pa.array([1], pa.int64())}, "int64"),
        ({"x": pa.array([1, 2], int32)}, "2 values"),
        ({"x": [1]}, "list"),
    ],
)
def test_other_columns_than_declared_halt(columns, says):
    class Wrong(BaseStage):
        name = "wrong"
        writes: Mapping = {"x": int32}

        def enrich(self, batch):
            return columns

    with pytest.raises(Halt, match=says) as caught:
        run(opened(Wrong), ["a"])
    assert "'wrong'" in caught.value.message


def test_provenance_is_canonical_and_names_models():
    class Modelled(BaseStage):
        name = "modelled"
        version = 3

        def open(self, models):
            self.models = (models.embedder().ref,)

    plan = opened(Modelled)
    sha256 = HashModels().embedder().ref.sha256
    assert json.loads(plan.provenance()) == [
        {"stage": "modelled", "version": 3, "models": [f"embed/hashed-words@1+{sha256}"]}
    ]
    assert plan.provenance() == opened(Modelled).provenance()


def test_when_one_cannot_open_the_others_are_closed():
    closed = []

    class First(BaseStage):
        name = "first"

        def close(self):
            closed.append(self.name)

    class Second(First):
        name = "second"

        def open(self, models):
            raise Refuse("models.not_pulled", "no weights", "pull them")

    with pytest.raises(Refuse, match="no weights"):
        opened(First, Second)
    assert closed == ["first", "second"]


def test_close_is_once():
    closed = []

    class Closing(BaseStage):
        name = "closing"

        def close(self):
            closed.append(self.name)

    plan = opened(Closing)
    plan.close()
    plan.close()
    assert closed == ["closing"]
    assert not plan.is_open


def test_a_slow_stage_is_reported(caplog):
    class Slow(BaseStage):
        name = "slow"

        def enrich(self, batch):
            clock.at += 60
            return {}

    class Clock:
        at = 0.0

        def monotonic_s(self):
            return self.at

    clock = Clock()
    run(opened(Slow, clock=clock), ["a"])
    assert "stage slow took 60.0 s for 1 row" in caplog.text


def test_columns_are_known_before_anything_is_loaded():
    workflow = Workflow(path="w.toml", stages=("embed",))
    plan = Plan(workflow, HashModels(24))
    assert not plan.is_open
    assert plan.embedding_dim() == 24
    assert opened(Length).embedding_dim() == 0


def test_a_function_is_a_stage():
    @stage("words", version=1, reads=["text"], writes={"words": "int32"})
    def words(text):
        return {"words": len(text.split())}

    words.name = "words"
    batch, _ = run(opened(words), ["a b", None])
    assert batch.column("words").to_pylist() == [2, None]


def test_a_function_that_reads_nothing_is_called_once_a_row():
    @stage("dice", version=1, reads=[], writes={"eyes": "int32"})
    def dice():
        return {"eyes": 4}

    dice.name = "dice"
    batch, _ = run(opened(dice), ["a", None, "c"])
    assert batch.column("eyes").to_pylist() == [4, 4, 4]
    assert not batch.rejects


@pytest.mark.parametrize(
    ("columns", "says", "fix"),
    [
        ({"reads": "text"}, "reads='text' is no list of columns", "write reads=['text']"),
        ({"reads": None}, "reads=None is no list", "reads=['text']"),
        ({"writes": "words"}, "writes='words' does not say the types", "{'words': \"int32\"}"),
        ({"writes": ["words"]}, "writes=['words'] does not say the types", "int32"),
        ({"writes": {"words": int}}, "column 'words' has unknown type <class 'int'>", "Arrow type"),
    ],
)
def test_columns_of_another_shape_are_refused_when_declared(columns, says, fix):
    with pytest.raises(Refuse) as caught:
        stage("words", version=1, **{"reads": ["text"], "writes": {"words": "int32"}, **columns})
    assert says in caught.value.message
    assert fix in caught.value.fix


@pytest.mark.parametrize("columns", [{"reads": "text"}, {"writes": ["length"]}])
def test_columns_of_another_shape_are_refused_when_a_class_is_made(columns):
    wrong = type("Wrong", (Length,), columns)
    with pytest.raises(Refuse, match="'length': (reads='text' is no list|.+ not say the types)"):
        opened(wrong)


@pytest.mark.parametrize("method", ["__init__", "declare", "open"])
def test_a_stage_that_fails_before_the_first_batch_is_refused_with_the_place(method):
    def fail(*_):
        raise KeyError("where")

    broken = type("Broken", (Length,), {method: fail})
    with pytest.raises(Refuse) as caught:
        opened(broken)
    line = fail.__code__.co_firstlineno + 1
    assert "stage 'length' fails in " + method in caught.value.message
    assert f"KeyError: 'where' (test_plan.py:{line})" in caught.value.message
    assert caught.value.fix


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (["words"], "stage 'words' returned list, not a dict of its columns words, chars"),
        (None, "returned NoneType, not a dict"),
        ({"word": 1, "chars": 2}, "returned column 'word', .+ .did you mean 'words'"),
        ({"words": 1, "chars": 2, "zzz": 3}, "returned column 'zzz', .+ .it declares words, chars"),
        ({"words": 1, "chars": 2, 3: 3}, "returned column 3, "),
        ({"words": 1}, "left out column 'chars' .return None"),
    ],
)
def test_a_function_that_returns_other_columns_rejects_with_their_names(result, why):
    @stage("words", version=1, reads=["text"], writes={"words": "int32", "chars": "int32"})
    def words(text):
        return result if text == "odd" else {"words": 1, "chars": None}

    words.name = "words"
    batch, _ = run(opened(words), ["odd", "b", None])
    assert batch.column("words").to_pylist() == [1, None]
    assert batch.column("chars").to_pylist() == [None, None]
    [reject] = batch.rejects
    assert reject.code == "stage.result"
    assert re.search(why, reject.reason)
