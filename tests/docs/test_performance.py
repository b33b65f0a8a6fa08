"""The page's figures are those of the last run that was kept."""

import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text()
RESULTS = ROOT / "bench" / "results" / "transport.json"
RATIOS = [
    "received_vs_faust_take",
    "received_vs_quix",
    "received_vs_getmany",
    "published_vs_faust_take",
    "local_append_vs_sqlite",
]


@pytest.fixture(scope="module")
def page():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "bench")
        yield runpy.run_path(str(ROOT / "bench" / "transport" / "page.py"))


def test_the_figures_are_those_of_the_results(page):
    _, _, rest = PAGE.partition(page["BEGIN"])
    block, end, _ = rest.partition(page["END"])
    assert end, "the page has no block of figures"
    assert block == page["render"](json.loads(RESULTS.read_text())), (
        "run python bench/bench_transport.py --markdown"
    )


def test_every_ratio_has_an_aim_and_was_measured(page):
    results = json.loads(RESULTS.read_text())
    assert list(page["AIMS"]) == RATIOS
    missing = set(RATIOS) - results["ratios"].keys()
    assert missing <= {"received_vs_quix"}
    assert bool(missing) == bool(results["figures"]["not_measured"])


def test_what_was_not_measured_is_said(page):
    results = json.loads(RESULTS.read_text())
    results["ratios"].pop("received_vs_quix", None)
    results["figures"]["received"].pop("quix", None)
    results["figures"]["not_measured"] = {"quix": "no network"}
    text = page["render"](results)
    assert re.search(r"Quix Streams +\| not measured \| +4 \|", text)
    assert "Not measured: Quix Streams: no network." in text


def test_the_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z-]+)", PAGE):
        assert f"\n{target}:" in makefile
    for script in re.findall(r"python (bench/\w+\.py)", PAGE):
        assert (ROOT / script).is_file()
