"""``streamapp parquet``: what readers are told, and refusals in two lines."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sinks import ParquetSink, record, reject
from store_host import StoreHost

BIN = Path(sys.executable).parent / "streamapp"


def run(*arguments, group="parquet", **environment):
    return subprocess.run(
        [BIN, group, *arguments],
        capture_output=True, text=True, check=False, timeout=60,
        env={
            "PATH": str(BIN.parent), "HOME": "/nonexistent",
            "PYTHONPATH": os.environ["PYTHONPATH"], **environment,
        },
    )  # fmt: skip


@pytest.fixture
def sink(tmp_path):
    sink = ParquetSink(str(tmp_path / "root"))
    with sink.open() as store:
        store.write([record(0, 3, rejects=[reject(1)]), record(5, 6)])
    return sink


def test_files_are_those_of_the_manifest_as_lines_and_as_json(sink):
    for table in ("events", "dead", "provenance", "answers"):
        options = ("--table", table, "--parquet-url", sink.url)
        assert run("files", *options).stdout.splitlines() == sink.paths(table)
        assert json.loads(run("files", "--json", *options).stdout) == sink.paths(table)


def test_show_says_what_is_stored(sink):
    found = json.loads(run("show", "--json", STREAMAPP_PARQUET_URL=sink.url).stdout)
    assert [(one["table"], one["files"], one["rows"]) for one in found["tables"]] == [
        ("events", 1, 3),
        ("dead", 1, 1),
        ("provenance", 1, 1),
        ("answers", 0, 0),
    ]
    assert found["positions"] == [{"topic": "events.enriched", "partition": 0, "next": 6}]
    assert found["holes"] == ["events.raw-0[3,5)"]


def test_verify_tells_holes_from_damage(sink):
    found = run("verify", "--json", "--parquet-url", sink.url)
    assert found.returncode == 65
    assert json.loads(found.stdout)["holes"] == ["events.raw-0[3,5)"]
    with sink.open() as store:
        store.write([record(3, 5)])
        assert (
            "every promise of the store holds"
            in run("verify", "--deep", STREAMAPP_PARQUET_URL=sink.url).stdout
        )
    first, second = map(Path, sink.paths("events"))
    data = bytearray(first.read_bytes())
    data[len(data) // 3] ^= 0xFF
    first.write_bytes(data)
    damaged = run("verify", "--deep", "--json", "--parquet-url", sink.url)
    assert damaged.returncode == 70
    assert set(json.loads(damaged.stdout)["counts"]) == {"file.damaged"}
    second.unlink()
    gone = run("verify", "--parquet-url", sink.url)
    assert gone.returncode == 70
    assert second.name in gone.stdout
    assert "Traceback" not in gone.stderr + damaged.stderr


def test_verify_finds_what_no_writer_would_do(sink):
    """The same rows named twice, and a range that claims rows which are nowhere."""
    manifest = Path(sink.url) / "_manifest" / "000000000002.json"
    entry = json.loads(manifest.read_text())
    [events] = [file for file in entry["files"] if file["table"] == "events"]
    copy = events | {"path": events["path"].replace("part-", "part-1")}
    (Path(sink.url) / copy["path"]).write_bytes((Path(sink.url) / events["path"]).read_bytes())
    entry["files"].append(copy)
    entry["ranges"].append(["events.raw", 0, 3, 5, 0, 2, 0])
    manifest.write_text(json.dumps(entry))
    counts = json.loads(run("verify", "--json", "--parquet-url", sink.url).stdout)["counts"]
    assert counts["address.repeated"] == 3
    assert counts["ledger.rows"] == 3
    assert counts["ids.repeated"] == 3


@pytest.mark.parametrize("verb", ["files", "show", "verify"])
def test_what_is_no_store_is_refused_in_two_lines(tmp_path, verb):
    done = run(verb, "--parquet-url", str(tmp_path))
    assert done.returncode == 2
    assert (
        done.stderr.splitlines()[0]
        == f"error: {tmp_path} is not a Parquet store: it has no manifest"
    )
    assert done.stderr.splitlines()[1].startswith("fix: ")
    assert len(done.stderr.splitlines()) == 2


def test_an_unknown_scheme_is_refused(tmp_path):
    done = run("files", "--parquet-url", "gopher://x/y")
    assert done.returncode == 2
    assert "gopher" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "way_out"),
    [
        (("verify",), "streamapp parquet verify"),
        (("backup", "x.duckdb"), "first _manifest and then the data"),
        (("archive", "x"), "streamapp parquet files"),
        (("rebuild",), "name an empty root"),
    ],
)
def test_verbs_for_the_duckdb_file_say_the_way_out(sink, arguments, way_out):
    said = run(*arguments, group="store", STREAMAPP_STORE="parquet", STREAMAPP_PARQUET_URL=sink.url)
    assert said.returncode == 2
    error, fix = said.stderr.splitlines()
    assert f"`streamapp store {arguments[0]}` is for DuckDB's file" in error
    assert way_out in fix


@pytest.fixture
def host(tmp_path):
    """A store's process on Parquet: two partitions of 2,000 events, a minute apart."""
    host = StoreHost(
        tmp_path / "home",
        store="parquet", parquet_url=str(tmp_path / "root"), parquet_flush_ms_max=100,
    )  # fmt: skip
    host.publish(
        [(p, first, first + 250) for first in range(0, 2000, 250) for p in range(2)], dead_every=100
    )
    host.start("store")
    host.wait_stored(3960)
    yield host
    for process in host.processes.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_retain_in_both_states(host, tmp_path, state):
    """The same words and results as of DuckDB's file: over Flight, or on the files."""
    if state == "stopped":
        assert host.terminate("store") == {0}
    done = host.json("retain", "--before", "2024-10-05", "--archive", "archive")
    assert (done["rows"], done["dead"], done["kept_for_dedup"]) == (2850, 30, 0)
    assert done["before"] == "2024-10-05T00:00:00+00:00"
    said = host.cli("retain", "--before", "2024-10-05").stdout
    assert said.startswith("0 rows and 0 dead letters dropped")
    host.publish([(0, 0, 2100)])  # old ones too
    if state == "stopped":
        host.start("store")
    host.wait_stored(1210)
    assert host.terminate("store") == {0}
    url = str(tmp_path / "root")
    report = json.loads(run("verify", "--deep", "--json", "--parquet-url", url).stdout)
    assert (report["ok"], report["rows"], report["retained"]) == (True, 1210, 2850)
    assert "retained 2,850" in run("verify", "--parquet-url", url).stdout


def test_retain_of_a_store_that_another_holds(tmp_path):
    sink = ParquetSink(str(tmp_path / "root"))
    settings = {"STREAMAPP_STORE": "parquet", "STREAMAPP_PARQUET_URL": sink.url}
    missing = run("retain", "--days", "1", group="store", **settings)
    assert (missing.returncode, "is not a Parquet store" in missing.stderr) == (2, True)
    with sink.open() as store:
        store.write([record(0, 3)])
        settings |= {"STREAMAPP_FLIGHT_PORT": "1", "STREAMAPP_DEDUP_WINDOW_S": "0"}
        held = run("retain", "--keep-rows", "0", group="store", **settings)
        assert held.returncode == 2
        assert "is written by process" in held.stderr
        assert "Traceback" not in held.stderr + missing.stderr
    assert run("retain", "--keep-rows", "0", group="store", **settings).returncode == 0
    assert sink.paths("events") == []
