"""The ring's figures on the page are those of the last run that was kept."""

import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text()
RESULTS = ROOT / "bench" / "results" / "ring.json"
RATIOS = {
    "c_write_vs_memcpy",
    "py_batch256_vs_memcpy_cache",
    "py_batch256_vs_memcpy_dram",
    "iceoryx2_vs_ours",
    "py_single_write_extra_ns",
    "futex_p50_us",
    "futex_vs_word_apart",
    "stopped_reader_p50",
    "py_futex_p50_us",
}


@pytest.fixture(scope="module")
def page():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "bench")
        yield runpy.run_path(str(ROOT / "bench" / "ring" / "page.py"))


@pytest.fixture
def results():
    return json.loads(RESULTS.read_text())


def test_the_figures_are_those_of_the_results(page, results):
    _, _, rest = PAGE.partition(page["BEGIN"])
    block, end, _ = rest.partition(page["END"])
    assert end, "the page has no block of the ring's figures"
    assert block == page["render"](results), "run python bench/bench_ring.py --markdown"


def test_every_ratio_has_an_aim_and_was_measured(page, results):
    assert set(page["AIMS"]) == RATIOS
    missing = RATIOS - results["ratios"].keys()
    assert missing <= {"iceoryx2_vs_ours", "py_batch256_vs_memcpy_dram"}
    assert bool(missing) <= bool(results["figures"]["not_measured"])


def test_what_was_not_measured_is_said(page, results):
    figures = results["figures"]
    for name in ("iceoryx2_vs_ours", "py_batch256_vs_memcpy_dram"):
        results["ratios"].pop(name, None)
    figures["not_measured"] = dict.fromkeys(("iceoryx2", "zmq"), "no network") | {"dram": "full"}
    for shapes in (figures["c"], figures["python"], figures["alone"]):
        for key in [key for key in shapes if key.startswith("dram")]:
            del shapes[key]
    for by_name in (*figures["alone"].values(), *figures["streams"].values(), figures["wake"]):
        for name in ("iceoryx2", "zmq"):
            by_name.pop(name, None)
    text = page["render"](results)
    assert len(re.findall(r"not measured \|", text)) == 2
    assert "Not measured: iceoryx2: no network." in text
    assert "Not measured: the ring in DRAM: full." in text


def test_the_ancestors_claims_stand_beside_ours(page, results):
    text = page["render"](results)
    assert re.search(r"write, ns a frame +\| +50 \|", text)
    assert re.search(r"read, ns a frame +\| +100 \|", text)
    assert re.search(r"frames/s written +\| +10,000,000 \|", text)
