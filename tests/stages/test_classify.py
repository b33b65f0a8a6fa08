"""The stage that labels by routes."""

import pytest

from streamapp.core.errors import Refuse
from streamapp.models.routing.spec import Facts, RouteSpec
from streamapp.plugin import ROUTE, stage
from streamapp.plugin.testing import HashClassifier, HashModels
from streamapp.stages.classify import Classify
from streamapp.stages.embed import Embed
from streamapp.testing.contracts.stage import StageContract
from streamapp.testing.pipeline import Pipeline

LABELS = ("hello there", "cancel my plan", "where is it")


def models(takes="texts", **declared):
    task = "head" if takes == "vectors" else "classify"
    spec = RouteSpec(
        task=task,
        models=["a", "b"],
        facts={"a": Facts(accuracy=0.9, languages=["en"]), "b": Facts(accuracy=0.5)},
        **declared,
    )
    classifiers = {
        name: HashClassifier(LABELS, takes, version=at) for at, name in enumerate("ab", 1)
    }
    return HashModels(classifiers=classifiers, routes={"topic": spec})


OPTIONS = {"classify": {"columns": {"topic": "topic"}}}


class TestClassifyOfTexts(StageContract):
    stage = Classify
    options = OPTIONS
    models = models()


class TestClassifyOfVectors(StageContract):
    stage = Classify
    options = OPTIONS
    models = models("vectors", split={"b": 50.0})
    upstream = (Embed,)


def test_columns_say_what_and_who_and_why():
    pipeline = Pipeline(models=models()).use(Classify, **OPTIONS)
    said, nothing = pipeline.send("hello there you", {"type": "View", "message": " "})
    assert said["topic"] == "hello there"
    assert 1 / 3 < said["topic_confidence"] <= 1
    assert said["topic_route"]["model"] == "classify/hashed-words@1"
    assert said["topic_route"]["why"] == "score"
    assert [nothing[name] for name in ("topic", "topic_confidence", "topic_route")] == [None] * 3


def test_a_model_s_name_is_a_route_and_columns_are_apart():
    options = {"classify": {"columns": {"x": "topic", "y": "b"}}}
    [row] = Pipeline(models=models()).use(Classify, **options).send("hello there")
    assert row["x_route"]["route"] == "topic"
    assert row["y_route"] | {"route": "b", "model": "classify/hashed-words@2"} == row["y_route"]


def test_by_language_a_model_gets_only_what_it_speaks():
    @stage("speaks", version=1, reads=["payload"], writes={"language": "string"})
    def speaks(payload):
        return {"language": "de" if '"de"' in payload else "en"}

    options = {"classify": {**OPTIONS["classify"], "by_language": True}}
    pipeline = Pipeline(models=models()).use(Classify, speaks, **options)
    rows = pipeline.send({"message": "a", "language": "de"}, {"message": "b", "language": "en"})
    answered = [row["topic_route"]["model"] for row in rows]
    assert answered == ["classify/hashed-words@2", "classify/hashed-words@1"]


def test_provenance_names_all_who_may_answer():
    pipeline = Pipeline(models=models()).use(Classify, **OPTIONS)
    pipeline.send("hello")
    assert pipeline._plan.stages[0].models == tuple(
        HashClassifier(LABELS, "texts", version=at).ref for at in (1, 2)
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"columns": {}},
        {"columns": {"a": 3}},
        {"columns": {"a": "topic"}, "x": 1},
        {"columns": {"": "topic"}},
        {"columns": {"a": "topic", "a_confidence": "topic"}},
        {"columns": {"a": "topic", "A": "topic"}},  # DuckDB's names do not tell cases apart
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(Refuse, match="stage 'classify'"):
        Classify(options)


def test_a_route_of_spans_is_refused():
    spans = HashModels(routes={"topic": RouteSpec(task="entities", models=["a"])})
    made = Classify(OPTIONS["classify"])
    with pytest.raises(Refuse, match="routed to models for entities"):
        made.declare(spans)


def test_the_column_has_the_type_of_routes():
    made = Classify(OPTIONS["classify"])
    made.declare(models())
    assert made.writes["topic_route"] == ROUTE
