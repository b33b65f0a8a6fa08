"""What docs/services.md and docs/workflows.md say of callers in other programs is run as it stands."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gateway_thread import GatewayThread
from pages import page

from streamapp.cli.app import main
from streamapp.gateway import GatewayConfig
from streamapp.gateway.services import calls, processes, runs
from streamapp.workflow import callee, load_workflow
from streamapp.workflow.spec import make_stages

DOCS = Path(__file__).parents[2] / "docs"
DEFAULT = "http://127.0.0.1:9382"


CALLERS = "From other programs"
BASH = page("services").section(CALLERS).blocks("bash")


@pytest.fixture(scope="module")
def gateway():
    with GatewayThread() as found:
        yield found


def shell(script, cwd):
    env = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(cwd)}
    done = subprocess.run(  # noqa: PLW1510  # looked at below
        ["bash", "-euc", script], cwd=cwd, env=env, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl(gateway, tmp_path):
    (row,) = json.loads(shell(BASH[0].replace(DEFAULT, gateway.url), tmp_path))["rows"]
    assert row["sentiment_label"] == "positive"


def test_node(gateway, tmp_path):
    if shutil.which("node") is None:
        pytest.skip("no node")
    (program,) = page("services").section(CALLERS).blocks("js")
    (tmp_path / "analyze.mjs").write_text(program.replace(DEFAULT, gateway.url))
    assert shell("node analyze.mjs", tmp_path) == "a positive\n"


def test_java(gateway, tmp_path):
    if shutil.which("java") is None:
        pytest.skip("no java")
    (program,) = page("services").section(CALLERS).blocks("java")
    (tmp_path / "Analyze.java").write_text(program.replace(DEFAULT, gateway.url))
    status, _, body = shell("java Analyze.java", tmp_path).partition(" ")
    assert status == "200"
    assert json.loads(body)["rows"][0]["sentiment_label"] == "positive"


def test_runs_over_curl(tmp_path):
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "reviews.yaml").write_text("name: reviews\nstages: []\n")
    with GatewayThread(project=tmp_path, runs_folder=tmp_path / "runs") as gateway:
        started, listed = BASH[1].replace(DEFAULT, gateway.url).splitlines()
        run = json.loads(shell(started, tmp_path))
        assert run["id"] in [each["id"] for each in json.loads(shell(listed, tmp_path))]


def test_standard_streams(tmp_path):
    first, second = map(json.loads, shell(BASH[2], tmp_path).splitlines())
    assert (first["id"], first["rows"][0]["words"]) == (1, 3)
    assert (second["id"], second["error"]["code"]) == (2, "workflow.operation")


def test_python(capsys):
    (program,) = page("services").section(CALLERS).blocks("python")
    exec(compile(program, "docs/services.md", "exec"), {"__name__": "example"})
    assert "positive" in capsys.readouterr().out


def test_limits_are_the_codes():
    said = dict(
        re.findall(r"^\| (.*?) \| (.*?) \|$", page("services").section(CALLERS), re.MULTILINE)
    )
    config = GatewayConfig()
    assert (
        said["rows of a request, those of its sources included"] == f"{config.service_rows_max:,}"
    )
    assert said["seconds of a call"] == f"{config.service_s_max:g}, then 504"
    assert said["calls that run, each in a process of its own"] == str(processes.AT_ONCE)
    assert said["memory of a call's process"] == f"{callee.PROCESS_BYTES_MAX >> 30} GiB, then 413"
    assert said["bytes of a result"] == f"{callee.RESULT_BYTES_MAX >> 20} MiB, then 413"
    assert said["calls that run or wait"] == f"{calls.CALLS_MAX}, then 429"
    assert (runs.AT_ONCE, runs.WAITING_MAX, runs.KEPT_MAX) == (2, 20, 100)


def test_functions_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMAPP_HOME", str(tmp_path / "home"))
    title = "Functions of your own"
    (tmp_path / "analytics").mkdir()
    (tmp_path / "analytics" / "clean.py").write_text(
        page("services").section(title).blocks("python")[0]
    )
    for line in page("services").section(title).blocks("bash")[0].splitlines():
        assert main(line.split()[1:]) == 0, capsys.readouterr().err
    (tmp_path / "lines.jsonl").write_text('{"text": " a b "}\n{"text": ""}\n')
    (tmp_path / "flow.yaml").write_text(page("services").section(title).blocks("yaml")[0])
    capsys.readouterr()
    assert main(["dev", "flow.yaml", "--once", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == [{"text": "a b", "words": 2}]
    toml = tmp_path / "workflow.toml"
    toml.write_text(page("services").section(title).blocks("toml")[0])
    (stage,) = make_stages(load_workflow(toml))
    assert list(stage.writes) == ["words"]


def test_a_workflow_on_topics_and_while_writing_it(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"document_id": "a", "text": "An excellent film."}\n')
    (tmp_path / "flow.yaml").write_text(
        "name: t\ninputs: {rows: {type: file, path: rows.jsonl}}\nstages:\n"
        "  - {name: counted, service: text, operation: analyze}\n"
        "outputs: {counted: {source: counted, format: jsonl}}\n"
    )
    shell(page("workflows").section("On topics").blocks("bash")[0], tmp_path)
    assert json.loads((tmp_path / "out" / "counted.jsonl").read_text())["words"] == 3
    assert "text.analyze" in shell(
        page("workflows").section("While writing one").blocks("bash")[0], tmp_path
    )
