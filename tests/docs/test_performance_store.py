"""The store's figures on the page are those of the last run that was kept."""

import json
import runpy
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text()
RESULTS = ROOT / "bench" / "results" / "store.json"
SIZES = ("1", "64", "256", "2048")


@pytest.fixture(scope="module")
def bench():
    """``bench("page")`` is what bench/store/page.py defines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "bench")
        yield lambda name: runpy.run_path(str(ROOT / "bench" / "store" / f"{name}.py"))


@pytest.fixture
def results():
    return json.loads(RESULTS.read_text())


def test_the_figures_are_those_of_the_results(bench, results):
    page = bench("page")
    _, _, rest = PAGE.partition(page["BEGIN"])
    block, end, _ = rest.partition(page["END"])
    assert end, "the page has no block of the store's figures"
    assert block == page["render"](results), "run python bench/bench_store.py --markdown"


def test_every_ratio_that_is_promised_was_measured(bench, results):
    ratios = results["ratios"]
    assert set(bench("page")["AIMS"]) == {"sink_vs_duckdb", "doget_vs_duckdb", "adbc_vs_duckdb"}
    assert set(bench("page")["AIMS"]) <= ratios.keys()
    for size in SIZES:
        end = "" if size == "2048" else f"_{size}"
        assert {f"{name}{end}" for name in ("sink_vs_sqlite", "sink_vs_parquet")} <= ratios.keys()
    assert {"similar_vs_numpy_100000", "similar_vs_numpy_1000000"} <= ratios.keys()


def test_commits_were_measured_with_no_one_and_five_readers(results):
    commits = results["figures"]["commits"]
    assert list(commits) == ["0", "1", "5"]
    assert commits["0"]["asked_per_s"] == 0 < commits["1"]["asked_per_s"]
    assert all(found["p50_ms"] <= found["p99_ms"] <= found["max_ms"] for found in commits.values())


def test_a_plot_is_an_image_of_its_series(bench):
    plot = bench("plot")
    panel = plot["Panel"]("sizes <both>", "MB", {"file": [1.0, 4.0, 4.0], "WAL": [0.0, 16.0, 0.5]})
    image = ET.fromstring(plot["svg"]("two series", [1.0, 2.0, 3.0], [panel, panel]))
    lines = [line.get("points") for line in image.iter("{http://www.w3.org/2000/svg}polyline")]
    assert len(lines) == 4
    points = [tuple(map(float, point.split(","))) for point in lines[1].split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    ys = [y for _, y in points]
    assert ys[1] < ys[2] < ys[0], "more is higher"
    texts = [text.text for text in image.iter("{http://www.w3.org/2000/svg}text")]
    assert "sizes <both>" in texts
    assert "20 MB" in texts
