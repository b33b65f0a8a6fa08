"""PostgreSQL by ADBC, on a server of this test's own."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from streamapp.core.errors import Refuse, Retry
from streamapp.testing import check_reader, check_writer
from streamapp.testing.contracts.data import ROWS
from streamapp.workflow.data import Place, open_input, open_output, reader_of, writer_of
from streamapp.workflow.graph.spec import Input, Output

pytest.importorskip("adbc_driver_postgresql", reason="no PostgreSQL driver: streamapp[postgres]")


def program(name):
    """Of an installed PostgreSQL: on the path, or where Debian keeps them."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(debian[-1]) if debian else None)


class Postgres:
    """A cluster in a folder of its own, reached by a socket; it does not run as root."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="pg", dir="/tmp")
        self._user = {}
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self._run("initdb", "-D", f"{self.folder}/data", "-U", "test", "-A", "trust", "--no-sync")
        self.start()
        self.url = f"postgresql:///postgres?host={self.folder}&user=test"

    def start(self):
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off"
        self._run(
            "pg_ctl",
            "-D",
            f"{self.folder}/data",
            "-w",
            "-l",
            f"{self.folder}/log",
            "-o",
            options,
            "start",
        )

    def stop(self):
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")

    def sql(self, text):
        return self._run("psql", "-h", self.folder, "-U", "test", "-d", "postgres", "-Atc", text)

    def _run(self, name, *arguments):
        done = subprocess.run(
            [program(name), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd="/", timeout=110, check=False, **self._user,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()


@pytest.fixture(scope="module")
def postgres():
    if not program("initdb"):
        pytest.skip("no PostgreSQL server (initdb) on this machine")
    made = Postgres()
    yield made
    made.stop()
    shutil.rmtree(made.folder)


@pytest.fixture
def url(postgres, monkeypatch):
    monkeypatch.setenv("ROWS_URL", postgres.url)
    return "env:ROWS_URL"


def place(postgres, table):
    return Place("rows", url=postgres.url, shown="env:ROWS_URL", table=table)


def test_it_keeps_the_contracts(postgres):
    where = place(postgres, "contract")
    kind = reader_of("postgres")
    check_writer(
        writer_of("postgres"), where, lambda: kind(where, kind.Options()).read().read_all()
    )
    writer_of("postgres")(where, None).write(ROWS.to_reader())
    check_reader(kind, where, expected=ROWS)


def test_types_come_as_they_are_in_the_database(postgres, url, tmp_path):
    postgres.sql(
        "create schema s; create table s.t (n int, big bigint, at timestamptz, day date, tags text[]);"
        "insert into s.t values (1, 2, '2020-01-01 10:00+02', '2020-02-29', '{a,b}'), (null, null, null, null, null)"
    )
    source = open_input(Input(type="postgres", url=url, table="s.t"), tmp_path, name="rows")
    assert [str(kind) for kind in source.schema().types][:4] == [
        "int32", "int64", "timestamp[us, tz=UTC]", "date32[day]",
    ]  # fmt: skip
    first = source.read().read_all().to_pylist()[0]
    assert (first["n"], first["tags"], first["at"].hour) == (1, ["a", "b"], 8)


def test_a_query_only_reads(postgres, url, tmp_path):
    postgres.sql("create table kept (n int)")
    for query in ("insert into kept values (1) returning n", "delete from kept returning n"):
        declared = Input(type="postgres", url=url, query=query)
        with pytest.raises(Refuse, match="read-only transaction"):
            open_input(declared, tmp_path, name="rows").read().read_all()
    assert postgres.sql("select count(*) from kept") == "0"


def test_nested_columns_are_written_as_json(postgres, url, tmp_path):
    rows = pa.table({"n": [1], "tags": [["a", "b"]]})
    declared = Output(source="x", format="postgres", url=url, table="nested")
    assert open_output(declared, tmp_path, name="out").write(rows.to_reader()) == 1
    assert postgres.sql("select tags from nested") == '["a","b"]'


def test_a_table_that_there_is_none_of_is_refused(url, tmp_path):
    source = open_input(Input(type="postgres", url=url, table="nope"), tmp_path, name="rows")
    with pytest.raises(Refuse, match='"nope" does not exist'):
        source.read()


def test_a_server_that_is_away_is_a_retry_and_its_address_is_not_told(monkeypatch, tmp_path):
    monkeypatch.setenv("ROWS_URL", "postgresql://ann:s3cret@127.0.0.1:1/x")
    source = open_input(
        Input(type="postgres", url="env:ROWS_URL", table="t"), tmp_path, name="rows"
    )
    with pytest.raises(Retry) as away:
        source.schema()
    assert "s3cret" not in str(away.value)


def test_a_server_that_dies_while_it_is_read_is_a_retry(postgres, url, tmp_path):
    """Its last batches are void; after it came back the rows are there."""
    query = "select n, repeat('x', 1000) as text from generate_series(1, 200000) as n"
    source = open_input(Input(type="postgres", url=url, query=query), tmp_path, name="rows")
    rows = source.read()
    assert rows.read_next_batch().num_rows
    postgres.stop()
    try:
        with pytest.raises(Retry, match="source.died|env:ROWS_URL"):
            for _ in rows:
                pass
    finally:
        postgres.start()
