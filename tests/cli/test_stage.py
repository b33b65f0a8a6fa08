"""``streamapp stage``."""

import shlex
import subprocess
import sys

import pytest


def test_ls_tells_what_runs_from_what_is_installed(run):
    stages = {row["stage"]: row for row in run("stage", "ls", "--json").json}
    assert {"language", "embed", "intent", "sentiment", "kinetics"} <= set(stages)
    assert stages["embed"]["runs"] is True
    assert stages["embed"]["where"] == "streamapp.stages.embed:Embed"
    assert "embed" in run("stage", "ls").out


def test_ls_shows_a_stage_that_is_not_installed(run, clean):
    (clean / "topics").mkdir()
    (clean / "topics/workflow.toml").write_text('[workflow]\nstages = ["embedd"]\n')
    table = run("stage", "ls", "--topics-dir", "topics").out
    assert "not installed" in table


def test_new_writes_a_stage_whose_test_passes(run, clean):
    result = run("stage", "new", "shouting")
    assert result.code == 0, result.err
    assert "pip install -e stages/shouting" in result.out
    folder = clean / "stages/shouting"
    assert (folder / "pyproject.toml").is_file()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [line] = [line for line in result.out.splitlines() if line.startswith("try it: streamapp ")]
    tried = run(*shlex.split(line.removeprefix("try it: streamapp ")), "--json")
    assert (tried.code, tried.json["shouting"]) == (0, 2)


def test_what_the_readme_of_a_new_stage_says_works(run, clean, monkeypatch):
    run("stage", "new", "shouting")
    folder = clean / "stages/shouting"
    monkeypatch.chdir(folder)
    readme = (folder / "README.md").read_text()
    [line] = [line.strip() for line in readme.splitlines() if "streamapp invoke" in line]
    result = run(*shlex.split(line)[1:])
    assert (result.code, result.out.split()[-1]) == (0, "2")


def test_new_overwrites_nothing(run):
    run("stage", "new", "shouting")
    result = run("stage", "new", "shouting")
    assert result.code == 2
    assert "shouting" in result.err


@pytest.mark.parametrize("name", ["Shouting", "two words", "../up", "class", ""])
def test_a_name_that_is_none_is_refused(run, name):
    result = run("stage", "new", name)
    assert result.code == 2
    assert "Traceback" not in result.err
