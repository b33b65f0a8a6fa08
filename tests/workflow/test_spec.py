"""Workflow files: what is wrong is said with its place, and with a way out."""

from pathlib import Path

import pytest

from streamapp.core.errors import Refuse
from streamapp.plugin import stage
from streamapp.workflow.spec import installed_stages, load_workflow, make_stages


@stage("shout", version=1, reads=["text"], writes={"shouted": "string"})
def shout(text):
    return {"shouted": text.upper()}


def written(tmp_path, text):
    path = tmp_path / "workflow.toml"
    path.write_text(text)
    return path


def refusal(call, *arguments):
    with pytest.raises(Refuse) as caught:
        call(*arguments)
    assert caught.value.fix
    return caught.value


def test_the_shipped_workflow_loads_and_its_stages_are_installed():
    workflow = load_workflow(Path(__file__).parents[2] / "topics/workflow.toml")
    assert [made.name for made in make_stages(workflow)] == list(workflow.stages)
    assert set(workflow.stages) <= set(installed_stages())


def test_toml_errors_have_a_place(tmp_path):
    path = written(tmp_path, '[workflow]\nstages = ["embed"\n')
    assert f"{path}:3:" in refusal(load_workflow, path).message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "workflow"),
        ("[workflow]\nstages = []", "stages"),
        ('[workflow]\nstages = "embed"', "stages"),
        ('[workflow]\nstages = ["a"]\nstage_ms = 3', "stage_ms"),
        ('[workflow]\nstages = ["a"]\nstage_ms_max = 0', "stage_ms_max"),
        ('[workflow]\nstages = ["a"]\n[stage.a]\nx = 1', "stage"),
        ('[workflow]\nstages = ["a", "a"]', "'a' is named twice"),
        ('[workflow]\nstages = ["a"]\n[stages.b]\nx = 1', "stages.b"),
    ],
)
def test_a_wrong_declaration_is_named(tmp_path, text, says):
    path = written(tmp_path, text)
    error = refusal(load_workflow, path)
    assert str(path) in error.message
    assert says in error.message


def test_options_for_a_misspelt_stage_suggest_the_right_one(tmp_path):
    path = written(tmp_path, '[workflow]\nstages = ["embed"]\n[stages.embde]\nkind = "query"')
    assert refusal(load_workflow, path).fix == "did you mean 'embed'?"


def test_an_unknown_stage_suggests_the_nearest(tmp_path):
    workflow = load_workflow(written(tmp_path, '[workflow]\nstages = ["embedd"]'))
    error = refusal(make_stages, workflow)
    assert "'embedd'" in error.message
    assert error.fix == "did you mean 'embed'?"


def test_wrong_options_name_the_file(tmp_path):
    path = written(tmp_path, '[workflow]\nstages = ["embed"]\n[stages.embed]\nkinds = "query"')
    error = refusal(make_stages, load_workflow(path))
    assert str(path) in error.message
    assert error.fix == "did you mean kind?"


def test_factories_come_before_what_is_installed(tmp_path):
    workflow = load_workflow(written(tmp_path, '[workflow]\nstages = ["shout"]'))
    assert make_stages(workflow, {"shout": shout})[0].writes
    workflow = load_workflow(written(tmp_path, '[workflow]\nstages = ["loud"]'))
    assert "calls itself 'shout'" in refusal(make_stages, workflow, {"loud": shout}).message


def test_a_plugin_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    from importlib.metadata import EntryPoint

    points = [EntryPoint("broken", "no_such_module:Stage", "streamapp.stages")]
    monkeypatch.setattr("streamapp.plugin.installed.entry_points", lambda group: points)
    workflow = load_workflow(written(tmp_path, '[workflow]\nstages = ["broken"]'))
    assert "no_such_module" in refusal(make_stages, workflow).message


def test_two_packages_may_not_register_one_name(monkeypatch):
    from importlib.metadata import EntryPoint

    points = [EntryPoint("a", f"{name}:Stage", "streamapp.stages") for name in ("one", "two")]
    monkeypatch.setattr("streamapp.plugin.installed.entry_points", lambda group: points)
    assert "one:Stage" in refusal(installed_stages).message
