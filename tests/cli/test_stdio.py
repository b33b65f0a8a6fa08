"""Lines of JSON in, lines of JSON out, in order; an error is a line, too."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from demo_operations import Words, demo  # noqa: F401  # a fixture

from streamapp.cli import stdio
from streamapp.core.config import load

pytestmark = pytest.mark.usefixtures("demo")
LINE = b'{"id": 1, "service": "demo", "operation": "words", "rows": [{"text": "a"}]}\n'


@pytest.fixture
def answers(clean):
    def ask(*lines):
        sent = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        out = io.BytesIO()
        stdio.serve(io.BytesIO(b"\n".join(sent)), out, load()[0])
        return [json.loads(line) for line in out.getvalue().splitlines()]

    return ask


def words(id_, *texts, **config):
    rows = [{"text": text} for text in texts]
    return {"id": id_, "service": "demo", "operation": "words", "rows": rows, "config": config}


def test_each_line_is_answered_in_order(answers):
    first, second = answers(words(1, "a b", None), b"", words({"k": [2]}, "c", least=2))
    assert first == {
        "id": 1,
        "rows": [{"text": "a b", "words": 2}],
        "aside": [{"reason": "no text", "rows": [{"text": None}]}],
    }
    assert second == {"id": {"k": [2]}, "rows": []}


def test_errors_are_lines_and_the_next_line_is_taken(answers, monkeypatch):
    monkeypatch.setattr(stdio, "LINE_BYTES_MAX", 1_000)
    found = answers(
        b"no json",
        b'{"id": 2, "servise": "x"}',
        {"id": 3, "service": "demo", "operation": "wrods", "rows": []},
        words(4, "a", lest=1),
        {"id": 5, "service": "demo", "operation": "fails", "rows": [], "config": {"how": "bug"}},
        b'{"id": 6, "x": "' + b"y" * 3_000 + b'"}',
        {"id": 7, "service": "demo", "operation": "lookup", "rows": []},
        {"id": 9, "service": "demo", "operation": "words", "rows": [{"text": "a", "n": 2**70}]},
        words(8, "a"),
    )
    codes = [(answer["id"], answer.get("error", {}).get("code")) for answer in found]
    assert codes == [
        (None, "stdio.json"),
        (2, "stdio.json"),
        (3, "workflow.operation"),
        (4, "operation.config"),
        (5, "operation.bug"),
        (None, "stdio.line"),
        (7, "data.source"),
        (9, "operation.table"),
        (8, None),
    ]


def test_sources_and_several_inputs_come_with_the_line(answers):
    lookup = {"id": 1, "service": "demo", "operation": "lookup", "inputs": {"a": []}}
    assert answers({**lookup, "sources": {"names": [{"x": 1}]}})[0]["rows"] == [{"rows": 1}]
    assert (
        answers({**lookup, "inputs": {"a": [], "b": []}})[0]["error"]["code"] == "operation.inputs"
    )


def test_times_beyond_pythons_calendar_are_answered_as_arrow_writes_them(answers):
    line = {"id": 1, "service": "pipeline", "operation": "map", "rows": [{"n": 1}]}
    config = {"columns": {"at": "make_timestamp(n * 400000000000000000)"}}
    far = "14645-06-30 15:06:40.000000"
    assert answers({**line, "config": config})[0]["rows"] == [{"n": 1, "at": far}]


def test_the_verb_reads_standard_input(run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(LINE)))
    assert run("stdio").json["rows"] == [{"text": "a", "words": 1}]


def test_what_operations_print_is_no_answer(run, monkeypatch):
    def noisy(operation, inputs):
        print("printed")  # noqa: T201  # as an operation may
        os.write(1, b"written\n")
        return quiet(operation, inputs)

    quiet = Words.run
    monkeypatch.setattr(Words, "run", noisy)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(LINE)))
    told = run("stdio")
    assert told.json["rows"] == [{"text": "a", "words": 1}]
    assert sorted(told.err.split()) == ["printed", "written"]


def test_a_full_disk_is_said_in_plain_words(clean):
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "streamapp.cli", "stdio"]
        told = subprocess.run(command, input=LINE, stdout=full, stderr=subprocess.PIPE, check=False)
    said = told.stderr.decode()
    assert told.returncode == 75
    assert "standard output cannot be written: No space left on device" in said
    assert "unexpected" not in said
