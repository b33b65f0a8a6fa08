"""infer.infer: labels of rows, by models and routes."""

import numpy as np
import pyarrow as pa
import pytest
from table_work import TableWork, made, result

from streamapp.core.errors import Refuse, Retry
from streamapp.models.routing.spec import RouteSpec
from streamapp.plugin.testing import HashClassifier, HashModels
from streamapp.services.infer.operation import Infer

ROWS = pa.table({"document_id": ["a", "b", "c", "d"], "text": ["refund now", "late", None, " "]})


class Sure:
    """Says the same of every text."""

    def __init__(self, shares, labels=("yes", "no"), threshold=0.0):
        self.ref = HashClassifier(labels, "texts").ref
        self.labels, self.threshold, self.margin_min, self.embedder = labels, threshold, 0.0, ""
        self.shares = shares
        self.asked = []

    def classify(self, inputs):
        self.asked.append(list(inputs))
        return np.array([self.shares] * len(inputs), np.float32)


class Broken(Sure):
    def classify(self, inputs):
        raise Retry("models.away", "nobody is there", "wait")


def work_of(routes=None, **classifiers):
    return TableWork(HashModels(classifiers=classifiers, routes=routes))


def test_rows_keep_their_columns_and_get_label_and_probability():
    work = work_of(m=HashClassifier(["refund", "late"], "texts"))
    table = result(Infer, {"model": "m"}, work, docs=ROWS)
    assert table.select(ROWS.column_names).equals(ROWS)
    assert table["label"].to_pylist() == ["refund", "late", None, None]
    sure = table["probability"].to_pylist()
    assert sure[0] > 0.5
    assert sure[2:] == [None, None]
    assert work.done == 4


def test_nobody_is_asked_about_rows_without_text():
    model = Sure([0.9, 0.1])
    result(Infer, {"model": "m"}, work_of(m=model), docs=ROWS)
    assert model.asked == [["refund now", "late"]]


@pytest.mark.parametrize(
    ("own", "asked", "label"),
    [(0.9, None, None), (0.9, 0.75, "yes"), (0.0, 0.85, None), (0.0, 0.8, "yes"), (0.9, 0, "yes")],
)
def test_below_the_threshold_there_is_no_label_but_the_probability_is_kept(own, asked, label):
    config = {"model": "m"} | ({} if asked is None else {"threshold": asked})
    table = result(Infer, config, work_of(m=Sure([0.8125, 0.1875], threshold=own)), docs=ROWS)
    assert table["label"].to_pylist()[0] == label
    assert table["probability"].to_pylist()[0] == 0.8125


def test_a_head_gets_vectors_of_the_embedder_it_was_trained_on():
    work = work_of(m=HashClassifier(["refund", "late"], "vectors"))
    table = result(Infer, {"model": "m"}, work, docs=ROWS)
    assert table["label"].to_pylist() == ["refund", "late", None, None]


def test_a_model_that_fails_is_replaced_by_the_next_of_its_route():
    route = RouteSpec(task="classify", models=["broken", "good"])
    work = work_of({"r": route}, broken=Broken([1, 0]), good=Sure([0.25, 0.75]))
    table = result(Infer, {"model": "r", "route": "why"}, work, docs=ROWS)
    assert table["label"].to_pylist() == ["no", "no", None, None]
    assert [row and row["why"] for row in table["why"].to_pylist()][:2] == ["fallback"] * 2


def test_where_all_fail_the_engine_may_try_again():
    operation, _ = made(Infer, {"model": "m"}, work_of(m=Broken([1, 0])), docs=ROWS)
    with pytest.raises(Retry, match="nobody answers"):
        operation.run({"docs": ROWS})


@pytest.mark.parametrize(
    ("config", "label", "probability"),
    [
        ({"ensemble": "mean"}, "no", 0.55),
        ({"ensemble": "vote"}, "yes", 2 / 3),
        ({"ensemble": "vote", "weights": [1, 1, 3]}, "no", 0.6),
        ({"ensemble": "mean", "weights": [2, 2, 1]}, "yes", (0.6 * 4 + 0.15) / 5),
        ({"ensemble": "vote", "threshold": 0.7}, None, 2 / 3),
    ],
)
def test_ensembles(config, label, probability):
    work = work_of(a=Sure([0.6, 0.4]), b=Sure([0.6, 0.4]), c=Sure([0.15, 0.85]))
    table = result(Infer, {"models": ["a", "b", "c"], **config}, work, docs=ROWS)
    if "threshold" in config:  # a and b are not sure, c says no
        assert table["label"].to_pylist()[0] is None
        return
    assert table["label"].to_pylist()[0] == label
    assert table["probability"].to_pylist()[0] == pytest.approx(probability, abs=1e-6)


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_texts_may_be_kept_in_any_way(kind):
    work = work_of(m=HashClassifier(["refund", "late"], "texts"))
    rows = ROWS.set_column(1, "text", ROWS["text"].cast(kind))
    assert result(Infer, {"model": "m"}, work, docs=rows)["label"].to_pylist() == [
        "refund", "late", None, None,
    ]  # fmt: skip


def test_every_label_s_probability():
    table = result(
        Infer, {"model": "m", "probabilities": "all"}, work_of(m=Sure([0.75, 0.25])), docs=ROWS
    )
    assert table["all"].to_pylist() == [[("yes", 0.75), ("no", 0.25)]] * 2 + [None] * 2


def test_chunks_do_not_matter():
    rows = pa.table({"text": [f"refund {n}" if n % 3 else None for n in range(50)]})
    work = work_of(
        {"r": RouteSpec(task="classify", models=["a", "b"], split={"b": 40})},
        a=Sure([0.9, 0.1]), b=Sure([0.2, 0.8]),
    )  # fmt: skip
    whole = result(Infer, {"model": "r", "route": "why"}, work, docs=rows)
    assert set(whole["label"].to_pylist()) == {"yes", "no", None}
    operation, _ = made(Infer, {"model": "r", "route": "why", "batch_rows": 7}, work, docs=rows)
    parts = [operation.run({"docs": rows.slice(at, 13)}) for at in range(0, 50, 13)]
    assert pa.concat_tables(parts).to_pylist() == whole.to_pylist()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "config.model: no model"),
        ({"model": "m", "models": ["a", "b"]}, "config.models: there is a config.model"),
        ({"models": ["a"]}, "ensemble of one"),
        ({"models": ["a", "a"]}, "twice"),
        ({"models": ["a", "b"], "weights": [1]}, "config.weights"),
        ({"models": ["a", "b"], "route": "r"}, "config.route"),
        ({"model": "m", "probability": "label"}, "config.label"),
        ({"model": "m", "text": "body"}, "config.text: 'docs' has no 'body' column"),
        ({"model": "m", "text": "n"}, "config.text: column 'n' of 'docs' is int64"),
        ({"model": "m", "label": "n"}, "config.label: 'docs' has a column 'n' already"),
        ({"model": "m", "key": "who"}, "config.key"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_planned(config, said):
    table = pa.table({"text": ["a"], "n": [1]})
    with pytest.raises(Refuse, match=said):
        made(Infer, config, work_of(m=Sure([1, 0])), docs=table)


def test_an_unknown_model_is_refused():
    with pytest.raises(Refuse, match="nope"):
        made(Infer, {"model": "nope"}, work_of(m=Sure([1, 0])), docs=ROWS)


def test_no_rows():
    table = result(Infer, {"model": "m", "route": "r"}, work_of(m=Sure([1, 0])), docs=ROWS[:0])
    assert table.num_rows == 0
