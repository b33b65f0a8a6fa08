"""Outputs are there whole or not at all."""

import signal
import subprocess
import sys

import pytest

from streamapp.core.errors import Refuse
from streamapp.workflow.data.replacing import replaced

WRITER = """
import sys, time
from pathlib import Path
from streamapp.workflow.data.replacing import replaced
with replaced(Path(sys.argv[1])) as part:
    part.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "sub" / "out.txt"
    with replaced(target) as part:
        part.write_text("one")
    with pytest.raises(ZeroDivisionError), replaced(target) as part:  # noqa: PT012
        part.write_text("two")
        assert target.read_text() == "one"
        raise ZeroDivisionError
    assert target.read_text() == "one"
    assert names(target.parent) == ["out.txt"]


def test_a_writer_that_is_killed_leaves_what_was_there_and_the_next_one_goes_on(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("old")
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"writing\n"
    with pytest.raises(Refuse, match="is being written by another run"), replaced(target):
        pass
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert target.read_text() == "old"
    with replaced(target) as part:
        part.write_text("new")
    assert target.read_text() == "new"
    assert names(tmp_path) == ["out.txt"]


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Refuse, match="check its folder"), replaced(tmp_path / "file" / "out"):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(Refuse, match="folder"), replaced(tmp_path / "folder") as part:
        part.write_text("x")
    assert names(tmp_path) == ["file", "folder"]
