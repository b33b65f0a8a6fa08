"""Every operation that is installed keeps the contract of operations."""

import pyarrow as pa
import pytest

from streamapp.plugin.registered import known, operation_class
from streamapp.plugin.testing import HashClassifier, HashModels
from streamapp.testing import check_operation

TEXTS = pa.table(
    {
        "document_id": ["a", "b", "c", "d", "e"],
        "text": [
            "This is a critical document with high priority content. We love it!",
            "The weather was terrible today; nobody liked the rain, and it was cold.",
            "",
            None,
            "Short.",
        ],
    }
)
NUMBERS = pa.table(
    {
        "key": ["x", "y", "x", None, "z", "y", "x"],
        "n": pa.array([1, 2, 3, 4, None, 6, 7], pa.int64()),
        "time": pa.array([1_000_000 * s for s in (0, 5, 9, 12, 31, 35, 70)], pa.timestamp("us")),
    }
)
MORE = pa.table({"key": ["x", "y", "w"], "more": [1.5, 2.5, 3.5]})
COUNT = {"by": ["key"], "columns": {"total": "sum(n)", "many": "count(*)"}}
#: Config, inputs and declared sources of each.
SAMPLES = {
    "text.analyze": ({"extract_keywords": True, "analyze_sentiment": True}, {"docs": TEXTS}, {}),
    "text.keywords": ({}, {"docs": TEXTS}, {}),
    "text.similarity": ({"threshold": 0.1}, {"docs": TEXTS}, {}),
    "integrate.integrate": (
        {"secondary_sources": ["more"], "mode": "left_join", "key_fields": ["key"]},
        {"numbers": NUMBERS},
        {"more": MORE},
    ),
    "integrate.match": ({"key_fields": ["key"]}, {"numbers": NUMBERS, "more": MORE}, {}),
    "infer.infer": ({"model": "words", "threshold": 0.5}, {"docs": TEXTS}, {}),
    "pipeline.filter": ({"where": "n > 2"}, {"numbers": NUMBERS}, {}),
    "pipeline.map": ({"columns": {"twice": "n * 2"}}, {"numbers": NUMBERS}, {}),
    "pipeline.aggregate": (COUNT, {"numbers": NUMBERS}, {}),
    "pipeline.join": ({"source": "more", "on": ["key"]}, {"numbers": NUMBERS}, {"more": MORE}),
    "pipeline.dedupe": ({"by": ["key"]}, {"numbers": NUMBERS}, {}),
    "pipeline.sample": ({"fraction": 0.5}, {"numbers": NUMBERS}, {}),
    "pipeline.validate": (
        {"rules": [{"column": "n", "not_null": True, "max": 6}]},
        {"numbers": NUMBERS},
        {},
    ),
    "pipeline.window": (
        {"time": "time", "kind": "tumbling", "size": "10s", "grace": "5s", **COUNT},
        {"numbers": NUMBERS},
        {},
    ),
    "pipeline.run": (
        {"transforms": [{"filter": {"where": "n > 1"}}, {"map": {"columns": {"m": "n + 1"}}}]},
        {"numbers": NUMBERS},
        {},
    ),
}


def test_every_operation_has_a_sample():
    ours = {name for name in known() if operation_class(name).__module__.startswith("streamapp.")}
    assert ours == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_it_keeps_the_contract(name):
    config, inputs, sources = SAMPLES[name]
    models = HashModels(classifiers={"words": HashClassifier(["critical", "rain"], takes="texts")})
    check_operation(
        operation_class(name), config, inputs, sources=sources, models=models, tolerance=1e-6
    )
