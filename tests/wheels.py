"""The wheel of this tree, built once for all who look at it: a pytest plugin."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def copy_of_the_tree(to):
    """The sources alone, so that a build leaves the tree as it is."""
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.so", "__pycache__", "*.egg-info")
    return shutil.copytree(ROOT, to, ignore=ignored)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """Its path."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # with the other processes that run tests
    folder = shared / "wheel"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "tree").exists():
            _build(folder)
    [path] = folder.glob("streamapp-*.whl")
    return path


def _build(folder):
    tree = copy_of_the_tree(folder / "tree")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "-w", folder, tree],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
