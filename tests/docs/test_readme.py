"""Every command and snippet of the README runs, in order, on one machine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ENV = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
README = (Path(__file__).parents[2] / "README.md").read_text()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = [(kind, text) for kind, text in FENCE.findall(README)]
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.models


def commands(text):
    """The `$` lines of a console block, continuation lines joined."""
    return re.sub(r"\\\n> *", " ", text).replace("$ ", "").strip().split("\n")


def block(containing):
    [text] = [text for _, text in BLOCKS if containing in text]
    return text


def run(command, **options):
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=False, timeout=120, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_two_commands_are_targets_that_set_up_what_they_need():
    targets = [line.split()[1] for line in block("make demo ").splitlines()]
    assert targets == ["demo", "test"]
    for target in targets:
        assert run(f"make -n {target}", cwd=ROOT)


def test_the_console_and_the_snippets(machine):
    env = machine.env | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    curl, ask, tail, send, count = commands(block("curl -s"))
    answer = run(curl.replace("localhost:9382", f"localhost:{machine.ports['gateway']}"), env=env)
    assert '"event_type":"UserMessage"' in answer
    machine.wait_rows(1)
    assert re.search(r"Quero cancelar meu plano +pt +cancel", run(ask, env=env))
    machine.wait_for(lambda: len(machine.frames()[0]) == 1, "its frame")
    assert "velocity" in run(tail, env=env)
    assert "42 accepted" in run(send, env=env, cwd=ROOT)
    machine.wait_rows(43)
    assert re.search(r"cancel +[3-9]", run(count, env=env))

    machine.wait_for(lambda: len(machine.frames()[0]) == 43, "all frames")
    space = {"path": machine.ring, "uri": f"grpc://127.0.0.1:{machine.ports['flight']}"}
    exec(block("RingReader.open(path)"), space)
    assert space["frames"].semantic.shape == (32, 384)
    exec(block("flightsql.connect"), space)
    assert space["table"].num_rows == 10


def test_the_stage():
    space = {}
    exec(block("def word_count"), space)
    stage = space["word_count"]({})
    assert (stage.name, stage.version) == ("word_count", 1)


def test_the_stage_s_own_tests(tmp_path):
    file = tmp_path / "test_it.py"
    file.write_text(block("def word_count") + block("streamapp.use("))
    told = run(f"{sys.executable} -m pytest -q -p no:cacheprovider {file}", cwd=tmp_path)
    assert re.search(r"\b9 passed", told), told
    stage = tmp_path / "word_count.py"
    stage.write_text(block("def word_count"))
    told = run(f'streamapp invoke {stage} --text "two words" --json', env=ENV, cwd=tmp_path)
    assert json.loads(told)["words"] == 2


def test_on_apache_kafka(kafka, tmp_path):
    commands = block("STREAMAPP_BROKER=kafka").splitlines()
    exported, apply, _up = [command.split("#")[0].strip() for command in commands]
    name, url = exported.removeprefix("export ").split("=")
    env = ENV | {name: url.replace("127.0.0.1:9092", kafka.bootstrap)}
    told = run(apply, env=env | {"STREAMAPP_HOME": str(tmp_path)}, cwd=tmp_path)
    assert "events.enriched  4 partitions" in told


def test_the_app_of_one_s_own():
    space = {"__name__": "shop"}
    exec(block("streamapp.install"), space)
    read = [agent for agent in space["app"].agents.values() if agent.fun.__name__ == "read"]
    assert [agent.channel.get_topic_name() for agent in read] == ["reviews.enriched"]


@pytest.mark.parametrize("line", block("faust -A streamapp.worker worker").strip().split("\n"))
def test_the_faust_apps_are_found(line, tmp_path):
    env = os.environ | {"STREAMAPP_HOME": str(tmp_path)}
    agents = run(
        f"{Path(sys.executable).parent}/{line.removesuffix('worker')}agents", env=env, cwd=tmp_path
    )
    assert "events." in agents
    assert not list(tmp_path.glob("*.duckdb"))
