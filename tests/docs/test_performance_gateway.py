"""docs/performance.md says of the gateway what the last run of its benchmark found."""

import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text()
RESULTS = ROOT / "bench" / "results" / "gateway.json"
#: requests/s, p50 ms, p99 ms, CPU us
ONE, TWO = [1000.0, 1.0, 2.0, 300.0], [3000.0, 3.0, 4.0, 100.0]
FIGURES = {
    "not_measured": {"karapace": "no matching distribution"},
    "single": {"bare": [TWO], "ours": [ONE], "aiokafka": [ONE]},
    "many": {"ndjson": [[100.0, 5.0, 6.0, 9_000.0]]},
    "many_events": 1_000,
}
RATIOS = {
    "single_vs_bare_aiohttp": 1 / 3,
    "single_vs_aiokafka": 1.0,
    "ndjson_events_per_s": 100_000.0,
}


@pytest.fixture
def page():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "bench")
        yield runpy.run_path(str(ROOT / "bench" / "gateway" / "page.py"))


def test_the_figures_are_those_of_the_results(page):
    block = PAGE.split(page["BEGIN"])[1].split(page["END"])[0]
    found = page["render"](json.loads(RESULTS.read_text())) if RESULTS.exists() else ""
    assert block == found, "run python bench/bench_gateway.py --markdown"


def test_what_was_not_measured_is_said(page):
    text = page["render"]({"ratios": RATIOS, "figures": FIGURES})
    rows = [re.split(r"\s*\|\s*", line)[1:-1] for line in text.splitlines() if line[:1] == "|"]
    assert ["one event a request: ours to a bare aiohttp handler", "0.33", "≥ 0.5"] in rows
    assert ["one record a request: ours to Karapace's REST proxy", "-", "≥ 5.0"] in rows
    assert ["NDJSON, events/s", "100,000", "≥ 100,000"] in rows
    assert "Not measured: karapace: no matching distribution" in text
    assert ["NDJSON, on Kafka", "100,000", "9.0", "5", "6"] in rows
