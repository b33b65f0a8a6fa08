"""What docs/workflows.md says of inputs, outputs, the builder, pictures and lineage is so."""

import re

import pytest
from msgspec.structs import fields
from pages import page
from ruamel.yaml import YAML

from streamapp.workflow.data import declared_sources, format_of, reader_of, readers, writers
from streamapp.workflow.data.contract import Place
from streamapp.workflow.data.named_models import declared_models
from streamapp.workflow.graph.load import graph_of, load_graph
from streamapp.workflow.graph.schema import json_schema

PAGE = page("workflows")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_of_formats_has_them_all_and_their_options():
    lines = PAGE.section("Inputs and outputs").splitlines()
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:3] == "| `"
    ]
    rows = [(cell[0].strip("`"), *cell[1:]) for cell in cells]
    assert {row[0] for row in rows} == {*readers(), *writers()}
    for name, suffixes, reads, writes, options in rows:
        assert (reads == "yes", writes == "yes") == (name in readers(), name in writers())
        kind = reader_of(name)
        for suffix in re.findall(r"`(\.\w+)`", suffixes):
            assert format_of(f"x{suffix}") == name
            assert suffix in kind.suffixes
        known = {field.name for field in fields(kind.Options)} | kind.takes
        for option in re.findall(r"`(\w+)`", options.partition("written:")[0]):
            assert option in known or name == "text", (name, option)


def test_the_workflow_of_many_inputs_is_one(folder):
    [text] = PAGE.section("Inputs and outputs").blocks("yaml")
    (folder / "workflow.yaml").write_text(text)
    graph = load_graph(folder / "workflow.yaml")
    for declared in graph.inputs.values():
        kind = reader_of(
            declared.format
            or (
                format_of(declared.path or declared.pattern)
                if declared.type == "file"
                else declared.type
            )
        )
        assert set(declared.options) <= {field.name for field in fields(kind.Options)}


def test_bad_rows_are_told_as_the_page_says(folder):
    (folder / "rows.csv").write_text(
        'id,name,price,born\n1,a,1,2020-01-01\n2,"b\nc",x,2020-01-02\n3,d\n'
    )
    found = []
    kind = reader_of("csv")
    options = kind.Options(columns={"price": "double"})
    place = Place("rows", folder=folder, paths=(folder / "rows.csv",), on_bad=found.append)
    kind(place, options).read().read_all()
    lines = sorted(f"{row.origin}:{row.line}: {row.reason}" for row in found)
    assert "\n".join(lines) + "\n" == PAGE.section("Inputs and outputs").blocks("text")[0]


def test_the_declarations_are_read(folder, monkeypatch):
    monkeypatch.setenv("ORDERS_URL", "postgresql://host/db")
    (folder / "streamapp.toml").write_text(
        PAGE.section("Declared sources and models").blocks("toml")[0]
    )
    assert declared_sources(folder).names == ("metadata-db", "orders")
    assert declared_models(None, folder).resolve("text-classifier-v2") == "classify/reviews@2"


def test_the_python_of_the_page_runs(folder, capsys):
    """In the page's order: what one writes the next reads."""
    names = {}
    for title in ("Inputs and outputs", "In Python", "Pictures, schema, lineage"):
        for text in PAGE.section(title).blocks("python"):
            exec(text, names)  # the page's own
    assert names["graph"] == names["workflow"].graph()
    assert (folder / "reviews.svg").read_text().startswith("<svg")
    out = capsys.readouterr().out
    assert "flowchart LR" in out
    assert "['continue', 'fail', 'skip']" in out
    assert graph_of(YAML(typ="safe").load(names["workflow"].to_yaml()), folder) == names["graph"]
    assert names["lost"] == 0
    assert json_schema()["title"]
