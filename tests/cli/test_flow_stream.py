"""``streamapp run FILE --stream``: what its processes have nothing to say of is not printed."""

import subprocess
import sys

import pytest

FILE = """name: small
inputs:
  rows: {path: rows.csv}
stages:
  - {name: large, service: pipeline, operation: filter, config: {where: x > 1}}
outputs:
  out: {source: large, format: csv}
"""


def test_groups_that_did_their_work_end_without_a_word(clean):
    (clean / "flow.yaml").write_text(FILE)
    (clean / "rows.csv").write_text("x\n1\n2\n")
    command = "run flow.yaml --stream --partitions 1 --feed"
    done = subprocess.run(
        [sys.executable, "-m", "streamapp.cli", *command.split()],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 0, lines
    assert f"out: 1 row in {clean}/out/out.csv" in lines
    assert not [line for line in lines if line.startswith("after-")]


@pytest.mark.parametrize(
    "option", ["--lineage=told.jsonl", "--dry-run", "--cpus=1", "--memory-mb=99"]
)
def test_what_only_a_batch_run_knows_is_refused_before_anything_starts(run, clean, option):
    (clean / "flow.yaml").write_text(FILE)
    (clean / "rows.csv").write_text("x\n1\n2\n")
    told = run("run", "flow.yaml", "--stream", "--feed", option)
    name = option.partition("=")[0]
    assert told.code != 0
    assert f"{name} is not for a run on topics" in told.err
    assert f"leave out {name}" in told.err
    assert not (clean / "out").exists()
