"""``streamapp run FILE --stream``: what its processes have nothing to say of is not printed."""

import json
import shutil
import signal
import subprocess
import sys
from functools import partial

import pytest

from streamapp.core.config import load
from streamapp.flows import Flow

FILE = """name: small
inputs:
  rows: {path: rows.csv}
stages:
  - {name: large, service: pipeline, operation: filter, config: {where: x > 1}}
outputs:
  out: {source: large, format: csv}
"""


def fed(*options, code=0):
    """What is printed of the workflow when it is fed."""
    command = ["run", "flow.yaml", "--stream", "--feed", *options]
    done = subprocess.run(
        [sys.executable, "-m", "streamapp.cli", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert done.returncode == code, lines
    return lines


def test_groups_that_did_their_work_end_without_a_word(clean):
    (clean / "flow.yaml").write_text(FILE)
    (clean / "rows.csv").write_text("x\n1\n2\n")
    lines = fed("--partitions", "1", "--lineage", "told.jsonl")
    assert f"out: 1 row in {clean}/out/out.csv" in lines
    assert not [line for line in lines if line.startswith("after-")]
    began, ended = map(json.loads, (clean / "told.jsonl").read_text().splitlines())
    assert (began["eventType"], ended["eventType"]) == ("START", "COMPLETE")
    assert began["run"]["runId"] == ended["run"]["runId"]
    (given,), (made,) = ended["inputs"], ended["outputs"]
    assert given["inputFacets"]["inputStatistics"]["rowCount"] == 2
    assert made["outputFacets"]["outputStatistics"]["rowCount"] == 1


def test_rows_set_aside_by_an_earlier_run_do_not_stay_beside_the_outputs(clean):
    checked = {"name": "large", "service": "pipeline", "operation": "validate"}
    flow = {
        "name": "small",
        "inputs": {"rows": {"path": "rows.csv"}},
        "stages": [{**checked, "config": {"rules": [{"where": "x > 1"}]}}],
        "outputs": {"out": {"source": "large", "format": "csv"}},
    }
    (clean / "flow.yaml").write_text(json.dumps(flow))  # which is YAML
    aside = clean / "out" / "quarantine" / "large.jsonl"
    other = aside.with_name("mine.txt")
    for rows, there in (("x\n1\n2\n", True), ("x\n3\n2\n", False)):
        (clean / "rows.csv").write_text(rows)
        fed()
        assert aside.exists() == there
        other.touch()
    assert other.exists()


def test_a_stage_of_all_rows_needs_an_end(run, clean):
    text = FILE.replace(
        "filter, config: {where: x > 1}", "aggregate, config: {columns: {n: sum(x)}}"
    )
    (clean / "flow.yaml").write_text(text)
    (clean / "rows.csv").write_text("x\n1\n2\n")
    told = run("run", "flow.yaml", "--stream")
    assert told.code == 2
    assert "flow.yaml:5:5" in told.err
    assert "looks at all rows at once, and without --feed they have no end" in told.err
    assert "give --feed, or use one that looks at a row or a window" in told.err
    assert f"out: 1 row in {clean}/out/out.csv" in fed()
    assert (clean / "out" / "out.csv").read_text().split() == ['"n"', "3"]


def test_topics_that_were_deleted_are_fed_and_collected_anew(clean):
    (clean / "flow.yaml").write_text(FILE)
    (clean / "rows.csv").write_text("x\n1\n2\n")
    for partitions in ("1", "2"):
        assert f"out: 1 row in {clean}/out/out.csv" in fed("--partitions", partitions)
        shutil.rmtree(load()[0].home / "log")


def test_a_fault_that_comes_back_at_each_start_ends_the_run(clean):
    (clean / "flow.yaml").write_text(FILE)
    (clean / "rows.csv").write_text("x\n" + "2\n" * 3000)
    fed()
    for file in (load()[0].home / "log").glob("small.rows*"):
        file.unlink()
    (clean / "rows.csv").write_text("x\n2\n")
    lines = fed(code=70)
    said = "'small.rows' [0] was made anew: it has 0 to "
    assert len([line for line in lines if line.startswith(f"after-rows   | error: {said}")]) <= 2
    assert lines[-2].startswith(
        f"error: group 'after-rows' ended 3 times and got no further: {said}"
    )
    assert lines[-1] == "fix: delete the workflow's topics and feed it anew"


def test_a_note_of_the_last_run_that_cannot_be_read_is_told(clean):
    (clean / "flow.yaml").write_text(FILE)
    (clean / "rows.csv").write_text("x\n1\n2\n")
    path = load()[0].home / "flows" / "small" / "done.json"
    path.parent.mkdir(parents=True)
    path.write_text('[1, "all"]')
    lines = fed(code=2)
    assert f"error: {path}: Expected `object`, got `str` - at `$[1]`" in lines
    assert "fix: remove it; the last run is then written once more" in lines
    path.unlink()
    fed()


def test_a_run_that_is_fed_elsewhere_is_told_as_failed(run, clean):
    (clean / "flow.yaml").write_text(FILE)
    (clean / "rows.csv").write_text("x\n1\n2\n")
    with Flow(load()[0], clean / "flow.yaml", {}).alone():
        told = run("run", "flow.yaml", "--stream", "--feed", "--lineage", "told.jsonl")
    assert told.code != 0
    _, ended = map(json.loads, (clean / "told.jsonl").read_text().splitlines())
    assert ended["eventType"] == "FAIL"
    assert "flow.busy" in ended["run"]["facets"]["errorMessage"]["message"]


@pytest.mark.parametrize(("out", "code"), [("rows.csv", "workflow.disk"), (".", "workflow.output")])
def test_outputs_that_cannot_be_written_are_told_before_a_row_is_fed(run, clean, out, code):
    (clean / "flow.yaml").write_text(FILE.replace("format: csv", "format: csv, path: rows.csv"))
    (clean / "rows.csv").write_text("x\n1\n2\n")
    options = ["--stream", "--feed", "--lineage", "told.jsonl", "--out", out]
    told = run("run", "flow.yaml", *options)
    assert told.code == 2
    _, ended = map(json.loads, (clean / "told.jsonl").read_text().splitlines())
    assert ended["eventType"] == "FAIL"
    assert code in ended["run"]["facets"]["errorMessage"]["message"]


def test_lineage_of_a_run_without_an_end_is_refused(run, clean):
    (clean / "flow.yaml").write_text(FILE)
    told = run("run", "flow.yaml", "--stream", "--lineage", "told.jsonl")
    assert (told.code, "give --feed" in told.err) == (2, True)
    assert not (clean / "told.jsonl").exists()


def test_an_option_of_runs_on_topics_is_refused_in_another(run, clean):
    (clean / "flow.yaml").write_text(FILE)
    (clean / "rows.csv").write_text("x\n1\n2\n")
    told = run("run", "flow.yaml", "--partitions", "3")
    assert (told.code, "--partitions is for a run on topics" in told.err) == (2, True)
    assert not (clean / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_run_whose_terminal_is_closed_stops_its_groups_in_order(clean, number):
    (clean / "flow.yaml").write_text(FILE)
    (clean / "rows.csv").write_text("x\n1\n2\n")
    command = [sys.executable, "-m", "streamapp.cli", "run", "flow.yaml", "--stream"]
    heard = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # by one below nohup, too
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heard,  # noqa: PLW1509  # no thread holds a lock here
    ) as process:
        lines = iter(process.stderr.readline, "")
        assert next(line for line in lines if "topic small.out" in line)
        process.send_signal(number)
        assert process.wait(60) == 0


@pytest.mark.parametrize("option", ["--dry-run", "--cpus=1", "--memory-mb=99"])
def test_what_only_a_batch_run_knows_is_refused_before_anything_starts(run, clean, option):
    (clean / "flow.yaml").write_text(FILE)
    (clean / "rows.csv").write_text("x\n1\n2\n")
    told = run("run", "flow.yaml", "--stream", "--feed", option)
    name = option.partition("=")[0]
    assert told.code != 0
    assert f"{name} is not for a run on topics" in told.err
    assert f"leave out {name}" in told.err
    assert not (clean / "out").exists()
