"""Routed labels and a shadow embedder, from the log to SQL in both stores: what the page asks."""

import hashlib

import msgspec
import numpy as np
import pytest
from sinks import DuckSink, ParquetSink

from streamapp.compose import registry
from streamapp.core.config import load
from streamapp.core.errors import Reject
from streamapp.core.route import Event
from streamapp.models.routing import reports
from streamapp.models.routing.epoch import Epochs
from streamapp.models.routing.score import choose
from streamapp.models.routing.spec import Canary, Facts, RouteSpec
from streamapp.models.routing.standing import KIND
from streamapp.models.sample import TEXTS
from streamapp.plugin import ModelRef
from streamapp.plugin.testing import HashClassifier, HashEmbedder, HashModels
from streamapp.sink import StoredRecord
from streamapp.stages.classify import Classify
from streamapp.stages.embed import Embed
from streamapp.stages.shadow import Shadow
from streamapp.testing.contracts.stage import StageContract
from streamapp.testing.pipeline import Pipeline
from streamapp.topics.catalogue import ENRICHED
from streamapp.topics.enriched import decode

LABELS = ("refund my money", "where is my parcel", "stop my plan")


class Turned(HashEmbedder):
    """The other's vectors, turned round: another space with the same neighbours."""

    ref = ModelRef("embed", "turned", 1, hashlib.sha256(b"turned").hexdigest())

    def embed(self, texts, kind="query", out=None):
        vectors, truncated = super().embed(texts, kind)
        return vectors @ np.diag(np.where(np.arange(self.dim) % 2, -1, 1)).astype("f4"), truncated


class Noise(HashEmbedder):
    """Vectors that know nothing of each other."""

    ref = ModelRef("embed", "noise", 1, hashlib.sha256(b"noise").hexdigest())

    def embed(self, texts, kind="query", out=None):
        return super().embed(
            [None if t is None else f"{t}!{t[::-1]}".replace(" ", "") for t in texts]
        )


class Broken(HashEmbedder):
    def embed(self, texts, kind="query", out=None):
        raise RuntimeError("broken")


class Models(HashModels):
    """Embedders by name, and a route of three classifiers."""

    def __init__(self, shadow):
        self.embedders = {None: HashEmbedder(16), "shadow": shadow}
        said = {
            name: HashClassifier(LABELS, "texts", version=at) for at, name in enumerate("abc", 1)
        }
        said["c"].labels = LABELS[::-1]  # it says something else
        facts = {"a": Facts(accuracy=0.9), "b": Facts(accuracy=0.5)}
        spec = RouteSpec(
            task="classify",
            models=["a", "b"],
            facts=facts,
            canary=Canary(model="b", percent=30),
            shadow="c",
            shadow_percent=50,
            shadow_wait_ms_max=60_000,
            ahead_events=8,
        )
        super().__init__(classifiers=said, routes={"topic": spec})

    def embedder(self, name=None):
        return self.embedders[name]


OPTIONS = {
    "classify": {"columns": {"topic": "topic"}},
    "shadow": {"model": "shadow", "percent": 60.0, "wait_ms_max": 60_000.0},
}


def sent(number):
    words = ("refund", "parcel", "plan", "money", "late", "stop", "again", "please", "now", "why")
    rng = np.random.default_rng(number)
    text = " ".join(rng.choice(words, 4))
    return {"id": str(number), "message": text, "conversation_id": f"c{number % 60}"}


def run(shadow):
    pipeline = Pipeline(models=Models(shadow)).use(Embed, Shadow, Classify, **OPTIONS)
    for first in range(0, 240, 24):
        pipeline.send(*map(sent, range(first, first + 24)))
    return pipeline


def stored(pipeline):
    return [
        StoredRecord(decode(record), ENRICHED, 0, record.offset + 1)
        for record in pipeline.log.read(ENRICHED, 0, 0, records_max=1000).records
    ]


@pytest.fixture(params=["duckdb", "parquet"])
def asked(request, tmp_path):
    """Asks a store that has what a pipeline made."""

    def ask(pipeline, *queries):
        kind = DuckSink if request.param == "duckdb" else ParquetSink
        sink = kind(tmp_path) if kind is DuckSink else kind(str(tmp_path / "parquet"))
        columns = {field.name: field.type for field in pipeline.columns()}
        with sink.open(columns=columns) as store:
            store.write(stored(pipeline))
            cursor = store.reader()
            found = []
            for query in queries:
                cursor.execute(query)
                names = [each[0] for each in cursor.description]
                found.append([dict(zip(names, row, strict=True)) for row in cursor.fetchall()])
            cursor.close()
            return found

    return ask


