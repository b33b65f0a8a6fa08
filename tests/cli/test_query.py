"""``streamapp query`` against a Flight server that has a table for every statement."""

import json
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from io import StringIO

import pyarrow as pa
import pyarrow.csv
import pytest
from pyarrow import flight
from rich.console import Console
from rich.text import Text

from streamapp.cli import query
from streamapp.cli.query import cell, values_of

ROWS = pa.table(
    {
        "text": ["hello", None],
        "count": pa.array([1, 2], pa.int64()),
        "score": pa.array([0.5, float("nan")], pa.float32()),
        "at": pa.array([datetime(2026, 11, 22, tzinfo=UTC)] * 2, pa.timestamp("us", "UTC")),
        "embedding": pa.array([[0.25] * 384, None], pa.list_(pa.float32(), 384)),
        "entities": pa.array(
            [[{"label": "city", "start": 1}], []],
            pa.list_(pa.struct({"label": pa.string(), "start": pa.int32()})),
        ),
    }
)


class Server(flight.FlightServerBase):
    asked = ""

    def __init__(self, location):
        self.go_on = threading.Event()
        super().__init__(location)

    def do_get(self, context, ticket):
        self.asked = ticket.ticket.decode()
        if self.asked == "select endless":
            self.go_on.wait(30)
        if self.asked == "select twice":
            return flight.RecordBatchStream(pa.table([[1], [2]], names=["a", "a"]))
        if self.asked.startswith("selec "):
            raise flight.FlightServerError(
                "syntax error at or near selec", b'{"kind": "refuse", "code": "sql.syntax"}'
            )
        return flight.RecordBatchStream(ROWS)


@pytest.fixture
def server():
    with Server("grpc://127.0.0.1:0") as running:
        yield running


@pytest.fixture
def ask(run, server):
    return lambda *arguments: run("query", *arguments, "--flight-port", str(server.port))


def test_a_table_for_people(ask, server):
    result = ask("select * from events")
    assert result.code == 0, result.err
    assert server.asked == "select * from events"
    lines = result.out.splitlines()
    assert lines[0].split() == ROWS.column_names
    assert "[0.2500, 0.2500, 0.2500, … 384]" in lines[1]
    assert "null" in lines[2]


@pytest.mark.parametrize(("columns", "upright"), [(60, True), (2000, False)])
def test_rows_too_wide_for_the_terminal_stand_upright(ask, monkeypatch, columns, upright):
    out = StringIO()
    screen = Console(force_terminal=True, width=columns, file=out, color_system=None)
    monkeypatch.setattr(query, "console", lambda **_: screen)
    assert ask("select * from events").code == 0
    assert out.getvalue().startswith("row 1\n") == upright
    assert "[0.2500, 0.2500, 0.2500, … 384]" in out.getvalue()


def test_json_lines(ask):
    first, second = map(json.loads, ask("select 1", "--json").out.splitlines())
    assert first["embedding"] == [0.25] * 384
    assert first["entities"] == [{"label": "city", "start": 1}]
    assert first["at"] == "2026-11-22T00:00:00Z"
    assert (second["text"], second["score"], second["embedding"]) == (None, None, None)


def test_csv_holds_nested_values_as_json(ask, clean):
    (clean / "out.csv").write_text(ask("select 1", "--csv").out)
    read = pa.csv.read_csv(clean / "out.csv")
    assert read.column_names == ROWS.column_names
    assert json.loads(read["embedding"][0].as_py()) == [0.25] * 384
    assert json.loads(read["entities"][0].as_py()) == [{"label": "city", "start": 1}]


def test_arrow_file_is_what_the_store_sent(ask, clean):
    result = ask("select 1", "--arrow", "out.arrow")
    assert (result.code, result.out) == (0, "")
    with pa.memory_map(str(clean / "out.arrow")) as file:
        read = pa.ipc.open_file(file).read_all()
    assert read.schema == ROWS.schema
    assert read.num_rows == 2


def test_an_arrow_file_that_cannot_be_written(ask):
    result = ask("select 1", "--arrow", "no/such/folder.arrow")
    assert result.code == 2
    assert "no/such/folder.arrow" in result.err


def test_an_arrow_file_without_a_name(ask):
    said = ask("SELECT 1 AS a", "--arrow", "")
    assert (said.code, "the path is empty" in said.err) == (2, True)


def test_sql_from_standard_input(ask, server, clean, monkeypatch):
    (clean / "report.sql").write_text("select\n  1\n")
    with (clean / "report.sql").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert ask("-").code == 0
    assert server.asked == "select\n  1\n"


def test_one_output_at_a_time(ask):
    result = ask("select 1", "--json", "--csv")
    assert result.code == 2
    assert "choose one of" in result.out


