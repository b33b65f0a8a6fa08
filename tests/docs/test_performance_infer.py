"""What the benchmark of labels makes of its figures."""

from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def part(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    return import_module("bench_services").sections()["infer"]


def test_what_a_run_says(part):
    def runs(rate, p95, right):
        return [{"per_s": rate, "p95_ms": p95, "accuracy": right, "peak_mb": 400.0}] * 3

    figures = {
        "samples": 10_000,
        "routed": runs(900.0, 9.0, 0.86),
        "direct": runs(300.0, 5.0, 0.9),
        "direct_accuracy": 0.861,
    }
    ratios = part.ratios(figures)
    assert ratios == {
        "infer_samples_per_s": 900.0,
        "infer_p95_ms": 9.0,
        "infer_points_lost": pytest.approx(0.1),
        "infer_vs_direct": 3.0,
    }
    assert set(ratios) == set(part.AIMS)
    text = part.render(figures)
    assert "86.0 %" in text
    assert "86.1 %" in text
    assert "onnxruntime" in part.packages()
