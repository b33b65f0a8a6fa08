import os

import lab
import pytest


@pytest.fixture(autouse=True)
def operations(tmp_path_factory, monkeypatch):
    """The lab's operations, as if a package had brought them."""
    yield from lab.installed(tmp_path_factory, monkeypatch)


@pytest.fixture
def project(tmp_path):
    """A project whose rows were written long ago, so that a run may know them again."""
    made = lab.Lab(tmp_path)
    os.utime(made.folder / "rows.jsonl", (1, 1))
    return made
