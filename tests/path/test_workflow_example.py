"""The first example of a workflow, as it was published: run, killed at random, gone on with."""

import json
import random
import signal
from pathlib import Path

import pytest
from example_workflow import example_folder, start
from machine import children_of, kill, wait_for

DOCUMENTS = 12


@pytest.fixture
def env(tmp_path):
    return example_folder(tmp_path, DOCUMENTS)


def finish(process):
    out, err = process.communicate(timeout=110)
    assert process.returncode == 0, out + err
    return json.loads(out)


def rows(folder, out="out"):
    return json.loads((folder / "project" / out / "classifications.json").read_text())


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def written(*folders):
    """How many files a run has begun or ended in those folders."""
    return sum(path.is_file() for folder in folders for path in folder.rglob("*"))


def test_it_runs_unchanged_and_stopped_or_killed_it_goes_on_to_the_same_rows(tmp_path, env):
    report = finish(start(tmp_path, env, "run", "workflow.yaml", "--json"))
    assert report["state"] == "done"
    found = rows(tmp_path)
    assert [row["document_id"] for row in found] == [f"doc-{n:05}" for n in range(DOCUMENTS)]
    assert [row["author"] is None for row in found] == [n % 7 == 0 for n in range(DOCUMENTS)]
    assert found[0]["sentiment"] > 0 > found[1]["sentiment"]
    assert all(row["keywords"] for row in found)
    assert {row["label"] for row in found} == {"bad"}
    parts = {part["name"]: part for part in report["parts"]}
    assert parts["model-inference"]["models"]
    plan = finish(start(tmp_path, env, "workflow", "plan", "workflow.yaml", "--json"))
    assert {part["will"] for part in plan if part["kind"] == "stage"} == {"use"}, plan

    anew = {**env, "STREAMAPP_HOME": str(tmp_path / "anew")}
    _stopped_by_ctrl_c(tmp_path, anew)
    killed = start(tmp_path, anew, "workflow", "resume")
    done = tmp_path / "anew" / "cache" / "workflows" / "v1" / "done"
    wait_for(lambda: killed.poll() is not None or len(list(done.glob("*.json"))) >= 2)
    workers = children_of(killed.pid)
    assert killed.poll() is None, killed.communicate()
    kill(killed.pid)
    killed.communicate()
    wait_for(lambda: not any(map(is_alive, workers)))
    resumed = finish(start(tmp_path, anew, "workflow", "resume", "workflow.yaml", "--json"))
    states = {p["name"]: p["state"] for p in resumed["parts"]}
    assert states["documents"] == "cached"
    assert rows(tmp_path, "anew") == found


def _stopped_by_ctrl_c(folder, env):
    process = start(folder, env, "run", "workflow.yaml", "--out", "anew")
    wait_for(lambda: process.poll() is not None or children_of(process.pid))
    workers = children_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "streamapp workflow resume" in err
    assert not any(map(is_alive, workers))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_many_times_and_resumed_it_gives_the_same_rows(tmp_path):
    """Each kill is of the engine or of a worker, when it has written so many files more."""
    env = example_folder(tmp_path, 300)
    finish(start(tmp_path, env, "run", "workflow.yaml", "--json"))
    chance = random.Random(8)
    kills = {"engine": 0, "worker": 0}
    while sum(kills.values()) < 20:
        name = f"after{sum(kills.values())}"
        env["STREAMAPP_HOME"] = str(tmp_path / name)
        while victim := _killed_on_its_way(tmp_path, env, name, chance):
            kills[victim] += 1
        assert rows(tmp_path, name) == rows(tmp_path)
        left = [path.name for path in (tmp_path / "project" / name).rglob("*")]
        assert sorted(left) == ["classifications.json", "text-processing-pipeline.provenance.json"]
    assert all(kills.values()), kills


def _killed_on_its_way(folder, env, name, chance):
    """Run the example and kill a part of it: which; nothing when it had ended before."""
    process = start(folder, env, "run", "workflow.yaml", "--json", "--out", name)
    folders = (folder / name, folder / "project" / name)
    goal = written(*folders) + chance.randrange(2, 16)
    wait_for(lambda: process.poll() is not None or written(*folders) >= goal)
    workers = children_of(process.pid) if process.poll() is None else []
    victim = chance.choice([process.pid, *workers])
    if process.returncode is None:
        kill(victim)
    out, err = process.communicate(timeout=110)
    wait_for(lambda: not any(map(is_alive, workers)))
    if process.returncode == 0:
        return ""
    if victim == process.pid:
        assert process.returncode == -signal.SIGKILL, out + err
        return "engine"
    assert process.returncode == 70, out + err
    assert json.loads(out)["error"]["code"] == "workflow.crashed"
    return "worker"