def test_no_sql(ask):
    assert "there is no SQL" in ask("  ").err


def test_columns_of_one_name_are_no_json_object(ask):
    done = ask("select twice", "--json")
    assert done.code == 2
    assert "several columns are called a" in done.out


def test_sql_that_is_no_text(ask):
    done = ask("select '\udcff'")
    assert done.code == 2
    assert "the statement is not UTF-8" in done.err


def test_the_store_s_own_words(ask):
    result = ask("selec 1")
    assert result.code == 2
    assert "syntax error at or near selec" in result.err


def test_ctrl_c_ends_a_query_that_still_runs(server):
    command = [sys.executable, "-m", "streamapp.cli", "query", "select endless"]
    with subprocess.Popen([*command, "--flight-port", str(server.port)]) as asking:
        while not server.asked:
            assert asking.poll() is None
            time.sleep(0.01)
        asking.send_signal(signal.SIGINT)
        try:
            assert asking.wait(10) == -signal.SIGINT
        finally:
            server.go_on.set()


def test_no_store(run):
    result = run("query", "select 1", "--flight-port", "9")
    assert result.code == 75
    assert "nothing answers at 127.0.0.1:9" in result.err
    assert "streamapp up" in result.err


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (0.1234567891, "0.123457"),
        ([1.0, 2.0], "[1.0000, 2.0000]"),
        (list(range(9)), "[0, 1, 2, … 9]"),
        ("[bold]not markup[/]", "[bold]not markup[/]"),
        (True, "True"),
        (b"\xff" * 500, repr(b"\xff" * 40) + " … 500 bytes"),
        ("a\x1b]0;title\x07\tb\nc", r"a\x1b]0;title\x07" + "\tb\nc"),
        (["\x1b[2J"], r"[\x1b[2J]"),
    ],
)
def test_cells(value, shown):
    assert isinstance(cell(value), Text)
    assert cell(value).plain == shown


def test_values_that_python_or_csv_have_no_room_for(ask, monkeypatch, clean):
    far = pa.array([2**62], pa.timestamp("us"))
    odd = {
        "far": far,
        "nanos": pa.array([1], pa.timestamp("ns")),
        "blob": pa.array([b"\xff"]),
        "span": pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
    }
    monkeypatch.setitem(globals(), "ROWS", pa.table(odd))
    assert "148108-07-06 " in ask("select 1").out
    row = json.loads(ask("select 1", "--json").out)
    assert (row["nanos"], row["blob"]) == ("1970-01-01 00:00:00.000000001", "/w==")
    (clean / "out.csv").write_text(ask("select 1", "--csv").out)
    read = pa.csv.read_csv(clean / "out.csv").select(["blob", "span"]).to_pylist()[0]
    assert (read["blob"], read["span"]) == ("/w==", "1 month 2 days")


INFINITE = [(1 << 63) - 1, -(1 << 63) + 1, 2**62, 0, None]
SHOWN = ["infinity", "-infinity", "148108-07-06", "1970-01-01", None]


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.date32()])
def test_infinite_times_and_years_that_python_has_not(ask, monkeypatch, kind):
    numbers = (
        [(1 << 31) - 1, -(1 << 31) + 1, 53_367_000, 0, None] if kind == pa.date32() else INFINITE
    )
    column = pa.array(numbers, pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)
    lists = pa.ListArray.from_arrays(list(range(6)), column)
    monkeypatch.setitem(globals(), "ROWS", pa.table({"at": column, "many": lists}))
    rows = [json.loads(line) for line in ask("select 1", "--json").out.splitlines()]
    begins = [at and at[:9] for at in SHOWN]
    if kind == pa.date32():
        begins[2] = "148083-11"
    assert [row["at"] and row["at"][:9] for row in rows] == begins
    assert [row["many"][0] and row["many"][0][:9] for row in rows] == begins
    for told in (ask("select 1").out, ask("select 1", "--csv").out):
        assert "-infinity" in told
        assert "out of range" not in told


def test_what_python_has_no_room_for_reads_as_duckdb_writes_it():
    import duckdb

    row = "map {'a': 1} AS m, interval '3 days 2 hours' AS i, time '24:00:00' AS t"
    table = duckdb.sql(f"SELECT {row}").to_arrow_table()
    found = [values_of(name, table[name]) for name in table.column_names]
    assert found == [[{"a": 1}], ["3 days 02:00:00"], ["24:00:00"]]


def test_a_store_s_address_that_is_none_is_refused(run):
    result = run("query", "select 1", "--flight-host", "a b")
    assert result.code == 2
    assert "a b:9383 is no address" in result.err
    assert "flight_host" in result.err
