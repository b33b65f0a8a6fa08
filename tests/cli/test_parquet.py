"""``streamapp parquet``: what readers are told, and refusals in two lines."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sinks import ParquetSink, record, reject

BIN = Path(sys.executable).parent / "streamapp"


def run(*arguments, group="parquet", **environment):
    return subprocess.run(
        [BIN, group, *arguments],
        capture_output=True, text=True, check=False, timeout=60,
        env={"PATH": str(BIN.parent), "HOME": "/nonexistent", **environment},
    )  # fmt: skip


@pytest.fixture
def sink(tmp_path):
    sink = ParquetSink(str(tmp_path / "root"))
    with sink.open() as store:
        store.write([record(0, 3, rejects=[reject(1)]), record(5, 6)])
    return sink


def test_files_are_those_of_the_manifest_as_lines_and_as_json(sink):
    for table in ("events", "dead", "provenance"):
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
        (("retain", "--days", "3"), "STREAMAPP_PARQUET_URL"),
        (("rebuild",), "name an empty root"),
    ],
)
def test_verbs_for_the_duckdb_file_say_the_way_out(sink, arguments, way_out):
    said = run(*arguments, group="store", STREAMAPP_STORE="parquet", STREAMAPP_PARQUET_URL=sink.url)
    assert said.returncode == 2
    error, fix = said.stderr.splitlines()
    assert f"`streamapp store {arguments[0]}` is for DuckDB's file" in error
    assert way_out in fix
