"""What an installation is: versions, entry points, typed, light to import, complete as a wheel."""

import os
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def project():
    path = Path(__file__).resolve().parents[2] / "pyproject.toml"
    return tomllib.loads(path.read_text())["project"]


def test_the_installed_version_is_the_declared_one(project):
    assert version("streamapp") == project["version"]


def test_the_changelog_knows_this_version(root, project):
    text = (root / "CHANGELOG.md").read_text()
    assert "Unreleased" in text or f"[{project['version']}]" in text


def test_entry_points_resolve(project):
    groups = {"scripts": project["scripts"], **project["entry-points"]}
    for group, entries in groups.items():
        for name, target in entries.items():
            module, _, attribute = target.partition(":")
            found = import_module(module)  # pytest11 names a module
            assert not attribute or callable(getattr(found, attribute)), f"{group}: {name}"


def test_import_is_light():
    code = "import sys, streamapp; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"faust", "mode", "pyarrow", "duckdb", "onnxruntime"}


def test_it_is_typed(root):
    assert (root / "streamapp" / "py.typed").is_file()


def test_click_stays_within_faust_s_bound(project):
    assert "click>=8.1,<8.4" in project["dependencies"]


@pytest.mark.timeout(300)
def test_the_wheel_is_complete(root, wheel):
    names = zipfile.ZipFile(wheel).namelist()
    defaults = [name for name in names if name.startswith("streamapp/_defaults/")]
    for kind in ("topics", "models"):
        below = (root / kind).rglob("*")
        files = {path.relative_to(root).as_posix() for path in below if path.is_file()}
        assert {f"streamapp/_defaults/{name}" for name in files} <= set(defaults)
    assert "streamapp/py.typed" in names
    for extension in ("streamapp/ring/_ring", "streamapp/topics/_scan", "streamapp/sink/_keys"):
        assert any(name.startswith(extension) and name.endswith(".so") for name in names)
    assert not [name for name in names if name.endswith((".c", ".h"))]
    assert not [
        name for name in names if name.startswith(("tests/", "bench/", "topics/", "models/"))
    ]


PLUGGED = """
from streamapp.plugin import stage
from streamapp.testing.contracts.stage import StageContract

@stage("words", version=1, reads=["text"], writes={"words": "int32"})
def words(text):
    return {"words": len(text.split())}

def test_words(streamapp):
    assert streamapp.use(words).send("hello world")[0]["words"] == 2
    assert "site" in __import__("streamapp").__file__

class TestWords(StageContract):
    stage = words
"""


@pytest.mark.timeout(300)
def test_the_wheel_brings_the_pytest_plugin(wheel, tmp_path):
    """Its fixtures are there as soon as it is installed, and warn of nothing."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
    subprocess.run([*pip, str(tmp_path / "site"), str(wheel)], check=True)
    (tmp_path / "test_it.py").write_text(PLUGGED)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-W", "error", "-q", "-p", "no:asyncio"],
        check=False, cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert "9 passed" in done.stdout, done.stdout + done.stderr
