"""The wheel of this tree, built once for all who look at it: a pytest plugin."""

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
    folder = tmp_path_factory.mktemp("wheel")
    tree = copy_of_the_tree(folder / "tree")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "-w", folder, tree],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = folder.glob("streamapp-*.whl")
    return path
