"""What docs/services.md says of text: its commands, programs and workflow run, its tables are the code's."""

import re
import shlex
from pathlib import Path

import msgspec
import pytest
from pages import page

from streamapp.cli.app import main
from streamapp.services.text.analyze import AnalyzeConfig
from streamapp.services.text.analyzer import Wanted, types_of
from streamapp.services.text.keyword_rows import KeywordsConfig
from streamapp.services.text.similarity import SimilarityConfig
from streamapp.workflow.graph.load import load_graph

SECTION = page("services").section("Text")


def tables(heading):
    """First and second cells of each row of the tables under a heading."""
    part = SECTION[SECTION.index(f"### {heading}\n") :].split("\n### ")[0]
    found = [
        re.findall(r"^\| `(\w+)` \| (.*?) \|", rows, re.MULTILINE) for rows in part.split("\n\n")
    ]
    return [dict(rows) for rows in found if rows]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("The red wine was excellent.")
    (tmp_path / "b.txt").write_text("The red wine was bad.")
    return tmp_path


def test_the_commands_run(folder, capsys):
    for line in SECTION.blocks("bash")[0].splitlines():
        names = [name for word in shlex.split(line) for name in spread(word)]
        assert main(names[1:]) == 0, capsys.readouterr().err
    assert (folder / "analyzed.parquet").exists()


def spread(word):
    """As a shell does."""
    return sorted(map(str, Path().glob(word))) if "*" in word else [word]


@pytest.mark.parametrize("program", SECTION.blocks("python"))
def test_the_programs_run(program):
    exec(compile(program, "docs/services.md", "exec"), {"__name__": "example"})


def test_the_workflow_is_one(folder):
    (folder / "workflow.yaml").write_text(SECTION.blocks("yaml")[0])
    [step] = load_graph(folder / "workflow.yaml").stages
    assert msgspec.convert(step.config, AnalyzeConfig).extract_keywords


@pytest.mark.parametrize(
    ("heading", "config"),
    [
        ("text.analyze", AnalyzeConfig),
        ("text.keywords", KeywordsConfig),
        ("text.similarity", SimilarityConfig),
    ],
)
def test_every_key_is_there_with_its_default(heading, config):
    said = tables(heading)[0]
    fields = {field.name: field.default for field in msgspec.structs.fields(config)}
    assert set(said) == set(fields)
    for name, shown in said.items():
        if shown.startswith("`"):
            assert shown.strip("`") == str(fields[name]).replace("True", "true").replace(
                "False", "false"
            )
        else:
            assert not fields[name]


def test_every_column_is_there_with_its_type():
    kinds = {"int32": "int32", "double": "float64", "float": "float32", "string": "string"}
    types = types_of(Wanted(sentiment=True, keywords=True, language=True))
    said = tables("text.analyze")[1]
    assert set(said) == set(types)
    for name, kind in types.items():
        assert said[name].startswith(kinds.get(str(kind), str(kind).partition("<")[0]))