def test_the_experiment_and_its_shadow_in_sql(asked):
    pipeline = run(Turned(16))
    queries = [
        reports.written(query, "topic", "topic")
        for query in (reports.ARMS, reports.AGREEMENT, reports.ANSWERS, reports.DRIFT)
    ]
    arms, agreement, answers, drift = asked(pipeline, *queries)
    rows = pipeline.rows()
    arm = {row["conversation"]: row["topic_route"]["arm"] for row in rows}
    assert {row["arm"]: row["conversations"] for row in arms} == {
        name: [*arm.values()].count(name) for name in ("b", None)
    }
    for row in rows:  # a conversation stays where it is
        assert row["topic_route"]["arm"] == arm[row["conversation"]]
    seen = [(row["topic"], row["topic_route"]["shadow"]) for row in rows]
    both = [(one, other) for one, other in seen if other is not None]
    assert agreement[0]["rows"] == len(both)
    assert 0 < len(both) < len(rows)
    assert agreement[0]["agreement"] == pytest.approx(np.mean([a == b for a, b in both]))
    assert {(row["why"], row["model"]): row["rows"] for row in answers} == {
        (why, f"classify/hashed-words@{version}"): sum(
            row["topic_route"]["why"] == why for row in rows
        )
        for why, version in (("score", 1), ("split", 2))
    }
    shares = [
        {name: side.count(name) / len(both) for name in LABELS} for side in zip(*both, strict=True)
    ]
    distance = sum(abs(shares[0][name] - shares[1][name]) for name in LABELS) / 2
    assert [row["drift"] for row in drift] == pytest.approx([distance])


@pytest.mark.parametrize(("shadow", "least", "most"), [(Turned, 1.0, 1.0), (Noise, 0.0, 0.5)])
def test_neighbours_tell_a_model_that_agrees_from_one_that_does_not(asked, shadow, least, most):
    [[found]] = asked(run(shadow(16)), reports.NEIGHBOURS)
    assert 60 < found["rows"] < 240  # its share of the conversations
    assert least <= found["agreement"] <= most


@pytest.mark.models
def test_two_real_embedders_agree_on_some_neighbours(asked, tmp_path):
    settings, _ = load({"home": tmp_path}, environ={}, folder=tmp_path)
    models = registry(settings)
    models.pull("embed/all-minilm-l6-v2")
    pipeline = Pipeline(models=models).use(
        Embed, Shadow, shadow={"model": "minilm", "wait_ms_max": 60_000.0}
    )
    pipeline.send(*({"id": str(at), "message": text} for at, text in enumerate(TEXTS)))
    [[found]] = asked(pipeline, reports.NEIGHBOURS)
    assert found["rows"] == len(TEXTS)
    assert 10 / (len(TEXTS) - 1) < found["agreement"] < 1  # more than by chance


def test_a_shadow_that_fails_keeps_no_event():
    pipeline = run(Broken(16))
    assert len(pipeline.rows()) == 240
    assert pipeline.rejects() == []
    assert {row["shadow_embedding"] is None for row in pipeline.rows()} == {True}


def test_every_choice_is_made_again_from_the_enriched_topic_alone():
    """``state.replay_equal`` for routes: epochs and columns are read from the log, across a restart."""
    pipeline = run(Turned(16))
    pipeline.restart()
    for first in range(240, 300, 7):
        pipeline.send(*map(sent, range(first, first + 7)))
    epochs, seen = Epochs(), 0
    for record in stored(pipeline):
        for entry in record.enriched.states:
            if (entry.stage, entry.kind, entry.key) == ("classify", KIND, "topic"):
                epochs = Epochs.of(entry.value)
        for row in record.enriched.rows.to_pylist():
            event = Event(row["conversation"], len(row["text"]), None)
            epoch = epochs.at(row["source_offset"])
            choice, said = choose(epoch, event), row["topic_route"]
            assert (said["epoch"], said["why"], said["arm"]) == (
                epoch.number, choice.why, choice.arm or None,
            )  # fmt: skip
            models = {each.name: each.model for each in epoch.candidates}
            assert said["model"] == models[choice.order[0]]
            assert (said["shadow"] is not None) == choice.shadow
            seen += 1
    assert seen == 303


HALF = {"shadow": {"model": "shadow", "percent": 50.0, "wait_ms_max": 60_000.0}}


class TestShadow(StageContract):
    stage = Shadow
    options = HALF
    models = Models(Turned(16))


def test_a_batch_that_is_run_in_parts_is_made_again_from_its_one_record():
    """A row that is rejected halves its batch; what was measured in one half may rule the other."""
    known = Models(Turned(16))
    known._routes["topic"] = msgspec.structs.replace(
        known._routes["topic"], ahead_events=0, failures_max=1, shadow="", canary=None
    )
    calls = []

    def fragile(plain):
        def classify(texts):
            calls.append(len(texts))
            if "bad" in texts:
                raise Reject("test", "bad row")
            if len(calls) == 4:
                raise RuntimeError("broken")  # in the middle: from here on it cools down
            return plain(texts)

        return classify

    for name in "ab":
        known._classifiers[name].classify = fragile(known._classifiers[name].classify)
    pipeline = Pipeline(models=known).use(Classify, classify=OPTIONS["classify"])
    words = ["refund", "bad", "parcel", "plan", "late", "stop", "again", "now"]
    pipeline.send(*[{"id": w, "message": w, "conversation_id": f"d{w}"} for w in words])
    [record] = stored(pipeline)
    [reject] = record.enriched.rejects
    assert reject.code == "test"
    values = [entry.value for entry in record.enriched.states]
    epochs = Epochs.of(values[-1])
    rows = record.enriched.rows.to_pylist()
    assert len({row["topic_route"]["epoch"] for row in rows}) > 1
    for row in rows:
        said = row["topic_route"]
        choice = choose(
            epochs.at(row["source_offset"]), Event(row["conversation"], len(row["text"]))
        )
        assert epochs.at(row["source_offset"]).number == said["epoch"]
        assert said["why"] in {choice.why, "fallback"}
