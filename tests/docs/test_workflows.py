"""What docs/workflows.md says of files, keys and runs is so."""

import json
import re
import shlex

import pytest
from pages import page
from ruamel.yaml import YAML

from streamapp.agents.flow.agent import IDLE_S
from streamapp.agents.flow.stage import HALVINGS_MAX
from streamapp.cli.app import main
from streamapp.workflow.graph.names import ALIASES
from streamapp.workflow.graph.spec import Document, Resources, RetryPolicy, Step

PAGE = page("workflows")


def keys(heading):
    rows = PAGE.section("Keys").split(f"| {heading} |")[1].split("\n\n")[0].splitlines()[2:]
    return [re.findall(r"`([^`]+)`", row.split("|")[1])[0] for row in rows]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMAPP_HOME", str(tmp_path / "home"))
    (tmp_path / "workflow.yaml").write_text(PAGE.section("A first workflow").blocks("yaml")[0])
    (tmp_path / "orders1.csv").write_text("id,amount\n1,5\n2,50\n")
    (tmp_path / "orders2.csv").write_text("id,amount\n3,150\n")
    return tmp_path


def test_the_first_workflow_runs(folder, capfd):
    lines = PAGE.section("A first workflow").blocks("sh")[0].splitlines()
    ended = [main(shlex.split(line)[1:]) for line in lines]
    out, err = capfd.readouterr()
    assert ended == [0, 0, 0, 0, 0, 2], out + err
    assert "is waiting to be resumed" in err
    assert (folder / "out" / "totals.csv").read_text().splitlines()[1:] == ["2,200"]
    assert (folder / "large" / "totals.csv").read_text().splitlines()[1:] == ["1,150"]
    provenance = json.loads((folder / "out" / "sales.provenance.json").read_text())
    assert provenance["params"] == {"least": 10}


def test_the_python_runs(folder, capsys):
    exec(
        PAGE.section("What runs, and what does not run again").blocks("python")[0],
        {"__name__": "__main__"},
    )
    assert capsys.readouterr().out == "done 2 ran\n"


def test_an_operation_of_one_s_own_keeps_the_contract():
    exec(PAGE.section("Operations of your own").blocks("python")[0], {"__name__": "shout"})


def test_the_keys_are_those_that_there_are():
    assert keys("key of the file") == list(Document.__struct_fields__)
    assert set(keys("key of a stage")) == set(Step.__struct_fields__)
    text = PAGE.section("Keys")
    for name, kind in {"retry": RetryPolicy, "resources": Resources}.items():
        shown = re.search(rf"^\| `{name}` \| `({{.*?}})`", text, re.MULTILINE)[1]
        assert set(YAML(typ="safe").load(shown)) == set(kind.__struct_fields__)
    for alias, service in ALIASES.items():
        assert service == "audio" or f"`{alias}`" in text


def test_the_numbers_of_runs_on_topics_are_the_code_s():
    text = PAGE.section("On topics")
    assert f"nothing came for {IDLE_S:.0f} s" in text
    assert f"(up to {HALVINGS_MAX} times for a record)" in text
