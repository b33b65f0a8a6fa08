"""The statements and commands of docs/store.md's section on SQL work, and its figures are true."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from streamapp import compose
from streamapp.core.batch import EVENT_SCHEMA, vector_column
from streamapp.core.config import Settings, load
from streamapp.flight import Client, FlightServer
from streamapp.sink import Store, StoredRecord
from streamapp.sink.matrix import Matrix
from streamapp.sink.search import CALL_ROWS_MAX, K_MAX, TEXT_CHARS_MAX, Search
from streamapp.topics.enriched import Cover, Enriched

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "store.md").read_text()
SECTION = PAGE[PAGE.index("## Ask in SQL") :].split("\n## ")[0]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ROWS, DIM = 40, 384


def blocks(kind):
    return [text for found, text in FENCE.findall(SECTION) if found == kind]


def _record(columns):
    """``ROWS`` events; stages' columns are made up, vectors on a circle."""
    numbers = np.arange(ROWS)
    values = {
        "source_offset": numbers,
        "id": [f"id-{n}" for n in numbers],
        "type": ["message"] * ROWS,
        "source": ["test"] * ROWS,
        "conversation": [f"c{n % 4}" for n in numbers],
        "actor": ["ann"] * ROWS,
        "time": numbers * 1_000_000,
        "ingest_time": numbers * 1_000_000,
        "text": [f"text {n}" for n in numbers],
        "duration_ms": np.zeros(ROWS, np.float32),
        "payload": ["{}"] * ROWS,
        "attachments": [None] * ROWS,
        "intent": ["refund"] * ROWS,
        "sentiment": np.linspace(-1, 1, ROWS).astype(np.float32),
        "velocity": np.linspace(1, 2, ROWS).astype(np.float32),
        "delta_time": np.zeros(ROWS, np.float32),
    }
    vectors = np.zeros((ROWS, DIM), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(numbers / 10), np.sin(numbers / 10)
    arrays = [pa.array(values[field.name], field.type) for field in EVENT_SCHEMA]
    rows = pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)
    for name, kind in columns.items():
        if name == "embedding":
            rows = rows.append_column(name, vector_column(vectors))
        else:
            rows = rows.append_column(name, pa.array(values.get(name, [None] * ROWS), kind))
    cover = Cover(topic="events.raw", partition=0, first=0, next=ROWS, rows=ROWS)
    return StoredRecord(Enriched(cover, rows), "events.enriched", 0, 1)


@pytest.fixture(scope="module")
def server():
    """A store as the default workflow writes it; the model is replaced by a fixed vector."""
    columns = {field.name: field.type for field in compose.plan(load()[0]).columns()}
    search = Search(lambda texts: np.eye(1, DIM, dtype=np.float32).repeat(len(texts), axis=0))
    with Store.open(":memory:", columns=columns, search=search) as store:
        store.write([_record(columns)])
        with FlightServer(store.reader, port=0) as running:
            yield running


@pytest.mark.parametrize("statement", blocks("sql"))
def test_statements(server, statement):
    assert Client("127.0.0.1", server.port).query(statement).num_rows >= 5


def test_what_they_say(server):
    similar, near, velocity = (
        Client("127.0.0.1", server.port).query(statement).to_pylist() for statement in blocks("sql")
    )
    assert similar[0] == {"text": "text 0", "intent": "refund", "cosine": 1.0}
    assert "text 7" not in {row["text"] for row in near}
    assert [row["velocity"] for row in velocity] == sorted(row["velocity"] for row in velocity)


def test_commands(server, tmp_path):
    (commands,) = blocks("console")
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STREAMAPP_HOME": str(tmp_path),
        "STREAMAPP_FLIGHT_PORT": str(server.port),
    }
    said = [
        subprocess.run(
            line.removeprefix("$ "), shell=True, capture_output=True, text=True, check=True, env=env,
            timeout=60, cwd=tmp_path, stdin=subprocess.DEVNULL,
        ).stdout
        for line in commands.splitlines()
    ]  # fmt: skip
    assert re.search(r"^conversation +first_time", said[0])
    assert said[1] == '{"intent":"refund","events":40}\n'


def test_what_is_there(server):
    ask = Client("127.0.0.1", server.port).query
    for name in re.findall(r"^\| `(\w+)` \|", SECTION, re.MULTILINE):
        assert ask(f"DESCRIBE {name}").num_rows
    named = re.findall(r"^\| `(\w+)\(", SECTION, re.MULTILINE)
    macros = ask("SELECT function_name AS name FROM duckdb_functions() WHERE function_type = "
                 "'table_macro' AND database_name = current_database()")["name"].to_pylist()  # fmt: skip
    assert sorted(named) == sorted(macros)
    tables = ask("SELECT table_name AS name FROM duckdb_tables()")["name"].to_pylist()
    assert {"events", "dead", "ledger", "position", "provenance"} <= set(tables)


def test_figures():
    bytes_max = Settings().search_bytes_max
    assert f"({bytes_max >> 20} MiB, which holds" in SECTION
    rows = bytes_max // (DIM * 4 + Matrix.ROW_BYTES)
    assert f"{rows // 1000},000 vectors of {DIM} numbers" in SECTION
    assert f"`k` is {K_MAX:,} at most" in SECTION
    assert f"{TEXT_CHARS_MAX:,} characters at most" in SECTION
    assert f"takes {CALL_ROWS_MAX} rows" in SECTION
