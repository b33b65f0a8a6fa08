"""OpenLineage events of a run: their shape, their datasets, and where they go."""

import json
import uuid
from datetime import datetime

import jsonschema
import pyarrow as pa
import pytest
from sites import Handler, Site

from streamapp.core.errors import Refuse
from streamapp.workflow.graph.builder import Workflow
from streamapp.workflow.graph.spec import Input, Output
from streamapp.workflow.run.datasets import of_input, of_output, of_source
from streamapp.workflow.run.events import PartEnded, PartStarted, RunEnded, RunStarted
from streamapp.workflow.run.lineage import Lineage
from streamapp.workflow.run.report import Problem, Report, StageReport, Written

FACETS = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "required": ["_producer", "_schemaURL"],
        "properties": {
            "_producer": {"type": "string", "format": "uri"},
            "_schemaURL": {
                "pattern": r"^https://openlineage\.io/spec/facets/\d-\d-\d/(\w+)\.json#/\$defs/\w+$"
            },
        },
    },
}
DATASET = {
    "type": "object",
    "required": ["namespace", "name"],
    "properties": {
        "namespace": {"type": "string"}, "name": {"type": "string"},
        "facets": FACETS, "inputFacets": FACETS, "outputFacets": FACETS,
    },
    "additionalProperties": False,
}  # fmt: skip
#: What the spec 2-0-2 asks of a RunEvent.
RUN_EVENT = {
    "type": "object",
    "required": ["run", "job", "eventTime", "producer", "schemaURL", "eventType"],
    "properties": {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": {"type": "string", "format": "uri"},
        "schemaURL": {"const": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"},
        "run": {"type": "object", "required": ["runId"], "properties": {"runId": {"format": "uuid"}, "facets": FACETS}},
        "job": {"type": "object", "required": ["namespace", "name"], "properties": {"facets": FACETS}},
        "inputs": {"type": "array", "items": DATASET},
        "outputs": {"type": "array", "items": DATASET},
    },
    "additionalProperties": False,
}  # fmt: skip


def graph(folder):
    return (
        Workflow("w", folder=folder)
        .input("documents", pattern="*.txt")
        .stage("analysis", "gospel.analyze")
        .stage("joined", "combine.integrate", depends_on="analysis")
        .output("rows", source="joined", format="csv")
        .graph()
    )


def story(state="done", error=None):
    """What the engine tells of a run."""

    def part(kind, name, **fields):
        given = {"state": "ran", "rows_out": 3, **fields}
        return StageReport(name=name, kind=kind, **given)

    analysis = part("stage", "analysis", inputs={"documents": "d1"})
    last = {"state": "failed", "error": error} if error else {}
    joined = part("stage", "joined", inputs={"analysis": "d2", "metadata-db": "d3"}, **last)
    outputs = (Written("rows", "out/rows.csv", 3),) if state == "done" else ()
    parts = (part("input", "documents"), analysis, joined)
    report = Report("run-1", "w", "1", state, 1.0, parts, outputs, error=error)
    return [
        RunStarted("run-1", "w", 1_000_000),
        PartStarted("input", "documents", None, 1, "", 1_000_001),
        PartStarted("stage", "analysis", 3, 1, "", 1_000_002),
        PartEnded("stage", analysis, 1_000_003),
        PartStarted("stage", "joined", 3, 1, "", 1_000_004),
        PartEnded("stage", joined, 1_000_005),
        RunEnded(report, 1_000_006),
    ]


def told(folder, events, **options):
    lineage = Lineage(graph(folder), "lineage.jsonl", folder, **options)
    for event in events:
        lineage(event)
    assert lineage.close() == 0
    return [json.loads(line) for line in (folder / "lineage.jsonl").read_text().splitlines()]


def short(event):
    return event["eventType"], event["job"]["name"]


def test_a_run_and_its_stages_begin_and_end(tmp_path):
    (tmp_path / "streamapp.toml").write_text(
        '[sources.metadata-db]\npath = "m.db"\ntable = "docs"\n'
    )
    schema = pa.schema([("document_id", pa.string()), ("score", pa.float64())])
    events = told(tmp_path, story(), schemas={"joined": schema})
    for event in events:
        jsonschema.validate(event, RUN_EVENT, format_checker=jsonschema.FormatChecker())
        assert uuid.UUID(event["run"]["runId"])
        assert datetime.fromisoformat(event["eventTime"]).tzinfo
    assert [short(event) for event in events] == [
        ("START", "w"), ("START", "w.analysis"), ("COMPLETE", "w.analysis"),
        ("START", "w.joined"), ("COMPLETE", "w.joined"), ("COMPLETE", "w"),
    ]  # fmt: skip
    run, stage = events[0]["run"]["runId"], events[3]["run"]
    assert stage["facets"]["parent"]["run"]["runId"] == run
    assert stage["runId"] == events[4]["run"]["runId"] != run
    assert [(one["namespace"], one["name"]) for one in events[4]["inputs"]] == [
        ("streamapp", "w.analysis"), (f"sqlite://{tmp_path}/m.db", "docs"),
    ]  # fmt: skip
    made = events[4]["outputs"][0]
    assert made["name"] == "w.joined"
    assert made["outputFacets"]["outputStatistics"]["rowCount"] == 3
    assert made["facets"]["schema"]["fields"][1] == {"name": "score", "type": "double"}
    last = events[-1]
    assert last["inputs"][0]["name"] == f"{tmp_path}/*.txt"
    assert last["inputs"][0]["inputFacets"]["inputStatistics"]["rowCount"] == 3
    assert last["outputs"][0]["name"].endswith("/out/rows.csv")
    assert last["job"]["facets"]["jobType"]["jobType"] == "WORKFLOW"
    assert events[2]["job"]["facets"]["jobType"]["jobType"] == "text.analyze"


def test_a_failure_says_why_and_a_cancelled_run_is_aborted(tmp_path):
    events = told(tmp_path, story("failed", Problem("Retry", "source.died", "it went away", "")))
    assert [short(event) for event in events[-2:]] == [("FAIL", "w.joined"), ("FAIL", "w")]
    for event in events[-2:]:
        jsonschema.validate(event, RUN_EVENT)
        assert event["run"]["facets"]["errorMessage"]["message"] == "source.died: it went away"
        assert event["outputs"] == []
    (tmp_path / "lineage.jsonl").unlink()
    assert short(told(tmp_path, story("cancelled"))[-1]) == ("ABORT", "w")


def test_events_are_appended_and_ids_differ_between_runs(tmp_path):
    told(tmp_path, story())
    second = [RunStarted("run-2", "w", 2_000_000)]
    events = told(tmp_path, second)
    assert len(events) == 7
    assert events[-1]["run"]["runId"] != events[0]["run"]["runId"]


class Receiver(Site):
    def __init__(self, *statuses):
        self.events, self.tokens, self.statuses = [], [], list(statuses)
        site = self

        class Taker(Handler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = site.statuses.pop(0) if site.statuses else 201
                if status == 201:
                    site.events.append(json.loads(body))
                site.tokens.append(self.headers.get("Authorization"))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

        super().__init__(Taker)
        self.url += "/api/v1/lineage"


@pytest.mark.parametrize(("statuses", "lost"), [((), 0), ((503, 503), 0), ((400,), 1)])
def test_a_server_gets_them_in_order_and_what_it_did_not_take_is_counted(
    tmp_path, monkeypatch, statuses, lost
):
    monkeypatch.setenv("LINEAGE_TOKEN", "s3cret")
    with Receiver(*statuses) as receiver:
        lineage = Lineage(graph(tmp_path), receiver.url, tmp_path, token="env:LINEAGE_TOKEN")
        for event in story():
            lineage(event)
        assert lineage.close() == lost
    whole = ["START", "START", "COMPLETE", "START", "COMPLETE", "COMPLETE"]
    assert [event["eventType"] for event in receiver.events] == whole[lost:]
    assert set(receiver.tokens) == {"Bearer s3cret"}


def test_a_server_that_is_away_does_not_fail_the_run(tmp_path):
    lineage = Lineage(graph(tmp_path), "http://127.0.0.1:1/", tmp_path)
    lineage(story()[0])
    assert lineage.close() == 1


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("http://", "names no host"),
        ("http://[::1", "names no host"),
        ("http://h:99999", "no port"),
        (".", "give a file"),
    ],
)
def test_a_target_that_is_none_is_refused(tmp_path, target, why):
    with pytest.raises(Refuse, match=why):
        Lineage(graph(tmp_path), target, tmp_path)


def test_datasets_have_the_names_that_others_give_them(tmp_path, monkeypatch):
    monkeypatch.setenv("DB", "postgresql://ann:s3cret@db.example:5432/shop")
    assert str(tmp_path) in of_input(Input(path="a.csv"), tmp_path).name
    database = of_input(Input(type="postgres", url="env:DB", table="orders"), tmp_path)
    assert (database.namespace, database.name) == (
        "postgres://db.example:5432",
        "shop.public.orders",
    )
    web = of_input(Input(type="http", url="https://api.example/v1/rows?key=x"), tmp_path)
    assert (web.namespace, web.name) == ("https://api.example", "/v1/rows")
    duck = of_output(Output(source="s", path="o.duckdb", table="t"), f"{tmp_path}/o.duckdb")
    assert (duck.namespace, duck.name) == (f"duckdb://{tmp_path}/o.duckdb", "t")
    missing = of_input(Input(type="postgres", url="env:NO_SUCH", table="t"), tmp_path)
    assert missing.namespace == "env:NO_SUCH"
    assert of_source("unknown", tmp_path).name == "unknown"
