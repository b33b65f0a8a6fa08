"""The engine: what runs, what does not run again, and what comes of failures."""

import json
import os
import re

import pytest

from streamapp.core.errors import Refuse
from streamapp.workflow.run.binding import bind
from streamapp.workflow.run.cache import Cache
from streamapp.workflow.run.events import PartEnded, PartStarted, RunEnded, RunStarted, Waiting
from streamapp.workflow.run.sizing import Measured, stage_name

N = [{"n": n} for n in range(10)]


def test_stages_follow_each_other_and_what_is_known_is_not_done_again(project):
    graph = project.graph(
        {"operation": "double", "config": {"log": "calls"}, "resources": {"chunk_rows": 3}},
        {"operation": "total", "config": {"log": "calls"}},
        outputs={"sum": {"source": "s1", "format": "jsonl"},
                 "rows": {"source": "s0", "format": "jsonl"}},
    )  # fmt: skip
    report = project.run(graph)
    assert report.state == "done", report.error
    assert project.result("sum") == [{"rows": 10, "sum": 45}]
    assert project.result("rows") == [{"n": n, "twice": 2 * n} for n in range(10)]
    assert sorted(project.calls()) == ["1 ", "10 ", "3 ", "3 ", "3 "]
    assert isinstance(project.events[0], RunStarted)
    assert isinstance(project.events[-1], RunEnded)
    started = [e.name for e in project.events if isinstance(e, PartStarted)]
    assert started == ["rows", "s0", "s1", "sum", "rows"]
    assert {p.name: p.why for p in report.parts}["s0"] == "it has not run before"
    _check_provenance(project, report)

    again = project.run(graph, write=False)
    assert {p.state for p in again.parts} == {"cached"}
    assert len(project.calls()) == 5

    changed = project.graph(
        {"operation": "double", "config": {"log": "calls", "note": "x"}}, {"operation": "total"}
    )
    parts = project.run(changed, write=False).parts
    states = {p.name: (p.state, p.why) for p in parts if p.kind == "stage"}
    assert states["s0"] == ("ran", "config changed: note")
    # Its result is the same, so what only the result depends on is not worked out for it.
    assert states["s1"] == ("ran", "config changed: log")

    project.write(range(4))
    os.utime(project.folder / "rows.jsonl", (2, 2))
    less = {p.name: (p.state, p.why) for p in project.run(changed).parts}
    assert less["rows"] == ("ran", "it was not read before")
    assert less["s0"] == ("ran", "rows changed")
    assert project.result() == [{"rows": 4, "sum": 6}]


def _check_provenance(project, report):
    """Beside the outputs it says where they came from."""
    found = json.loads((project.out / "lab.provenance.json").read_text())
    assert found["run"] == report.run
    assert found["stages"]["s0"][0]["operation"] == "lab.double"
    parts = {(part["kind"], part["name"]): part for part in found["parts"]}
    source, stage = parts["input", "rows"], parts["stage", "s0"]
    assert stage["inputs"] == {"rows": source["result"]}
    assert [output["rows"] for output in found["outputs"]] == [1, 10]


def test_threads_and_several_inputs(project):
    project.write(range(100, 103), "more.jsonl")
    graph = project.graph(
        {"name": "t", "operation": "threads", "inputs": "rows", "resources": {"chunk_rows": 2}},
        {"name": "m", "operation": "same", "inputs": "more"},
        {"name": "all", "operation": "total", "depends_on": ["t", "m"]},
        inputs={"rows": {"path": "rows.jsonl"}, "more": {"path": "more.jsonl"}},
    )
    report = project.run(graph, cpus=2)
    assert report.state == "done", report.error
    assert report.part("t").workers == 2
    name = stage_name("lab", "t", "lab.threads")
    measured = Cache(project.cache).load("measured", name, Measured)
    assert measured.worker_bytes == report.part("t").memory_mb * (1 << 20)  # of one process
    assert project.result() == [{"rows": 13, "sum": 45 + 303}]
    assert report.part("all").rows_in == 13


