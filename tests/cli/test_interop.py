"""Functions of the project in a process of their own: as operations, as stages, and when they die."""

import os
import select
import subprocess
import sys
import tomllib

import pyarrow as pa
import pytest
from words_flow import words_flow

from streamapp.core.errors import Refuse, Reject, Retry
from streamapp.plugin.bridge.place import PythonPlace, python_place
from streamapp.plugin.bridge.process import FunctionProcess
from streamapp.plugin.testing import batch_of
from streamapp.services import call
from streamapp.workflow.spec import Workflow, make_stages

MODULE = """
import os, subprocess, sys, time
import pyarrow as pa
import pyarrow.compute as pc

def shout(table: pa.Table, mark: str = "") -> pa.Table:
    print("a function may print")
    return table.append_column("loud", pc.binary_join_element_wise(pc.utf8_upper(table["text"]), mark, ""))

def words(row: dict) -> dict:
    if row["text"] == "skip":
        return None
    return {"words": len(row["text"].split())}

def pid(table):
    return pa.table({"pid": [os.getpid()]})

def die(row: dict) -> dict:
    if row["text"] == "die":
        os.abort()
    return {"words": 1}

def slow(table):
    time.sleep(60)

def slow_and_says_so(table):
    print("called")
    time.sleep(60)

def begins_another(table):
    other = subprocess.Popen(["sleep", "1000"])
    return pa.table({"pid": [other.pid]})

def begins_another_and_waits(table):
    print("pid", begins_another(table)["pid"][0])
    time.sleep(60)

def begins_another_and_dies(table):
    note(begins_another(table))
    os.abort()

def begins_another_and_stays(table):
    note(begins_another(table))
    time.sleep(60)

def note(began):
    with open("pid.txt", "w") as file:
        file.write(str(began["pid"][0]))

def wrong(table):
    return 7

def raises(table):
    raise ValueError("no such luck")

def talks(table):
    raise ValueError("so much " * 500_000)

def other(row: dict) -> dict:
    return {"unknown": 1}

number = 3
"""
CALLER = """
import pyarrow as pa
from streamapp.services import call
call("python.mine:slow_and_says_so", pa.table({"text": ["a"]}), scope="row")
"""
BETWEEN_CALLS = """
import sys
import pyarrow as pa
from streamapp.plugin.bridge.place import python_place
from streamapp.plugin.bridge.process import FunctionProcess
process = FunctionProcess("mine:begins_another", python_place(), 30)
found = process.call(pa.table({"text": ["a"]}), {}, {})
print("pid", found["pid"][0], file=sys.stderr, flush=True)
sys.stdin.read()
"""
WORDS = {"columns": {"words": "int32"}}
TABLE = pa.table({"text": ["a b", "skip", "c"]})


@pytest.fixture
def project(clean):
    (clean / "src").mkdir()
    (clean / "src" / "mine.py").write_text(MODULE)
    (clean / "streamapp.toml").write_text(
        'gateway_port = 1  # ours\n\n[interop.python]\npaths = ["src"]\n'
    )
    return clean


def test_tables_and_rows_go_there_and_back(project):
    loud = call("python.mine:shout", TABLE, arguments={"mark": "!"})
    assert loud["loud"].to_pylist() == ["A B!", "SKIP!", "C!"]
    assert call("python.mine:words", TABLE, **WORDS).to_pylist() == [
        {"text": "a b", "words": 2},
        {"text": "c", "words": 1},
    ]
    assert call("python.mine:pid", TABLE)["pid"].to_pylist() != [os.getpid()]


@pytest.mark.parametrize(
    ("function", "config", "code", "said"),
    [
        ("mine:raises", {}, "interop.raised", "ValueError: no such luck"),
        ("mine:wrong", {}, "interop.raised", "returned int"),
        ("mine:talks", {}, "interop.raised", "ValueError: so much"),
        ("mine:shout", {"arguments": {"mark": {1}}}, "interop.arguments", "set is not JSON"),
        ("mine:other", WORDS, "interop.raised", "unknown"),
        ("mine:number", {}, "interop.import", "no function"),
        ("mine:nothing", {}, "interop.import", "nothing"),
        ("nowhere:f", {}, "interop.import", "No module named 'nowhere'"),
        ("mine", {}, "interop.target", "module:function"),
        ("mine:words", {"columns": {"words": "number"}}, "interop.type", "config.columns"),
        ("mine:words", {"colums": {}}, "operation.config", "config.colums"),
    ],
)
def test_what_is_wrong_is_said(project, function, config, code, said):
    with pytest.raises(Refuse) as refused:
        call(f"python.{function}", TABLE, **config)
    assert refused.value.code == code
    assert said in str(refused.value)


def test_a_crash_is_named_and_the_next_call_starts_it_anew(project):
    process = FunctionProcess("mine:die", python_place(), 30)
    with pytest.raises(Retry, match="ended by SIGABRT"):
        process.call(pa.table({"text": ["die"]}), {}, WORDS["columns"])
    again = process.call(pa.table({"text": ["live"]}), {}, WORDS["columns"])
    assert again["words"].to_pylist() == [1]
    process.close()
    process = FunctionProcess("mine:slow", python_place(), 0.2)
    with pytest.raises(Retry, match="within 0.2 s") as late:
        process.call(TABLE, {}, {})
    assert late.value.code == "interop.timeout"


