"""What docs/services.md says of pipelines, windows and labels: it runs, and its tables are the code's."""

import re
import shlex

import msgspec
import pytest
from pages import page

from streamapp.cli.app import main
from streamapp.plugin.registered import known, make
from streamapp.services.infer.operation import InferConfig
from streamapp.services.pipeline.run import TRANSFORMS
from streamapp.services.pipeline.window.spec import Spans, WindowConfig
from streamapp.workflow.graph.load import load_graph

PAGE = page("services")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text(
        "id,content,city,age\n1,hello,Ulm,36\n2,,Ulm,7\n3,world,Bonn,x\n3,again,Bonn,41\n"
    )
    return tmp_path


def test_the_commands_run(folder, capsys):
    for line in PAGE.section("Pipeline").blocks("bash")[0].splitlines():
        assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    assert (folder / "clean.csv").read_text().splitlines()[1:] != []
    assert len((folder / "bad.jsonl").read_text().splitlines()) == 1


def test_the_program_runs(folder):
    [program] = PAGE.section("Pipeline").blocks("python")
    exec(compile(program, "docs/services.md", "exec"), {"__name__": "example"})
    assert (folder / "output.csv").exists()


def test_the_query_is_one(capsys):
    [program] = PAGE.section("Windows").blocks("python")
    exec(compile(program, "docs/services.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.startswith("SELECT make_timestamp(")


@pytest.mark.parametrize("name", ["Pipeline", "Windows", "Infer"])
def test_the_workflows_are_some(name, folder):
    [text] = PAGE.section(name).blocks("yaml")
    (folder / "workflow.yaml").write_text(text)
    graph = load_graph(folder / "workflow.yaml")
    for step in graph.stages:
        make(f"{step.service}.{step.operation}", step.config)


def test_the_tables_name_what_there_is():
    named = re.findall(r"^\| `(\w+)` \|", PAGE.section("Pipeline"), re.MULTILINE)
    assert sorted(named) == sorted([*TRANSFORMS, "run"])
    assert {f"pipeline.{name}" for name in named} <= set(known())
    for row in re.findall(r"^\| `(\w+)` \| `(\w+)`(.*?)\|", PAGE.section("Pipeline"), re.MULTILINE):
        fields = TRANSFORMS[row[0]].Config.__struct_fields__ if row[0] != "run" else ["transforms"]
        said = [row[1], *re.findall(r"`(\w+)`", row[2])]
        assert set(said) <= set(fields), row
    kinds = re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE.section("Windows"), re.MULTILINE)
    for kind, made_of in kinds:
        keys = dict.fromkeys(re.findall(r"`(\w+)`", made_of), "10s")
        Spans(WindowConfig(time="t", kind=kind, columns={"n": "count(*)"}, **keys))
    assert len(kinds) == 4


def test_the_keys_of_infer_are_the_code_s():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE.section("Infer"), re.MULTILINE)
    assert [name for name, _ in rows] == [
        "model", "models", "ensemble", "weights", "text", "threshold", "label", "probability",
        "probabilities", "route", "key", "batch_rows",
    ]  # fmt: skip
    fields = {field.name: field.default for field in msgspec.structs.fields(InferConfig)}
    assert set(fields) == {name for name, _ in rows}
    for name, default in rows:
        if default.startswith("`"):
            assert str(fields[name]) == default.strip("`")
