"""The project's example workflows do what they say."""

import shutil
from pathlib import Path

import duckdb
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
import pytest

from streamapp import Workflow
from streamapp.workflow.graph.load import load_graph
from streamapp.workflow.run.binding import find_problems
from streamapp.workflow.run.engine import Services

EXAMPLES = Path(__file__).parents[2] / "examples" / "workflows"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/workflow.yaml"))


def ran(tmp_path, name):
    """Run an example on a copy, and give its report and the folder of its outputs."""
    folder = tmp_path / name
    shutil.copytree(EXAMPLES / name, folder)
    graph = load_graph(folder / "workflow.yaml")
    services = Services(cache=tmp_path / "cache")
    report = Workflow.of(graph).run(folder_out=tmp_path / "out", services=services)
    assert report.state == "done", report.error
    return report, tmp_path / "out"


def test_each_is_in_the_list_and_has_no_problem():
    assert NAMES == ["customers", "orders", "reviews"]
    for name in NAMES:
        assert f"| `{name}` |" in (EXAMPLES / "README.md").read_text()
        assert find_problems(load_graph(EXAMPLES / name / "workflow.yaml"))[1] == []


def test_reviews(tmp_path):
    _, out = ran(tmp_path, "reviews")
    rows = pyarrow.json.read_json(out / "reviews.jsonl").to_pylist()
    assert [(row["document_id"], row["restaurant"]) for row in rows] == [
        ("r1", "Il Forno"), ("r2", "Il Forno"), ("r3", "Casa Verde"),
    ]  # fmt: skip
    scores = [row["sentiment"] for row in rows]
    assert scores[0] > 0.5
    assert scores[1] < scores[2] < scores[0]


def test_orders(tmp_path):
    report, out = ran(tmp_path, "orders")
    assert pyarrow.csv.read_csv(out / "customers.csv").to_pylist() == [
        {"customer": "ann", "orders": 2, "total": 139.9},
        {"customer": "bob", "orders": 1, "total": 250.0},
        {"customer": "dora", "orders": 1, "total": 75.5},
    ]
    assert pyarrow.parquet.read_table(out / "large-orders.parquet").num_rows == 4
    assert report.part("orders").rejected == 2
    [aside] = [
        path.read_text()
        for path in Path(out).rglob("*")
        if "quarantine" in str(path) and path.is_file()
    ]
    assert "2026-03.csv" in aside
    assert "'free'" in aside


def test_customers(tmp_path):
    _, out = ran(tmp_path, "customers")
    with duckdb.connect(out / "customers.duckdb", read_only=True) as connection:
        rows = connection.sql(
            "select email, name, city, phone from customers order by 1"
        ).fetchall()
    assert rows == [
        ("ann@example.com", "Ann Lee-Moreau", "Lyon", "555-0199"),
        ("bob@example.com", "Bob Ray", None, "555-0101"),
        ("cem@example.com", "Cem Oz", "Izmir", None),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_what_the_builder_writes_again(name, tmp_path):
    graph = load_graph(EXAMPLES / name / "workflow.yaml")
    Workflow.of(graph).save(tmp_path / "again.yaml")
    assert load_graph(tmp_path / "again.yaml") == graph
