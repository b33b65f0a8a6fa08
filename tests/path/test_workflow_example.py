"""The first example of a workflow, as it was published: run, killed at random, gone on with."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import workflow_example

DOCUMENTS = 12
COMMAND = [sys.executable, "-P", "-m", "streamapp.cli"]


@pytest.fixture
def example(tmp_path):
    return workflow_example.make(tmp_path, DOCUMENTS)


@pytest.fixture
def start(example):
    place, settings = example

    def run(*arguments, home="home"):
        env = {**os.environ, **settings, "STREAMAPP_HOME": str(place.parent / home)}
        return subprocess.Popen(
            [*COMMAND, *arguments], cwd=place, env=env, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    return run


def finish(process):
    out, err = process.communicate(timeout=110)
    assert process.returncode == 0, out + err
    return json.loads(out)


def rows(place, out="out"):
    return json.loads((place / out / "classifications.json").read_text())


def workers_of(pid):
    """Processes that a process started."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def test_it_runs_unchanged(example, start):
    place, _ = example
    report = finish(start("run", "workflow.yaml", "--json"))
    assert report["state"] == "done"
    found = rows(place)
    assert [row["document_id"] for row in found] == [f"doc{n:03}" for n in range(DOCUMENTS)]
    assert [row["author"] is None for row in found] == [False, True] * (DOCUMENTS // 2)
    assert found[0]["sentiment"] > 0 > found[1]["sentiment"]
    assert all(row["keywords"] for row in found)
    assert {row["label"] for row in found} == {"bad"}
    parts = {part["name"]: part for part in report["parts"]}
    assert parts["model-inference"]["models"]
    again = finish(start("run", "workflow.yaml", "--json"))
    states = {p["name"]: p["state"] for p in again["parts"] if p["kind"] == "stage"}
    assert set(states.values()) == {"cached"}, again["parts"]


def _killed_and_resumed(place, start, chance, home):
    """Killed when a random number of results was kept, with its workers; then gone on with."""
    done = place.parent / home / "cache" / "workflows" / "v1" / "done"
    process = start("run", "workflow.yaml", "--json", "--out", home, home=home)
    kept = chance.randrange(0, 4)
    wait_for(
        lambda: (
            process.poll() is not None
            or (
                done.is_dir() and len(list(done.glob("*.json"))) >= kept and workers_of(process.pid)
            )
        )
    )
    workers = workers_of(process.pid) if process.poll() is None else []
    process.kill()
    process.communicate()
    wait_for(lambda: not any(map(is_alive, workers)))
    return finish(start("workflow", "resume", "workflow.yaml", "--json", home=home))


def test_killed_and_resumed_it_gives_the_same_rows(example, start):
    place, _ = example
    finish(start("run", "workflow.yaml", "--json", home="calm"))
    report = _killed_and_resumed(place, start, random.Random(8), "killed")
    assert report["state"] == "done"
    assert rows(place, "killed") == rows(place)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_many_times_and_resumed_it_gives_the_same_rows(example, start):
    place, _ = example
    finish(start("run", "workflow.yaml", "--json", home="calm"))
    for number in range(20):
        _killed_and_resumed(place, start, random.Random(number), f"killed{number}")
        assert rows(place, f"killed{number}") == rows(place)


def test_ctrl_c_ends_it_with_130_and_it_can_be_gone_on_with(example, start):
    place, _ = example
    process = start("run", "workflow.yaml")
    wait_for(lambda: process.poll() is not None or workers_of(process.pid))
    workers = workers_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "streamapp workflow resume" in err
    assert not any(map(is_alive, workers))
    assert finish(start("workflow", "resume", "--json"))["state"] == "done"
    assert len(rows(place)) == DOCUMENTS
