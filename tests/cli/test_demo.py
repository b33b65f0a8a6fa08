"""A file that the demo cannot send is refused before anything is started."""

import subprocess
import sys
from pathlib import Path

import pytest

from streamapp.cli.app import main


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"message\n", "has no row below its heading"),
        (b"text\nhello\n", "no column 'message', there are: text"),
        (b"message\n\xff\xfe\n", "is not CSV in UTF-8"),
        (b"", "no column 'message'"),
    ],
)
def test_a_file_without_messages_is_refused(tmp_path, capsys, content, said):
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    assert main(["demo", "--file", str(path)]) == 2
    assert said in capsys.readouterr().err


AS_NOBODY = """
import os
from streamapp.cli.demo import temporary_home
from streamapp.core.config import Settings
from streamapp.ring.files import take_lock
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
with temporary_home(Settings(), keep=False) as own:
    take_lock(own.ring_file)
    print(own.ring_file)
"""


def test_each_user_s_demo_has_a_ring_that_is_gone_afterwards():
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ring = Path(done.stdout.strip())
    assert ring.name == "events.ring"
    assert not ring.parent.exists()


STOPPED = """
import os, signal, sys, threading
import streamapp.cli.demo as demo
from streamapp.cli import main
def prepare(settings):
    print(settings.home, settings.ring_path.parent, flush=True)
    os.kill(os.getpid(), signal.SIG{name})
    threading.Event().wait(30)
demo.prepare = prepare
sys.exit(main(["demo"]))
"""


@pytest.mark.parametrize("name", ["TERM", "HUP", "INT"])
def test_whatever_stops_it_nothing_is_left(name):
    done = subprocess.run(
        [sys.executable, "-c", STOPPED.format(name=name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.strip()) == (130, "")
    for left in done.stdout.split():
        assert left.rpartition("/")[2].startswith("streamapp-demo-")
        assert not Path(left).exists()
