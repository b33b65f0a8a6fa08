"""The statements and commands of docs/store.md's section on SQL work, and its figures are true."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pages import page
from sinks import event, record

from streamapp import compose
from streamapp.core.batch import vector_column
from streamapp.core.config import Settings, load
from streamapp.flight import Client, FlightServer
from streamapp.sink import Store
from streamapp.sink.matrix import Matrix
from streamapp.sink.search import CALL_ROWS_MAX, K_MAX, TEXT_CHARS_MAX, Search

SECTION = page("store").section("Ask in SQL")
ROWS, DIM = 40, 384


def _record(columns):
    """``ROWS`` events; stages' columns are made up, vectors on a circle."""
    events = [event(n, conversation=f"c{n % 4}", actor="ann", duration_ms=0) for n in range(ROWS)]
    turns = np.arange(ROWS) / 10
    vectors = np.zeros((ROWS, DIM), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(turns), np.sin(turns)
    values = {
        "intent": ["refund"] * ROWS,
        "sentiment": np.linspace(-1, 1, ROWS).astype(np.float32),
        "velocity": np.linspace(1, 2, ROWS).astype(np.float32),
        "delta_time": np.zeros(ROWS, np.float32),
    }
    made = {name: pa.array(values.get(name, [None] * ROWS), kind) for name, kind in columns.items()}
    made["embedding"] = vector_column(vectors)
    return record(0, ROWS, events, stages=False, extra=made, at=1)


@pytest.fixture(scope="module")
def server():
    """A store as the default workflow writes it; the model is replaced by a fixed vector."""
    columns = {field.name: field.type for field in compose.plan(load()[0]).columns()}
    search = Search(lambda texts: np.eye(1, DIM, dtype=np.float32).repeat(len(texts), axis=0))
    with Store.open(":memory:", columns=columns, search=search) as store:
        store.write([_record(columns)])
        with FlightServer(store.reader, port=0) as running:
            yield running


@pytest.mark.parametrize("statement", SECTION.blocks("sql"))
def test_statements(server, statement):
    assert Client("127.0.0.1", server.port).query(statement).num_rows >= 5


def test_what_they_say(server):
    similar, near, velocity = (
        Client("127.0.0.1", server.port).query(statement).to_pylist()
        for statement in SECTION.blocks("sql")
    )
    assert similar[0] == {"text": "text 0", "intent": "refund", "cosine": 1.0}
    assert "text 7" not in {row["text"] for row in near}
    assert [row["velocity"] for row in velocity] == sorted(row["velocity"] for row in velocity)


def test_commands(server, tmp_path):
    (commands,) = SECTION.blocks("console")
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
