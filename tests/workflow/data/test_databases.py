"""SQLite and DuckDB: columns' types, values that do not fit, queries that only read."""

import sqlite3
import subprocess
import sys
from contextlib import closing

import duckdb
import pyarrow as pa
import pytest

from streamapp.core.errors import Refuse, Retry
from streamapp.workflow.data import databases, open_input, open_output
from streamapp.workflow.graph.spec import Input, Output


def sqlite_file(path, statements, rows=()):
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        for statement, values in rows:
            connection.execute(statement, values)
        connection.commit()


def opened(folder, name, bad=None, **keys):
    keep = {} if bad is None else {"on_bad": bad.append}
    return open_input(Input(path=name, **keys), folder, name="rows", **keep)


def test_sqlite_columns_have_the_declared_types_also_where_the_first_rows_are_null(tmp_path):
    insert = "insert into t values (?, ?, ?, ?, ?, ?)"
    rows = [(insert, (None,) * 6)] * 3 + [(insert, (1, "a", 2, b"x", "2020-01-01", 3))]
    create = "create table t (n integer, s varchar(9), r real, b blob, d date, x)"
    sqlite_file(tmp_path / "a.db", [create], rows)
    source = opened(tmp_path, "a.db", table="t")
    kinds = [str(kind) for kind in source.schema().types]
    assert kinds == ["int64", "string", "double", "binary", "string", "int64"]
    assert list(source.read().read_all().to_pylist()[3].values()) == [
        1,
        "a",
        2.0,
        b"x",
        "2020-01-01",
        3,
    ]


def test_a_value_of_another_type_is_a_bad_row_by_its_number(tmp_path):
    insert = "insert into t values (?, ?)"
    rows = [
        (insert, values) for values in [(1, "a"), ("two", "b"), (2.5, "c"), (4, b"\xff"), (5, "e")]
    ]
    sqlite_file(tmp_path / "a.db", ["create table t (n integer, s text)"], rows)
    bad = []
    rows = opened(tmp_path, "a.db", bad, table="t").read().read_all().to_pylist()
    assert rows == [{"n": 1, "s": "a"}, {"n": 5, "s": "e"}]
    assert [(row.line, row.reason) for row in bad] == [
        (2, "column 'n' is int64, not str"),
        (3, "column 'n' is int64, not float"),
        (4, "column 's' is string, not bytes"),
    ]


def test_a_sqlite_query_has_types_of_its_own(tmp_path):
    sqlite_file(tmp_path / "a.db", ["create table t (n integer)", "insert into t values (1), (2)"])
    query = "select n, n / 2.0 as half, 'x' || n as name, case n when 1 then 1 else 'b' end as any from t;"
    source = opened(tmp_path, "a.db", query=query)
    assert source.read().read_all().to_pylist() == [
        {"n": 1, "half": 0.5, "name": "x1", "any": "1"},
        {"n": 2, "half": 1.0, "name": "x2", "any": "b"},
    ]


@pytest.mark.parametrize(("keys", "why"), [
    ({"table": "nope"}, "no such table: nope"),
    ({"query": "select from"}, "syntax error"),
    ({"query": "drop table t"}, "syntax error"),
    ({"query": "select 1 from t; drop table t"}, "syntax error|one statement"),
])  # fmt: skip
def test_a_sqlite_query_that_is_none_is_refused_and_changes_nothing(tmp_path, keys, why):
    sqlite_file(tmp_path / "a.db", ["create table t (n integer)"])
    with pytest.raises(Refuse, match=why):
        opened(tmp_path, "a.db", **keys).read().read_all()
    assert opened(tmp_path, "a.db", table="t").read().read_all().num_rows == 0


@pytest.mark.parametrize("form", ["sqlite", "duckdb"])
def test_other_tables_of_an_output_stay(tmp_path, form):
    for name, value in (("one", 1), ("two", 2), ("one", 3)):
        declared = Output(source="s", path=f"out.{form}", table=name)
        rows = pa.table({"n": [value]})
        assert open_output(declared, tmp_path, name="x").write(rows.to_reader()) == 1
    found = {
        name: opened(tmp_path, f"out.{form}", table=name).read().read_all()["n"].to_pylist()
        for name in ("one", "two")
    }
    assert found == {"one": [3], "two": [2]}


