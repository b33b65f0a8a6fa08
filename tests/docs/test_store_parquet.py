"""Every snippet of docs/store.md's section on Parquet is true."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import duckdb
import pytest
from pages import page
from sinks import DIM, ParquetSink, record, reject

from streamapp.core.config import describe, load
from streamapp.sink.parquet import tidy

SECTION = page("store").section("Parquet, when one file")
EVENTS = 22


@pytest.fixture
def sink(tmp_path):
    """Eleven commits with checkpoints between them, and a file that no commit names."""
    sink = ParquetSink(str(tmp_path / "root"))
    with sink.open(checkpoint_commits=4) as store:
        for first in range(0, 33, 3):
            store.write([record(first, first + 3, rejects=[reject(first)])])
    orphan = Path(sink.paths("events")[0])
    orphan.with_name("part-999999999999-0.parquet").write_bytes(orphan.read_bytes())
    return sink


def test_the_commands(sink):
    said = {}
    for line in "".join(SECTION.blocks("console")).splitlines():
        words = line.removeprefix("$ ").split()
        command = [Path(sys.executable).parent / words[0], *words[1:], "--parquet-url", sink.url]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        said[line] = done.stdout
    assert said["$ streamapp parquet files"].splitlines() == sink.paths("events")
    assert re.search(rf"events +11 +{EVENTS} ", said["$ streamapp parquet show"])


def run_snippets(sink, *, polars):
    scope = {"url": sink.url}
    snippets = [text for text in SECTION.blocks("python") if polars or "polars" not in text]
    for text in snippets:
        exec(text, scope)
        if "found" in scope:
            assert len(scope.pop("found")) == EVENTS
    return len(snippets)


def test_the_snippets_in_order(sink, capsys):
    assert run_snippets(sink, polars=False) == 2
    told = capsys.readouterr().out.replace("item", "element")
    assert told == f"{EVENTS} fixed_size_list<element: float>[{DIM}]\n"


def test_the_snippet_of_polars(sink):
    pytest.importorskip("polars", reason="polars is not installed: its snippet in docs/store.md")
    assert run_snippets(sink, polars=True) == 3


def test_the_statements(sink):
    (text,) = SECTION.blocks("sql")
    with duckdb.connect() as plain:
        for statement in text.replace("/data/events", sink.url).split(";"):
            if statement.strip():
                answer = plain.execute(statement).fetchall()
    assert answer == [("message", EVENTS)]


def test_the_settings(tmp_path):
    (text,) = SECTION.blocks("toml")
    (tmp_path / "streamapp.toml").write_text(text)
    settings, _ = load(environ={}, folder=tmp_path)
    assert settings.store == "parquet"
    assert settings.parquet_root == tomllib.loads(text)["parquet_url"]


def test_the_figures():
    defaults = {field.name: field.default for field in describe()}
    assert f"`parquet_flush_rows` ({defaults['parquet_flush_rows']:,})" in SECTION
    assert f"`parquet_flush_ms_max` ({defaults['parquet_flush_ms_max']:,} ms)" in SECTION
    merged = f"({tidy.MERGE_FILES} of like size, up to {tidy.MERGED_BYTES_MAX >> 20} MiB)"
    assert merged in SECTION
    assert tidy.RETIRED_S == 3600
    assert "stay for an hour" in SECTION
