"""Runs of the project's workflows over HTTP: in processes of their own, bounded, remembered."""

import asyncio
import json
import sys

import pytest
from words_flow import words_flow
from yarl import URL

from streamapp.cli.flow_run import parsed_params
from streamapp.core.tokens import create_token
from streamapp.gateway.services import runs as running
from streamapp.gateway.services.wire import Run
from streamapp.testing.clock import FakeClock

STAGE = {
    "service": "python",
    "operation": "mine:words",
    "config": {
        "columns": {"words": "int32"},
        "arguments": {"wait": "${params.wait}", "least": "${params.least}"},
    },
}
MINE = """
import pathlib, time

def words(row: dict, wait: bool = False, least: int = 0) -> dict:
    while wait and not pathlib.Path("go").exists():
        time.sleep(0.01)
    words = len(row["text"].split())
    return {"words": words} if words >= least else None
"""
RUNS = "/v1/workflows/words/runs"


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    words_flow(
        folder / "workflows", STAGE, [{"text": "a b"}, {"text": "c"}],
        version="3", params={"least": 0, "wait": False},
    )  # fmt: skip
    (folder / "workflows" / "broken.yaml").write_text("name: [")
    (folder / "mine.py").write_text(MINE)
    (folder / "streamapp.toml").write_text('[interop.python]\npaths = ["."]\n')
    monkeypatch.setenv("STREAMAPP_HOME", str(tmp_path / "home"))
    return folder


@pytest.fixture
async def gate(start, project, tmp_path):
    return await start(project=project, runs_folder=tmp_path / "runs")


async def ended(gate, url, **request):
    async with asyncio.timeout(110):
        while True:
            _, run = await gate.get(url, **request)
            if run["status"] not in {"queued", "running"}:
                return run
            await asyncio.sleep(0.02)


def url_of(run):
    return f"{RUNS}/{run['id']}"


async def test_a_run_is_started_shown_and_its_output_taken(gate):
    _, listed = await gate.get("/v1/workflows")
    assert [each["name"] for each in listed] == ["broken", "words"]
    assert (listed[1]["version"], bool(listed[0]["error"])) == ("3", True)
    status, run = await gate.post(RUNS, {"params": {"least": 2}})
    assert (status, run["status"]) == (202, "queued")
    done = await ended(gate, url_of(run))
    assert done["status"] == "done", done
    output = next(each for each in done["outputs"] if each["name"] == "counted.jsonl")
    async with gate.http.get(gate.url + output["url"]) as answer:
        assert json.loads(await answer.read()) == {"text": "a b", "words": 2}
    _, all_runs = await gate.get(RUNS)
    assert [each["id"] for each in all_runs] == [run["id"]]


async def test_a_run_that_fails_says_why_and_one_under_way_is_cancelled(gate, project):
    _, run = await gate.post(RUNS, {"params": {"leest": "\0"}})
    failed = await ended(gate, url_of(run))
    assert (failed["status"], failed["error"]["code"]) == ("failed", "workflow.param")
    _, run = await gate.post(RUNS, {"params": {"wait": True}})
    async with gate.http.delete(gate.url + url_of(run)) as answer:
        assert (await answer.json())["status"] == "cancelled"
    status, problem = await gate.get(f"{url_of(run)}/outputs/counted.jsonl")
    assert (status, problem["code"]) == (404, "workflow.output")


async def test_a_run_that_takes_too_long_is_stopped_and_says_so(start, project, tmp_path):
    gate = await start(project=project, runs_folder=tmp_path / "runs", run_s_max=0.5)
    _, run = await gate.post(RUNS, {"params": {"wait": True}})
    late = await ended(gate, url_of(run))
    assert (late["status"], late["error"]["code"]) == ("failed", "workflow.timeout")
    assert "within 0.5 s" in late["error"]["message"]
    assert "run_s_max" in late["error"]["fix"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/workflows/nix/runs", {}, 404, "workflow.unknown"),
        ("POST", "/v1/workflows/..%2F..%2Fetc/runs", {}, 404, "workflow.unknown"),
        ("POST", RUNS, {"param": {}}, 400, "workflow.json"),
        ("POST", RUNS, {"params": {"--out": "/etc"}}, 400, "workflow.params"),
        ("GET", f"{RUNS}/nix", None, 404, "workflow.run"),
        ("GET", f"{RUNS}/..%2F..", None, 404, "workflow.run"),
        ("GET", f"{RUNS}/nix/outputs/x", None, 404, "workflow.run"),
        ("DELETE", f"{RUNS}/nix", None, 404, "workflow.run"),
    ],
)
async def test_what_is_not_there_is_said(gate, method, path, body, status, code):
    url = URL(gate.url + path, encoded=True)
    async with gate.http.request(method, url, json=body) as answer:
        assert (answer.status, (await answer.json())["code"]) == (status, code)