def test_a_call_ends_with_its_caller_though_that_was_killed(project):
    caller = subprocess.Popen([sys.executable, "-c", CALLER], stderr=subprocess.PIPE)
    assert caller.stderr.readline() == b"called\n"
    caller.kill()
    # The function's process has the same standard error: it ends when both are gone.
    caller.communicate(timeout=20)


def ended(pid, wait_s=20):
    """Whether a process that we did not start ends."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        return bool(waiting.poll(wait_s * 1_000))
    finally:
        os.close(handle)


def test_what_a_function_began_goes_on_between_calls_and_ends_with_its_process(project):
    process = FunctionProcess("mine:begins_another", python_place(), 30)
    first, second = (process.call(TABLE, {}, {})["pid"][0].as_py() for _ in range(2))
    assert not ended(first, 0)
    process.close()
    assert ended(first)
    assert ended(second)


@pytest.mark.parametrize(
    ("function", "call_s_max", "said"),
    [
        ("begins_another_and_dies", 30, "ended by SIGABRT"),
        ("begins_another_and_stays", 1, "was stopped"),
    ],
)
def test_what_a_function_began_ends_when_it_dies_or_is_stopped(
    project, function, call_s_max, said, monkeypatch
):
    monkeypatch.chdir(project)
    process = FunctionProcess(f"mine:{function}", python_place(), call_s_max)
    assert process.takes == "table"
    with pytest.raises(Retry, match=said):
        process.call(TABLE, {}, {})
    assert ended(int((project / "pid.txt").read_text()))


@pytest.mark.parametrize(
    "program", [CALLER.replace("slow_and_says_so", "begins_another_and_waits"), BETWEEN_CALLS]
)
def test_what_a_function_began_ends_with_its_caller_though_that_was_killed(project, program):
    caller = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    began, pid = caller.stderr.readline().split()
    assert began == b"pid"
    caller.kill()
    assert ended(int(pid))
    caller.communicate(timeout=20)  # all have the same standard error: none of them is left


def test_a_workflow_finds_the_functions_of_its_own_project_from_anywhere(run, project, monkeypatch):
    stage = {"service": "python", "operation": "mine:words", "config": WORDS}
    words_flow(project / "flows", stage, [{"text": "a b"}])
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")
    (project / "elsewhere" / "streamapp.toml").write_text("")
    told = run("run", "../flows/words.yaml", "--json")
    assert told.code == 0, told.err
    assert '"words":2' in (project / "flows" / "out" / "counted.jsonl").read_text()
    assert "cached" in run("run", "../flows/words.yaml", "--json").out
    (project / "src" / "mine.py").write_text(MODULE.replace("len(row", "3 * len(row"))
    run("run", "../flows/words.yaml", "--json")
    assert '"words":6' in (project / "flows" / "out" / "counted.jsonl").read_text()


def test_another_interpreter_and_one_that_is_none(project):
    place = PythonPlace(python_place().paths, sys.executable)
    process = FunctionProcess("mine:pid", place, 30)
    assert process.call(TABLE, {}, {}).num_rows == 1
    process.close()
    with pytest.raises(Refuse) as refused:
        assert FunctionProcess("mine:pid", PythonPlace(place.paths, "/nowhere/python"), 1).takes
    assert refused.value.code == "interop.interpreter"


def test_a_function_is_a_stage_of_events_and_a_crash_rejects_its_row(project):
    options = {"reads": ["text"], "writes": {"words": "int32"}}
    name = "python:mine:die"
    (stage,) = make_stages(Workflow(path="w", stages=(name,), options={name: options}))
    stage.open(None)
    assert stage.enrich(batch_of(text=["a", "b"]))["words"].to_pylist() == [1, 1]
    with pytest.raises(Reject, match="SIGABRT"):
        stage.enrich(batch_of(text=["die"]))
    assert stage.enrich(batch_of(text=["a"]))["words"].to_pylist() == [1]
    stage.close()


def test_the_place_is_declared_by_a_command_that_leaves_the_rest_alone(run, project):
    (project / "more").mkdir()
    shown = run("config", "interop", "--python-path", "src", "--python-path", "more", "--json").json
    assert shown["paths"] == [str(project / "src"), str(project / "more")]
    run("config", "interop", "--interpreter", sys.executable)
    text = (project / "streamapp.toml").read_text()
    assert "gateway_port = 1  # ours" in text
    declared = tomllib.loads(text)["interop"]["python"]
    assert declared == {"paths": ["src", "more"], "interpreter": sys.executable}
    said = run("config", "interop", "--try", "mine:words").out
    assert "takes: row" in said
    refused = run("config", "interop", "--python-path", "nowhere", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (2, "interop.paths")
    assert (project / "streamapp.toml").read_text() == text
    (project / "streamapp.toml").write_text("[interop.python]\npath = 3\n")
    assert "no key 'path'" in run("config", "interop").err