def test_foreach_when_and_params(project):
    graph = project.graph(
        {
            "operation": "same",
            "config": {"note": "${params.word}-${lang}", "log": "calls"},
            "foreach": {"lang": ["de", "fr", "it"]},
            "when": "lang != 'it' or rows.rows > 10",
        },
        {"operation": "total", "when": "rows.s0 > params.least", "name": "sum"},
        params={"word": "a", "least": 100},
        outputs={"result": {"source": "s0", "format": "jsonl"},
                 "sum": {"source": "sum", "format": "jsonl"}},
    )  # fmt: skip
    report = project.run(graph, params={"word": "b"})
    assert report.state == "done", report.error
    expected = [{**row, "lang": lang} for lang in ("de", "fr") for row in N]
    assert project.result() == expected
    assert sorted(project.calls()) == ["10 b-de", "10 b-fr"]
    assert report.part("sum").state == "left out"
    assert project.result("sum") == []
    assert project.run(graph, params={"least": 5}).part("sum").state == "ran"
    assert project.result("sum") == [{"rows": 20, "sum": 90}]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        *(([1, *more], "are of several types") for more in ("x", [True], [1.5, True])),
        ([2**64], "a value of 'of' does not fit into 64 bits"),
    ],
)
def test_a_column_of_foreach_has_one_type(project, values, why):
    graph = project.graph({"operation": "same", "foreach": {"of": values}})
    with pytest.raises(Refuse, match=why):
        bind(graph, {})