#: Prints a report of two pieces, the second when the first was read.
IN_PIECES = """
import fcntl, struct, sys, termios, time

print('{"parts": [{"name": "', end="", flush=True)
while struct.unpack("i", fcntl.ioctl(1, termios.FIONREAD, bytes(4)))[0]:
    time.sleep(0.001)
print('x"}]}')
"""


async def test_a_report_that_comes_in_pieces_is_whole(gate, monkeypatch):
    command = [sys.executable, "-c", IN_PIECES]
    monkeypatch.setattr(running.Runs, "_command", lambda *_: command)
    _, run = await gate.post(RUNS, b"")
    run = await ended(gate, url_of(run))
    assert (run["status"], run["report"]) == ("done", {"parts": [{"name": "x"}]})


async def test_runs_wait_for_their_turn_and_too_many_are_refused(gate, monkeypatch, project):
    monkeypatch.setattr(running, "WAITING_MAX", 1)
    answers = [await gate.post(RUNS, {"params": {"wait": True}}) for _ in range(4)]
    assert [status for status, _ in answers] == [202, 202, 202, 429]
    for _, run in answers[:3]:
        async with gate.http.delete(gate.url + url_of(run)) as answer:
            assert (await answer.json())["status"] == "cancelled"


async def test_runs_of_a_gateway_that_is_gone_are_marked_and_kept_ones_are_few(
    start, project, tmp_path, monkeypatch
):
    config = {"project": project, "runs_folder": tmp_path / "runs"}
    left = tmp_path / "runs" / "words" / "1-x" / "run.json"
    left.parent.mkdir(parents=True)
    left.write_text('{"id": "1-x", "workflow": "words", "status": "running", "queued_ms": 1}')
    cut = tmp_path / "runs" / "words" / "2-y" / "run.json"  # the machine stopped meanwhile
    cut.parent.mkdir()
    cut.write_text("")
    gate = await start(**config)
    _, (run,) = await gate.get(RUNS)
    assert (await gate.get(f"{RUNS}/2-y"))[0] == 404
    assert run["status"] == "interrupted"
    monkeypatch.setattr(running, "KEPT_MAX", 1)
    _, run = await gate.post(RUNS, {"params": {"wait": True}})
    _, found = await gate.get(RUNS)
    assert [each["id"] for each in found] == [run["id"]]


def test_params_reach_the_run_as_they_were_sent(tmp_path):
    params = {"text": "2", "flag": True, "number": 2.5, "odd": "\0 --out=x\n"}
    run = Run("1-x", "words", "queued", 1, params=params)
    command = running.Runs(tmp_path, FakeClock(), {}, 1.0)._command(run, tmp_path / "words.yaml")
    pairs = [each.removeprefix("--set=") for each in command if each.startswith("--set=")]
    assert parsed_params(None, None, pairs) == params


async def test_reading_takes_read_and_running_takes_admin(start, project, tmp_path):
    path = tmp_path / "tokens.json"
    secrets = {scope: create_token(path, scope, [scope])[1] for scope in ("read", "admin")}
    gate = await start(project=project, runs_folder=tmp_path / "runs", tokens_file=path)
    found = {}
    for scope, secret in secrets.items():
        headers = {"Authorization": f"Bearer {secret}"}
        assert (await gate.get(RUNS, headers=headers))[0] == 200
        found[scope], _ = await gate.post(RUNS, {"params": {"wait": True}}, headers=headers)
    assert found == {"read": 403, "admin": 202}


async def test_places_of_the_server_are_shown_to_admin_alone(start, project, tmp_path):
    path = tmp_path / "tokens.json"
    asking = {}
    for scope in ("read", "admin"):
        secret = create_token(path, scope, [scope])[1]
        asking[scope] = {"headers": {"Authorization": f"Bearer {secret}"}}
    gate = await start(project=project, runs_folder=tmp_path / "runs", tokens_file=path)
    for params, status in (({}, "done"), ({"leest": 1}, "failed")):
        _, run = await gate.post(RUNS, {"params": params}, **asking["admin"])
        whole = await ended(gate, url_of(run), **asking["admin"])
        assert whole["status"] == status
        assert str(tmp_path) in json.dumps(whole)
        _, part = await gate.get(url_of(run), **asking["read"])
        _, listed = await gate.get(RUNS, **asking["read"])
        assert str(tmp_path) not in json.dumps([part, listed])
        if status == "done":
            assert {each["state"] for each in part["report"]["parts"]} == {"ran"}
        else:
            assert part["error"]["code"] == whole["error"]["code"]
