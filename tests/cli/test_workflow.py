"""``streamapp workflow`` and ``streamapp run``."""

import json
import os

import jsonschema
import pytest
from ruamel.yaml import YAML
from sites import Handler, Site

FILE = """\
name: numbers
params: {least: 2}
inputs:
  rows: {path: rows.csv}
stages:
  - name: large
    service: pipeline
    operation: filter
    config: {where: "n >= ${params.least}"}
    tests:
      - rows: [{n: 1}, {n: 2}]
        expect: [{n: 2}]
outputs:
  large: {source: large, format: jsonl}
"""


@pytest.fixture
def file(clean):
    (clean / "rows.csv").write_text("n\n1\n2\nx\n3\n")
    os.utime(clean / "rows.csv", (1, 1))
    path = clean / "flow.yaml"
    path.write_text(FILE.replace("rows.csv}", "rows.csv, options: {columns: {n: int64}}}"))
    return path


@pytest.fixture
def receiver():
    """A server that keeps what is posted to it."""

    class Keeper(Handler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.events.append((self.path, json.loads(body)))
            self.server.tokens.add(self.headers["Authorization"])
            self.send_response(201)
            self.end_headers()

    with Site(Keeper) as made:
        made.events, made.tokens = [], set()
        yield made


def told(events):
    """What OpenLineage's events say: how each job began and ended, and what came of the last."""
    ends = [(event["eventType"], event["job"]["name"]) for event in events]
    (output,) = events[-1]["outputs"]
    fields = [field["name"] for field in output["facets"]["schema"]["fields"]]
    return ends, fields, output["outputFacets"]["outputStatistics"]["rowCount"]


def test_a_run_writes_and_says_what_came_of_it(file, run, receiver, monkeypatch):
    result = run("run", "flow.yaml", "--lineage", "told/lineage.jsonl")
    assert result.code == 0, result.err
    assert "large: ran, 2 rows" in result.err
    assert str(file.parent / "out" / "large.jsonl") in result.out
    written = (file.parent / "out" / "large.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == [{"n": 2}, {"n": 3}]
    (aside,) = (file.parent / "out" / "quarantine" / "rows.jsonl").read_text().splitlines()
    assert json.loads(aside)["line"] == 4
    lines = (file.parent / "told" / "lineage.jsonl").read_text().splitlines()
    both = [
        ("START", "numbers"), ("START", "numbers.large"),
        ("COMPLETE", "numbers.large"), ("COMPLETE", "numbers"),
    ]  # fmt: skip
    assert told([json.loads(line) for line in lines]) == (both, ["n"], 2)
    monkeypatch.setenv("LINEAGE_TOKEN", "s3cret")
    url = f"http://127.0.0.1:{receiver.server_port}/api/v1/lineage"
    again = run(
        "run", "flow.yaml", "--json", "--set", "least=3", "--out", "other", "--lineage", url,
        "--lineage-token", "env:LINEAGE_TOKEN",
    )  # fmt: skip
    assert receiver.tokens == {"Bearer s3cret"}
    assert {path for path, _ in receiver.events} == {"/api/v1/lineage"}
    assert told([event for _, event in receiver.events]) == (both, ["n"], 1)
    report = again.json
    assert (report["state"], report["outputs"][0]["rows"]) == ("done", 1)
    assert {p["name"]: p["state"] for p in report["parts"]}["rows"] == "cached"
    plan = run("run", "flow.yaml", "--dry-run", "--set", "least=1")
    assert "config changed: where" in plan.out


def test_validate_says_all_that_is_wrong(file, run):
    assert run("workflow", "validate", "flow.yaml").code == 0
    file.write_text(FILE.replace("filter", "fliter").replace("source: large", "source: lrge"))
    result = run("workflow", "validate", "flow.yaml", "--json")
    assert result.code == 2
    (found,) = result.json
    messages = [problem["message"] for problem in found["problems"]]
    assert messages == [
        "flow.yaml:8:16: service 'pipeline' has no operation 'fliter'",
        "flow.yaml:14:19: output 'large' is of 'lrge', which is not there",
    ]
    assert found["problems"][0]["fix"] == "did you mean 'filter'?"
    shown = run("workflow", "validate", "flow.yaml")
    assert shown.err.count("error: ") == 2


def test_plan_test_graph_and_resume(file, run):
    plan = run("workflow", "plan", "flow.yaml", "--json").json
    assert [(part["name"], part["will"]) for part in plan] == [
        ("rows", "read"), ("large", "maybe run"), ("large", "write"),
    ]  # fmt: skip
    tested = run("workflow", "test", "flow.yaml")
    assert (tested.code, tested.out) == (0, "passed large: test 1\n")
    wrong = run("workflow", "test", "flow.yaml", "--set", "least=1", "--json")
    assert wrong.code == 1
    assert wrong.json[0]["why"] == "2 rows, not 1"
    assert "large" in run("workflow", "graph", "flow.yaml").out
    assert run("workflow", "graph", "flow.yaml", "--svg").out.startswith("<svg")
    schema = run("workflow", "schema")
    checked = jsonschema.Draft202012Validator(schema.json)
    text = YAML(typ="safe").load(file.read_text())
    assert (schema.code, [error.message for error in checked.iter_errors(text)]) == (0, [])
    text["stages"][0]["config"] = {"wher": "n > 1"}
    assert not checked.is_valid(text)
    resumed = run("workflow", "resume", "flow.yaml")
    assert resumed.code == 2
    assert "no run of flow.yaml is waiting" in resumed.err


def test_what_is_wrong_before_it_starts_is_an_error(file, run):
    missing = run("run", "flw.yaml", "--json")
    assert missing.code == 2
    assert missing.json["error"]["code"] == "workflow.file"
    assert "'lest'" in run("run", "flow.yaml", "--set", "lest=1").err
    assert run("run", "flow.yaml", "--set", "=1").code == 2
    for target, said in (("http://", "names no host"), ("flow.yaml/x", "flow.yaml/x: ")):
        refused = run("run", "flow.yaml", "--lineage", target)
        assert (refused.code, said in refused.err) == (2, True)
    assert not (file.parent / "out").exists()
    file.write_text(FILE.replace("rows.csv", "raws.csv"))
    gone = run("run", "flow.yaml")
    assert gone.err.startswith("error: flow.yaml:4:9: input 'rows': raws.csv: there is no such")