def test_rows_that_are_set_aside_are_kept_beside_the_outputs(project):
    graph = project.graph({"operation": "aside", "resources": {"chunk_rows": 4}})
    report = project.run(graph)
    assert project.result() == [{"n": n} for n in range(0, 10, 2)]
    path = project.out / "quarantine" / "s0.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"reason": "n is odd", "n": n} for n in range(1, 10, 2)]
    assert (report.part("s0").rejected, report.quarantine[0].rows) == (5, 5)
    again = project.run(graph, write=False)  # all from the cache
    assert (again.part("s0").rejected, again.quarantine[0].rows) == (5, 5)
    assert path.exists()
    (project.folder / "rows.jsonl").write_text('{"n": 1}\n{"n": \n{"n": 3}\n[5]\n')
    report = project.run(project.graph({"operation": "same"}))
    assert [(written.name, written.rows) for written in report.quarantine] == [("rows", 2)]
    assert project.result() == [{"n": 1}, {"n": 3}]
    said = (project.out / "quarantine" / "rows.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in said]
    assert [line["line"] for line in lines] == [2, 4]
    assert all(line["reason"] for line in lines)
    assert report.part("rows").rejected == 2
    assert not path.exists()  # what a run before set aside


def test_a_stage_is_tried_again_as_its_policy_says(project):
    policy = {"max": 2, "delay_s": 0.001, "jitter": 0}
    graph = project.graph(
        {"operation": "flaky", "config": {"log": "calls", "fails": 2}, "retry": policy}
    )
    report = project.run(graph)
    assert report.state == "done", report.error
    assert report.part("s0").attempts == 3
    waits = [e for e in project.events if isinstance(e, Waiting)]
    assert [(e.attempt, e.delay_s) for e in waits] == [(1, 0.001), (2, 0.002)]


def test_the_last_failure_is_said_with_the_stage(project):
    stage = {"operation": "flaky", "config": {"log": "calls", "fails": 9}, "retry": {"max": 0}}
    report = project.run(project.graph(stage))
    assert report.state == "failed"
    assert report.error.code == "lab.away"
    assert report.error.message.startswith("stages[0]: stage 's0': the other side is away")
    assert not (project.out / "result.jsonl").exists()
    refuses = {"operation": "flaky", "retry": 3}
    refuses["config"] = {"log": "other", "fails": 9, "refuses": True}
    project.run(project.graph(refuses))
    assert len(project.calls("other")) == 1  # what is refused is not tried again
    named = {**refuses, "retry": {"max": 1, "delay_s": 0, "on": ["lab"]}}
    project.run(project.graph(named))
    assert len(project.calls("other")) == 3


def test_a_failure_may_be_skipped_or_passed_over(project):
    fails = {"operation": "flaky", "config": {"log": "calls", "fails": 99}}
    graph = project.graph(
        {"name": "a", **fails, "on_failure": "skip"},
        {"name": "after_a", "operation": "total"},
        {"name": "b", **fails, "on_failure": "continue", "inputs": "rows"},
        {"name": "after_b", "operation": "total"},
        outputs={name: {"source": f"after_{name}", "format": "jsonl"} for name in "ab"},
    )
    report = project.run(graph)
    assert report.state == "done"
    assert [report.part(n).state for n in ("a", "after_a", "b", "after_b")] == [
        "failed", "skipped", "failed", "ran",
    ]  # fmt: skip
    assert project.result("b") == [{"rows": 0, "sum": 0}]
    assert not (project.out / "a.jsonl").exists()


@pytest.mark.parametrize(
    ("stage", "code", "message"),
    [
        ({"operation": "dies"}, "workflow.crashed", "crashed .segmentation fault"),
        ({"operation": "breaks"}, "operation.schema", r"returned columns other: .*said n: "),
        ({"operation": "breaks", "config": {"how": "error"}}, "operation.error", "by nothing"),
        (
            {"operation": "hungry", "config": {"mb": 300}, "resources": {"memory_mb": 256}},
            "workflow.memory",
            "may hold 256 MB",
        ),
        (
            {"operation": "waits", "config": {"until": "never"}, "timeout_s": 0.5},
            "workflow.timeout",
            "not done within 0.5 s",
        ),
    ],
)
def test_what_ends_badly_has_a_name(project, stage, code, message):
    report = project.run(project.graph(stage))
    assert (report.state, report.error.code) == ("failed", code)
    assert re.search(message, report.error.message)
    assert report.error.fix


def test_secrets_are_references_until_they_are_used(project):
    (project.folder / "token").write_text("hunter2hunter2\n")
    plain = {"operation": "secret", "config": {"key": "${file:token}"}}
    report = project.run(project.graph(plain))
    assert report.state == "done", report.error
    assert (project.folder / "key").read_text() == "hunter2hunter2"
    told = project.run(
        project.graph({"operation": "secret", "config": {"key": "${file:token}", "tell": True}})
    )
    assert told.error.message.endswith("the key *** does not fit")
    assert told.error.fix == "not ***"
    broken = {"how": "error", "key": "${file:token}"}
    told = project.run(project.graph({"operation": "breaks", "config": broken}))
    assert told.error.message.endswith("ZeroDivisionError: by nothing ***")
    assert "lab_operations.py" in told.error.trace
    assert "hunter2" not in told.error.trace
    (project.folder / "key").unlink()
    for folder in (project.out, project.cache):
        for path in folder.rglob("*"):
            assert not path.is_file() or b"hunter2" not in path.read_bytes(), path


def test_declared_sources_are_part_of_what_a_result_depends_on(project):
    (project.folder / "streamapp.toml").write_text('[sources.more]\npath = "more.jsonl"\n')
    os.utime(project.write(range(3), "more.jsonl"), (1, 1))
    graph = project.graph({"operation": "looks", "config": {"source": "more"}})
    report = project.run(graph)
    assert report.state == "done", report.error
    assert {row["known"] for row in project.result()} == {3}
    assert project.run(graph, write=False).part("s0").state == "cached"
    os.utime(project.write(range(5), "more.jsonl"), (2, 2))
    assert project.run(graph).part("s0").why == "more changed"
    assert {row["known"] for row in project.result()} == {5}
    late = project.graph({"operation": "looks", "config": {"source": "more", "late": True}})
    assert project.run(late).error.code == "operation.source"


def test_nothing_starts_when_something_is_wrong(project):
    with pytest.raises(Refuse, match="no 'n' column"):
        project.run(project.graph({"operation": "total"}, {"operation": "same"}))
    with pytest.raises(Refuse, match="there is no parameter 'x'"):
        project.run(project.graph({"operation": "same"}), params={"x": 1})
    assert not project.events


def test_a_cache_of_another_version_is_left_alone_and_a_torn_one_is_worked_out_again(project):
    (project.cache / "v0").mkdir(parents=True)
    graph = project.graph({"operation": "double", "config": {"log": "calls"}})
    report = project.run(graph)
    assert report.notes == (f"the cache of another version is left alone: {project.cache}/v0",)
    for path in (project.cache / "v1" / "data").iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    for path in (project.cache / "v1" / "done").iterdir():
        path.write_text("{")
    assert project.run(graph).state == "done"
    assert len(project.result()) == 10
    ended = [e.report for e in project.events if isinstance(e, PartEnded)]
    assert all(part.state == "ran" for part in ended)


def test_a_function_of_the_project_runs_again_when_it_was_changed(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    source = """
def shout(row: dict) -> dict:
    return {"loud": str(row["n"]) + "!"}
"""
    (project.folder / "clean.py").write_text(source)
    stage = {
        "service": "python",
        "operation": "clean:shout",
        "config": {"columns": {"loud": "string"}},
    }
    graph = project.graph(stage)
    assert project.run(graph).error is None
    assert project.result()[3] == {"n": 3, "loud": "3!"}
    assert project.run(graph, write=False).part("s0").state == "cached"
    (project.folder / "clean.py").write_text(source.replace("!", "?"))
    assert project.run(graph).part("s0").why == "its code changed"
    assert project.result()[3] == {"n": 3, "loud": "3?"}
