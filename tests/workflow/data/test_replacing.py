"""Outputs are there whole or not at all."""

import signal
import subprocess
import sys

import pytest

from streamapp.core.errors import Refuse
from streamapp.workflow.data.replacing import Together, replaced

WRITER = """
import sys, time
from pathlib import Path
from streamapp.workflow.data.replacing import replaced
with replaced(Path(sys.argv[1])) as part:
    part.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""
TWO = """
import sys, time
from pathlib import Path
from streamapp.workflow.data.replacing import Together, replaced
together = Together()
for name in sys.argv[1:]:
    with together.held(), replaced(Path(name)) as part:
        part.write_text("new")
print("written", flush=True)
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


def hold(together, *targets):
    for target in targets:
        with together.held(), replaced(target) as part:
            part.write_text(f"new {target.name}")


def test_files_that_are_held_take_their_places_together(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "sub" / "b.txt"
    first.write_text("old")
    together = Together()
    hold(together, first, second)
    assert first.read_text() == "old"
    assert not second.exists()
    with pytest.raises(Refuse, match="is being written by another run"), replaced(first):
        pass
    together.take_places()
    assert (first.read_text(), second.read_text()) == ("new a.txt", "new b.txt")
    assert names(tmp_path) == ["a.txt", "sub"]
    assert names(tmp_path / "sub") == ["b.txt"]
    hold(together, first)
    together.take_places()  # it may be used again, and nothing is locked


def test_of_files_that_are_held_none_is_new_where_one_cannot_be_written(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    (tmp_path / "folder").mkdir()
    together = Together()
    hold(together, target)
    with pytest.raises(Refuse, match="folder: Is a directory"):
        hold(together, tmp_path / "folder")
    together.take_places()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt", "folder"]


def test_a_kill_before_files_took_their_places_leaves_all_as_they_were(tmp_path):
    targets = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for target in targets:
        target.write_text("old")
    child = subprocess.Popen(
        [sys.executable, "-c", TWO, *map(str, targets)], stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"written\n"
    child.kill()
    child.wait()
    child.stdout.close()
    assert [target.read_text() for target in targets] == ["old", "old"]
    together = Together()
    hold(together, *targets)
    together.take_places()
    assert names(tmp_path) == ["a.txt", "b.txt"]
