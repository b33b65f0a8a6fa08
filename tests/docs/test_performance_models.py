"""docs/performance.md says of the models what the last run of their benchmark found."""

import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text()
RESULTS = ROOT / "bench" / "results" / "models.json"
#: Keys that others read.
RATIOS = {
    "stage_vs_sorted_run",
    "stage_vs_naive_batch",
    "batching_vs_per_sample",
    "ensemble_p95_ms",
    "banking77_5shot",
    "banking77_head",
}
JUDGED = {"accuracy": 0.9, "coverage": 0.8, "precision": 0.95, "refused": float("nan")}
BANKING = {
    "zero_shot": 0.5,
    "few_centroid": [0.6, 0.8],
    "few_head": [0.7, 0.7],
    "head": JUDGED,
    "unknown": {"told": {**JUDGED, "refused": 0.75}, "not_told": {**JUDGED, "refused": 0.25}},
}


@pytest.fixture
def page():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "bench")
        yield runpy.run_path(str(ROOT / "bench" / "models" / "page.py"))


def rows(text):
    return [re.split(r"\s*\|\s*", line)[1:-1] for line in text.splitlines() if line[:1] == "|"]


def test_the_figures_are_those_of_the_results(page):
    block = PAGE.split(page["BEGIN"])[1].split(page["END"])[0]
    found = page["render"](json.loads(RESULTS.read_text())) if RESULTS.exists() else ""
    assert block == found, "run python bench/bench_models.py --markdown"


def test_every_aim_is_on_the_page_and_what_is_missing_is_said(page):
    assert set(page["AIMS"]) >= RATIOS
    figures = {"not_measured": {"banking": "not beside the project"}}
    text = page["render"]({"ratios": {"banking77_head": 0.9163}, "figures": figures})
    shown = rows(text)
    assert ["BANKING77, trained head: e5-small", "0.916", "≥ 0.91"] in shown
    assert ["three models at 820 samples/s: p95, ms", "not measured", "≤ 28"] in shown
    assert "Not measured: BANKING77: not beside the project." in text


def test_the_stage_is_held_to_the_best_sorted_run_of_each_model(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    bench = runpy.run_path(str(ROOT / "bench" / "bench_models.py"), run_name="bench_models")
    ways = {"stage": [110.0], "batches of 32 in order": [50.0]}
    ways |= {"sorted, 1 thread": [60.0], "sorted, a call a core": [100.0]}
    minilm = ways | {"stage": [70.0], "sorted, a call a core": [88.0]}
    ratios = bench["ratios_of"]({"rates": {"e5-small": ways, "MiniLM": minilm}})
    assert ratios == pytest.approx(
        {
            "stage_vs_sorted_run": 1.1,
            "stage_vs_naive_batch": 2.2,
            "stage_texts_per_s": 110,
            "stage_vs_minilm_sorted": 1.25,
        }
    )


def test_the_tables_say_what_was_found(page):
    figures = {
        "not_measured": {},
        "banking": {"e5-small": BANKING},
        "rates": {"e5-small": {"stage": [900.0, 1100.0, 1000.0]}, "MiniLM": {"stage": [1.0]}},
        "fastembed": {"rates": {"256": [700.0]}, "cosine": 1.0},
        "calls": {"shared": [9000.0]},
    }
    shown = rows(page["render"]({"ratios": {}, "figures": figures}))
    assert ["nearest mean of 5 examples", "0.700 ± 0.100"] in shown
    assert ["head, calibrated for 95 %: right of them", "0.950"] in shown
    told = "a fourth of labels unknown, with examples: unknown kept unknown"
    assert [told, "0.750"] in shown
    assert not [row for row in shown if row[0].startswith("head, calibrated") and "kept" in row[0]]
    assert ["ours: the stage `embed`", "1,000", "1"] in shown
    assert ["fastembed, batches of 256", "", "700"] in shown
    assert ["ours: shared calls", "9,000", ""] in shown
