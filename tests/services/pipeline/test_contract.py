"""Every operation of the service keeps the contract of operations."""

import pyarrow as pa
import pytest

from streamapp.plugin.registered import known, operation_class
from streamapp.plugin.testing import HashClassifier, HashModels
from streamapp.plugin.testing_operation import check_operation

ROWS = pa.table(
    {
        "who": ["a", "b", "a", None],
        "text": ["late", "refund", None, "late refund"],
        "n": pa.array([1, 2, 3, 4], pa.int32()),
        "at": pa.array([1, 2, 12, 3], pa.timestamp("s")),
    }
)
OTHER = pa.table({"who": ["a", "b"], "name": ["ada", "bob"]})
SUM = {"total": "sum(n)"}
CASES = {
    "pipeline.filter": {"where": "n > 1"},
    "pipeline.map": {"columns": {"m": "n * 2"}},
    "pipeline.aggregate": {"by": ["who"], "columns": SUM},
    "pipeline.join": {"on": ["who"], "source": "other", "how": "left"},
    "pipeline.dedupe": {"by": ["who"]},
    "pipeline.sample": {"fraction": 0.5, "by": ["n"]},
    "pipeline.validate": {"rules": [{"column": "n", "min": 2}]},
    "pipeline.window": {
        "time": "at", "kind": "tumbling", "size": "10s", "by": ["who"], "columns": SUM,
    },
    "pipeline.run": {"transforms": [{"filter": "n > 1"}, {"map": {"columns": {"m": "n"}}}]},
    "infer.infer": {"model": "m", "text": "text"},
}  # fmt: skip


def test_all_are_here():
    ours = {name for name in known() if name.partition(".")[0] in {"pipeline", "infer"}}
    assert ours == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_it_keeps_the_contract(name):
    models = HashModels(classifiers={"m": HashClassifier(["late", "refund"], "texts")})
    inputs, sources = {"rows": ROWS}, {"other": OTHER}
    tolerance = 1e-6 if name == "infer.infer" else 0.0  # a model's sums are as long as its batch
    check_operation(
        operation_class(name),
        CASES[name],
        inputs,
        sources=sources,
        models=models,
        tolerance=tolerance,
    )


@pytest.mark.parametrize(
    "kind",
    [
        {"kind": "hopping", "size": "10s", "every": "5s"},
        {"kind": "sliding", "size": "5s"},
        {"kind": "session", "gap": "5s", "grace": "1m"},
    ],
    ids=lambda kind: kind["kind"],
)
def test_so_does_every_kind_of_window(kind):
    config = {"time": "at", "columns": SUM, **kind}
    check_operation(operation_class("pipeline.window"), config, {"rows": ROWS})
