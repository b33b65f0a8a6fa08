"""`streamapp up` starts, restarts, stops cleanly, and refuses with the reason and the way out."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.models
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "streamapp"


def run_up(machine, *arguments, wait_s=90):
    """A start that is expected to fail: exit code and output."""
    machine.home.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "streamapp.cli", "up", "--no-tui", *arguments],
        env=machine.env, cwd=machine.home.parent, capture_output=True, text=True, timeout=wait_s, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stderr


@pytest.mark.timeout(300)
def test_sigterm_finishes_what_was_accepted_and_one_that_dies_is_started_again(machines):
    machine = machines()
    machine.home.mkdir()
    (machine.home / "random.py").write_text("raise SystemExit('a file of the user was imported')")
    machine.start()
    answers = [machine.post({"message": f"message {n}"}) for n in range(50)]
    pids = machine.pids()
    assert machine.stop() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())
    again = machines().start()
    again.wait_rows(50)
    ids = {row["id"] for row in again.rows("select id from events")}
    assert ids == {answer["id"] for answer in answers}
    start_again_and_end_with_the_supervisor(again)


def start_again_and_end_with_the_supervisor(machine):
    """Kill two of the four, and then who started them."""
    before = machine.pids()
    machine.kill("worker", "store")

    def back():
        now = machine.pids()
        return len(now) == 4 and all(map(machine.ready, machine.PROCESSES)) and now != before

    machine.wait_for(back, "worker and store to be back")
    assert machine.pids()["gateway"] == before["gateway"]
    assert "worker   | ended with signal SIGKILL" in machine.output()
    machine.post({"message": "after"})
    machine.wait_rows(51)
    pids = machine.pids()
    assert len(pids) == 4
    machine.process.send_signal(signal.SIGKILL)
    machine.wait_for(
        lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids.values()),
        "children to end",
    )


def test_a_port_in_use_is_named_with_its_flag(machines):
    machine = machines()
    with socket.create_server(("127.0.0.1", machine.ports["flight"])):
        code, said = run_up(machine)
    assert code == 2
    assert f"flight_port {machine.ports['flight']}" in said
    assert "--flight-port" in said


def test_a_home_that_is_no_folder_is_named(machines, tmp_path):
    machine = machines("file")
    machine.home.write_text("in the way")
    code, said = run_up(machine)
    assert code == 2
    assert str(machine.home) in said
    assert "--home" in said


def test_a_corrupt_catalogue_gives_file_line_and_column(machines, tmp_path):
    from streamapp.topics.catalogue import defaults

    topics = shutil.copytree(defaults("topics"), tmp_path / "topics")
    (topics / "events.raw.toml").write_text('name = "events.raw"\npartitions = = 4\n')
    code, said = run_up(machines(topics_dir=topics))
    assert code == 2
    assert "events.raw.toml:2:14: " in said


@pytest.mark.timeout(300)  # the worker is started three times
def test_a_model_that_is_not_what_was_pulled_is_refused(machines, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(CACHE / "models", cache / "models", copy_function=os.symlink)
    [model] = (cache / "models/embed/multilingual-e5-small").glob("*/model.onnx")
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.unlink()
    model.write_bytes(data)
    code, said = run_up(machines(models_cache=cache), wait_s=240)
    assert code == 2
    assert "model.onnx" in said
    assert "pull again" in said