def test_a_duckdb_query_reads_nothing_beside_its_file(tmp_path):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with duckdb.connect(tmp_path / "a.duckdb") as connection:
        connection.execute("create table t as select 1 as n, [1, 2] as list, {'x': 'y'} as pair")
    assert opened(tmp_path, "a.duckdb", table="t").read().read_all().to_pylist() == [
        {"n": 1, "list": [1, 2], "pair": {"x": "y"}}
    ]
    for query, why in (
        (f"from read_csv('{tmp_path}/secret.csv')", "disabled"),
        ("install httpfs", "disabled|no rows|Cannot|not"),
        ("drop table t", "read-only|no rows"),
    ):
        with pytest.raises(Refuse, match=why):
            opened(tmp_path, "a.duckdb", query=query).read().read_all()


def test_a_duckdb_file_that_another_process_holds_is_asked_for_again(tmp_path, monkeypatch):
    def held(*_, **__):
        raise duckdb.IOException("Could not set lock on file")

    (tmp_path / "a.duckdb").write_bytes(b"")
    monkeypatch.setattr(duckdb, "connect", held)
    with pytest.raises(Retry, match="is held by another process"):
        opened(tmp_path, "a.duckdb", table="t").schema()


def test_an_error_says_whether_another_try_may_help():
    def failing(state="", text="", kind=databases.OperationalError):
        error = kind(text, status_code=databases_status(), sqlstate=state or None)
        return databases.is_away(error)

    assert failing("08006")
    assert failing("57P01")
    assert not failing("42P01", "connection of tables")
    assert failing(text="could not connect to server")
    assert not failing(text="no such table")
    assert databases.is_away(ConnectionError("connection reset"))


def databases_status():
    from adbc_driver_manager import AdbcStatusCode

    return AdbcStatusCode.IO


def test_a_sqlite_query_keeps_its_order(tmp_path):
    insert = [("insert into t values (?)", (n,)) for n in range(300)]
    sqlite_file(tmp_path / "a.db", ["create table t (n integer)"], insert)
    source = opened(tmp_path, "a.db", query="select n, n % 7 as k from t order by n desc")
    assert source.read().read_all()["n"].to_pylist() == list(range(299, -1, -1))


def test_a_sqlite_file_that_another_process_holds_is_asked_for_again(tmp_path, monkeypatch):
    monkeypatch.setattr("streamapp.workflow.data.sqlite._WAIT_S", 0.01)
    sqlite_file(tmp_path / "a.db", ["create table t (n integer)"])
    with closing(sqlite3.connect(tmp_path / "a.db")) as holder:
        holder.execute("begin exclusive")
        with pytest.raises(Retry, match="a.db is locked by another process"):
            opened(tmp_path, "a.db", table="t").read()


def test_a_sqlite_query_may_end_in_a_comment(tmp_path):
    sqlite_file(tmp_path / "a.db", ["create table t (n integer)", "insert into t values (1)"])
    rows = opened(tmp_path, "a.db", query="select n from t -- all").read().read_all()
    assert rows.to_pylist() == [{"n": 1}]


@pytest.mark.parametrize("form", ["sqlite", "duckdb", "csv"])
def test_an_output_whose_folder_is_a_file_is_refused(tmp_path, form):
    (tmp_path / "taken").write_bytes(b"")
    writer = open_output(Output(source="x", path=f"taken/rows.{form}"), tmp_path, name="rows")
    with pytest.raises(Refuse, match="taken/rows.*: File exists"):
        writer.write(pa.table({"n": [1]}).to_reader())


READ = """
import sys
sys.path[:] = [path for path in sys.path if not path.endswith("bare")]  # has no pandas
from pathlib import Path
from streamapp.workflow.data import open_input
from streamapp.workflow.graph.spec import Input

source = open_input(Input(path="a.db", table="t"), Path(sys.argv[1]), name="rows")
print(source.read().read_all().num_rows, {"pandas", "polars"} & sys.modules.keys())
"""


def test_a_process_that_reads_sqlite_imports_no_data_frames(tmp_path):
    sqlite_file(tmp_path / "a.db", ["create table t (n integer)", "insert into t values (1)"])
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 set()\n"
