"""Answers beside labels: what each share counts."""

import math

import numpy as np
import pytest

from streamapp.core.errors import Refuse
from streamapp.plugin.testing import HashModels
from streamapp.workflow.spec import Workflow
from streamapp.workflow.trial import (
    Answer,
    Mistake,
    answers,
    calibrated,
    score,
    without_thresholds,
)


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


def test_a_threshold_keeps_the_precision_that_was_asked_for():
    """Answers are right as often as they are sure, so 0.8 right takes those above 0.6 or so."""
    sure = [place / 400 for place in range(1, 401)]
    given = [Answer("a", one) for one in sure]
    labels = ["a" if place * 7919 % 400 < 400 * one else "b" for place, one in enumerate(sure)]
    found = calibrated(given, labels, 0.8)
    least = np.float32(found.confidence_min)
    kept = [label for one, label in zip(sure, labels, strict=True) if np.float32(one) >= least]
    assert kept.count("a") / len(kept) >= 0.8
    assert found.confidence_min == pytest.approx(0.6, abs=0.1)
    assert found.precision == pytest.approx(0.8, abs=0.05)
    assert found.coverage == pytest.approx(0.4, abs=0.1)
    assert calibrated(given, ["b"] * 400, 0.5) is None


def test_a_threshold_is_not_judged_by_the_texts_that_chose_it():
    """Being sure says nothing here, so a threshold that looked good is worth no more than luck."""
    chance = np.random.default_rng(2)
    sure, right = chance.permutation(40) / 40, chance.random(40) < 0.5
    given = [Answer("a", float(one)) for one in sure for _ in range(2)]
    labels = ["a" if one else "b" for one in right for _ in range(2)]
    texts = np.repeat(np.arange(40), 2)
    assert calibrated(given, labels, 0.7).precision == pytest.approx(0.8)
    assert calibrated(given, labels, 0.7, texts).precision < 0.6


def test_a_workflow_without_thresholds_is_always_sure():
    labels = {"refund": "money back", "greeting": "hello there"}
    options = {"labels": labels, "margin_min": 1.9}
    workflow = Workflow(path="w.toml", stages=("embed", "intent"), options={"intent": options})
    texts = ["hello money", "hello there"]
    assert [one.intent for one in answers(workflow, HashModels(), texts)] == ["unknown"] * 2
    sure = without_thresholds(workflow)
    assert "unknown" not in [one.intent for one in answers(sure, HashModels(), texts)]
    assert workflow.options["intent"]["margin_min"] == 1.9
