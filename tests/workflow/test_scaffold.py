"""A new stage: a package that works, and nothing overwritten."""

import subprocess
import sys
from pathlib import Path

import pytest

from streamapp.core.errors import Refuse
from streamapp.workflow.scaffold import scaffold

ROOT = Path(__file__).parents[2]


def test_its_own_test_passes(tmp_path):
    files = scaffold("shout_2", tmp_path)
    assert {path.name for path in files} >= {"pyproject.toml", "shout_2_stage.py"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, cwd=tmp_path / "shout_2", capture_output=True, text=True, check=False
    )
    assert "10 passed" in done.stdout, done.stdout


def test_the_example_is_what_is_written(tmp_path):
    example = ROOT / "examples/plugin_word_count"
    for path in scaffold("word_count", tmp_path):
        assert (example / path.relative_to(tmp_path / "word_count")).read_text() == path.read_text()


@pytest.mark.parametrize("name", ["", "Word", "2x", "a-b", "class", "a/b", "a" * 49, ".."])
def test_other_names_are_refused(tmp_path, name):
    with pytest.raises(Refuse) as caught:
        scaffold(name, tmp_path)
    assert caught.value.fix
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(Refuse, match="there already"):
        scaffold("mine", tmp_path)
