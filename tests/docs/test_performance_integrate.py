"""Contenders of the integration's benchmark do the same work: they write the same values."""

from importlib import import_module
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench"
RECORDS = 2_000


@pytest.fixture
def part(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # contenders are allowed pandas
    return import_module("services.integrate")


def test_every_way_writes_the_same_and_a_value_that_differs_is_seen(part, tmp_path):
    process = import_module("services.process")
    same = import_module("services.integrate_same")
    process.run(BENCH / "services" / "integrate_records.py", str(tmp_path), str(RECORDS))
    runs = part.in_turn(tmp_path)
    assert runs.keys() == {"ours", "workflow", "theirs", "fastest", "polars"}
    found = [(run.found["things"], run.found["conflicts"].get("amount")) for run in runs.values()]
    assert len(set(found)) == 1
    written = tmp_path / "polars" / "customers.parquet"
    result = pl.read_parquet(written)
    assert same.check(tmp_path / "ours", tmp_path / "polars") == len(result)
    changed = pl.when(pl.int_range(pl.len()) == 7).then(pl.lit("Atlantis"))
    result.with_columns(changed.otherwise("city").alias("city")).write_parquet(written)
    with pytest.raises(same.Different, match=r"city of .*: 1 rows, such as 7"):
        same.check(tmp_path / "ours", tmp_path / "polars")


def test_the_table_has_a_row_for_every_way_that_was_measured(part):
    one = {"rec_per_s": 1e5, "peak_mb": 600.0, "things": 9}
    figures = {"records": 20, "quality": {"records": 5, "splink_not_measured": "no network"}}
    text = part.render(figures | {who: [one] for who in part.WAYS})
    assert text.count("|   100,000 |") == len(part.WAYS)
    assert "| polars and rapidfuzz's loop " in text
    assert "polars" not in part.render(
        figures | {who: [one] for who in part.WAYS.keys() - {"polars"}}
    )
