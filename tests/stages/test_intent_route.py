"""Intents by a route: a model for each event, its answer as the ring and the store take it."""

import pytest

from streamapp.models.routing.spec import Facts, RouteSpec
from streamapp.plugin import ROUTE, Refuse
from streamapp.plugin.testing import HashClassifier, HashModels
from streamapp.stages.embed import Embed
from streamapp.stages.intent import Intent
from streamapp.testing.contracts.stage import StageContract
from streamapp.testing.pipeline import Pipeline

LABELS = ("refund my money", "where is my parcel", "stop my plan")
OPTIONS = {"intent": {"route": "wants"}}


def models(takes="vectors", *, b=None, **declared):
    said = {
        "a": HashClassifier(LABELS, takes),
        "b": b or HashClassifier(LABELS, takes, version=2, threshold=1.1),
    }
    facts = {"a": Facts(accuracy=0.9), "b": Facts(accuracy=0.5)}
    task = "head" if takes == "vectors" else "classify"
    spec = RouteSpec(task=task, models=["a", "b"], facts=facts, **declared)
    return HashModels(classifiers=said, routes={"wants": spec})


def pipeline(known):
    return Pipeline(models=known).use(Embed, Intent, **OPTIONS)


class TestByHeads(StageContract):
    stage = Intent
    options = OPTIONS
    models = models(split={"b": 50.0})
    upstream = (Embed,)


class TestByTexts(StageContract):
    stage = Intent
    options = OPTIONS
    models = models("texts")


@pytest.mark.parametrize("takes", ["vectors", "texts"])
def test_the_answer_has_all_columns(takes):
    found, nothing = pipeline(models(takes)).send("where is my parcel", {"type": "View"})
    assert (found["intent"], found["intent_id"]) == ("where is my parcel", 1)
    assert found["intent_source"] == "route"
    assert 1 / 3 < found["intent_confidence"] <= 1
    assert found["intent_route"]["why"] == "score"
    columns = ("intent", "intent_id", "intent_confidence", "intent_source", "intent_route")
    assert [nothing[name] for name in columns] == [None] * 5


def test_who_is_not_sure_says_unknown():
    [row] = pipeline(models(split={"b": 100.0})).send("parcel where")
    assert (row["intent"], row["intent_id"]) == ("unknown", -1)
    assert row["intent_route"]["arm"] == "b"
    assert row["intent_confidence"] > 1 / 3


def test_a_head_of_other_vectors_does_not_answer():
    other = HashClassifier(LABELS, version=3)
    other.embedder = "embed/other@1"
    [row] = pipeline(models(b=other, split={"b": 100.0})).send("stop my plan")
    assert row["intent"] == "stop my plan"
    assert row["intent_route"]["why"] == "fallback"


def test_models_of_other_labels_are_refused():
    with pytest.raises(Refuse, match="have other labels") as caught:
        pipeline(models(b=HashClassifier(("x", "y"))))
    assert caught.value.fix


def test_what_it_writes_is_declared():
    stage = Intent(OPTIONS["intent"])
    stage.declare(models())
    assert stage.writes["intent_route"] == ROUTE
    assert stage.labels == LABELS
    assert "intent_route" not in Intent.writes
    with pytest.raises(Refuse, match="two ways"):
        Intent({"route": "wants", "head": "x"})
