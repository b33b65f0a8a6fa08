"""Answers beside labels: what each share counts."""

import math

import pytest

from streamapp.core.errors import Refuse
from streamapp.plugin.testing import HashModels
from streamapp.workflow.spec import Workflow
from streamapp.workflow.trial import Answer, Mistake, answers, score


def test_what_the_shares_count():
    given = [
        Answer("a", 0.9),
        Answer("b", 0.7),
        Answer("unknown", 0.4),
        Answer("b", 0.8),
        Answer("unknown", 0.3),
        Answer(None, 0.0),
    ]
    found = score(given, ["a", "a", "a", None, None, "b"])
    assert (found.examples, found.accuracy, found.coverage) == (6, 0.25, 0.5)
    assert found.precision == pytest.approx(1 / 3)  # an answer to what has no label is wrong
    assert found.refused == 0.5
    assert found.error == pytest.approx((0.1 + 0.7 + 0.8) / 3)
    assert [(one.label, one.examples) for one in found.labels] == [("b", 1), ("a", 3)]
    assert found.labels[0][2:] == (0, 0)
    assert found.labels[1][2:] == (1, pytest.approx(1 / 3))
    assert found.mistakes == [Mistake("a", "b", 1), Mistake("unknown", "b", 1)]


def test_shares_of_nothing_are_none():
    found = score([Answer("unknown", 0.5)], ["a"])
    assert (found.accuracy, found.coverage) == (0, 0)
    assert all(math.isnan(one) for one in (found.precision, found.refused, found.error))
    assert math.isnan(found.labels[0].precision)


def test_only_the_stages_that_it_takes_run():
    labels = {"refund": "money back", "greeting": "hello there"}
    workflow = Workflow(
        path="w.toml",
        stages=("embed", "intent", "no such stage"),
        options={"intent": {"labels": labels}},
    )
    told = []
    texts = ["money back", "hello there", " "] * 300
    found = answers(workflow, HashModels(), texts, told.append)
    assert [one.intent for one in found[:3]] == ["refund", "greeting", None]
    assert found[:3] == found[-3:]
    assert sum(told) == len(texts) == len(found)


def test_a_workflow_without_intents_is_refused():
    workflow = Workflow(path="w.toml", stages=("embed",))
    with pytest.raises(Refuse, match=r"w\.toml runs no stage 'intent'"):
        answers(workflow, HashModels(), ["x"])
