"""``streamapp tail`` through the real command line, on a store that is written to meanwhile."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pyarrow as pa
import pytest

from streamapp.core.batch import EVENT_SCHEMA
from streamapp.flight import FlightServer
from streamapp.sink import Store, StoredRecord
from streamapp.topics.enriched import Cover, Enriched

COLUMNS = {"intent": pa.string(), "sentiment": pa.float32()}


def record(first, count):
    """Events ``first`` to ``first + count``; every third cancels."""
    numbers = list(range(first, first + count))
    events = {
        "source_offset": numbers,
        "id": [f"id-{n}" for n in numbers],
        "type": ["message"] * count,
        "source": ["test"] * count,
        "conversation": ["c"] * count,
        "actor": [None] * count,
        "time": numbers,
        "ingest_time": numbers,
        "text": [f"hello\n{n} \x1b[31m" for n in numbers],
        "duration_ms": [0.0] * count,
        "payload": ["{}"] * count,
        "attachments": [None] * count,
    }
    arrays = [pa.array(events[field.name], field.type) for field in EVENT_SCHEMA]
    rows = pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)
    intents = ["cancel" if n % 3 == 0 else "question" for n in numbers]
    rows = rows.append_column("intent", pa.array(intents, COLUMNS["intent"]))
    rows = rows.append_column("sentiment", pa.array([-0.5] * count, COLUMNS["sentiment"]))
    cover = Cover(topic="events.raw", partition=0, first=first, next=first + count, rows=count)
    return StoredRecord(Enriched(cover, rows), "events.enriched", 0, first + 1)


class Served:
    """A store with its server on one port, which can be stopped and started again."""

    def __init__(self, path):
        self._path = path
        self.port = 0
        self.start()

    def start(self):
        self.store = Store.open(self._path, columns=COLUMNS)
        self.server = FlightServer(self.store.reader, port=self.port, live=self.store)
        self.port = self.server.port

    def add(self, first, count):
        self.store.write([record(first, count)])

    def stop(self):
        self.server.stop()
        self.store.close()


@pytest.fixture
def served(tmp_path):
    made = Served(str(tmp_path / "store.duckdb"))
    yield made
    made.stop()


@pytest.fixture
def tail(run, served):
    return lambda *arguments: run("tail", *arguments, "--flight-port", str(served.port))


def test_json_from_the_beginning(tail, served):
    served.add(0, 5)
    said = tail("--from", "beginning", "-n", "5", "--json")
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [row["id"] for row in rows] == [f"id-{n}" for n in range(5)]
    assert rows[0]["source_topic"] == "events.raw"
    assert rows[0]["text"] == "hello\n0 \x1b[31m"
    assert (said.code, said.err) == (0, "")


def test_where_columns_and_a_place(tail, served):
    served.add(0, 20)
    said = tail(
        "--from",
        "events.raw-0=4",
        "--where",
        "intent = 'cancel'",
        "--columns",
        "id",
        "-n",
        "3",
        "--json",
    )
    assert [json.loads(line)["id"] for line in said.out.splitlines()] == ["id-6", "id-9", "id-12"]


def test_lines_for_people(tail, served):
    served.add(0, 2)
    said = tail("--from", "beginning", "-n", "2")
    assert said.out.splitlines() == [
        "00:00:00.000  c  message  cancel  -0.5  hello 0 \\x1b[31m",
        "00:00:00.000  c  message  question  -0.5  hello 1 \\x1b[31m",
    ]


def test_a_stage_of_somebody_else_that_says_sentiment_in_words(run, tmp_path):
    rows = record(0, 2).enriched.rows
    said = pa.array(["glad", None])
    rows = rows.set_column(rows.schema.get_field_index("sentiment"), "sentiment", said)
    cover = Cover(topic="events.raw", partition=0, first=0, next=2, rows=2)
    with (
        Store.open(str(tmp_path / "s.duckdb"), columns={"sentiment": pa.string()}) as store,
        FlightServer(store.reader, port=0, live=store) as server,
    ):
        store.write([StoredRecord(Enriched(cover, rows), "events.enriched", 0, 1)])
        told = run("tail", "--from", "beginning", "-n", "2", "--flight-port", str(server.port))
    assert (told.code, told.err) == (0, "")
    assert "  glad  hello 0" in told.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--where", "nope = 1"), "nope"), (("--where", "DELETE FROM events"), "syntax error"),
     (("--columns", "nope"), "nope"), (("--columns", " , "), "--columns ' , ' names no column"),
     (("--from", "yesterday"), "is no place to start"),
     (("--from", "events.raw-0=x"), "is no place to start"), (("-n", "0"), "'-n'"),
     (("--where", "1 = 1) OR (true"), "not one condition")],
)  # fmt: skip
def test_bad_arguments(tail, arguments, message):
    said = tail(*arguments)
    assert said.code == 2
    assert message in said.err
    assert "Traceback" not in said.err
    assert said.err.startswith("error: ")


def test_no_store(run):
    said = run("tail", "--flight-port", "1")
    assert said.code == 75
    assert "nothing answers at 127.0.0.1:1" in said.err
    assert "fix: streamapp up" in said.err


def started(served, *arguments, **more):
    """The command line as a process."""
    command = [sys.executable, "-m", "streamapp.cli", "tail", "--flight-port", str(served.port)]
    return subprocess.Popen([*command, *arguments], **more)


def test_it_goes_on_after_the_store_restarts(served, clean):
    served.add(0, 3)
    process = started(
        served,
        "--json",
        "--columns",
        "id",
        "--from",
        "beginning",
        "-n",
        "9",
        stdout=subprocess.PIPE,
    )
    lines = [process.stdout.readline() for _ in range(3)]
    served.stop()
    served.start()
    served.add(3, 3)
    lines += [process.stdout.readline() for _ in range(3)]
    served.stop()
    served.start()
    served.add(6, 3)
    rest, _ = process.communicate(timeout=60)
    ids = [json.loads(line)["id"] for line in [*lines, *rest.splitlines()]]
    assert ids == [f"id-{n}" for n in range(9)]
    assert process.returncode == 0


def test_a_terminal_gets_colour_and_ctrl_c_ends_it(served, clean, monkeypatch):
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm-256color")
    served.add(0, 1)
    ours, theirs = pty.openpty()
    process = started(served, "--from", "beginning", stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    seen = bytearray()

    def read():
        while True:
            try:
                seen.extend(os.read(ours, 4096))
            except OSError:  # the process is gone
                return

    thread = threading.Thread(target=read)
    thread.start()
    end = time.monotonic() + 60
    while b"hello" not in seen:
        assert time.monotonic() < end, bytes(seen)
        time.sleep(0.02)
    assert b"\x1b[31m-0.5" in seen  # red
    assert b"\\x1b[31m" in seen  # the sender's colour is not ours
    process.send_signal(signal.SIGINT)
    assert process.wait(30) in {-signal.SIGINT, 130}
    thread.join(10)
    os.close(ours)
    assert b"Traceback" not in seen
