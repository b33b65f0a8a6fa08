"""docs/performance.md says of the services what the last run of their benchmark found."""

import json
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text()
RESULTS = ROOT / "bench" / "results" / "services.json"
#: Keys that others read.
RATIOS = {
    "text_vs_vader_yake",
    "text_docs_per_s",
    "text_peak_mb",
    "integrate_vs_pandas",
    "integrate_rec_per_s",
    "integrate_peak_mb",
}
RUNS = {
    "documents": 10_000,
    "words": 2_340_000,
    "ours": [{"docs_per_s": rate, "peak_mb": 500.0} for rate in (900.0, 1200.0, 1500.0)],
    "theirs": [{"docs_per_s": 30.0, "peak_mb": 120.0}] * 3,
}


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    return import_module("bench_services")


def rows(text):
    return [re.split(r"\s*\|\s*", line)[1:-1] for line in text.splitlines() if line[:1] == "|"]


def test_the_figures_are_those_of_the_results(bench):
    block = PAGE.split(bench.page.BEGIN)[1].split(bench.page.END)[0]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else None
    found = bench.page.render(results, bench.sections()) if results else ""
    assert block == found, "run python bench/bench_services.py --markdown"


def test_every_part_is_a_part_and_every_aim_is_on_the_page(bench):
    parts = bench.sections()
    names = {name for part in parts.values() for name in part.AIMS}
    assert names >= RATIOS
    for part in parts.values():
        assert all(map(callable, (part.measure, part.ratios, part.render, part.packages)))
    figures = {"not_measured": {"integrate": "no room"}}
    text = bench.page.render({"ratios": {"text_peak_mb": 612.4}, "figures": figures}, parts)
    assert ["text: peak memory, MB", "612", "≤ 850"] in rows(text)
    assert ["text: documents/s to vaderSentiment and YAKE", "not measured", "≥ 30"] in rows(text)
    assert "Not measured: integrate: no room." in text


def test_what_a_run_of_the_text_part_says(bench):
    part = import_module("services.text")
    assert part.ratios(RUNS) == {
        "text_vs_vader_yake": 40.0, "text_docs_per_s": 1200.0, "text_peak_mb": 500.0
    }  # fmt: skip
    shown = rows(part.render(RUNS))
    assert shown[0] == ["10,000 reviews of 234 words", "documents/s", "peak MB"]
    assert ["ours: a workflow, file to file", "1,200", "500"] in shown


def test_the_memory_of_a_process_and_of_all_below_it_is_seen(bench, tmp_path):
    child = (
        "import time; held = bytearray(b'x' * 80_000_000); print('[]', flush=True); time.sleep(.5)"
    )
    script = tmp_path / "parent.py"
    script.write_text(
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {child!r}], check=True)\n"
        "print('{\"done\": 1}')\n"
    )
    found = bench.process.run(script)
    assert found.found == {"done": 1}
    assert found.peak_mb > 80


def test_a_program_that_fails_says_why(bench, tmp_path):
    script = tmp_path / "fails.py"
    script.write_text("raise SystemExit('no such corpus')")
    with pytest.raises(bench.process.Failed, match=r"fails.py: no such corpus"):
        bench.process.run(script)
