"""Backup, archive, retain and rebuild, killed before every file operation and at random lines.

After each kill what is there is whole (kills.py looks), and the last attempt, which nobody kills,
brings what was asked for.
"""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from kept import archived, hourly, is_sound
from store_host import plain

from streamapp.core.slice import Record
from streamapp.sink import Store
from streamapp.sink.answers import ANSWERS, Answers
from streamapp.sink.parquet import ParquetStore
from streamapp.topics.enriched import encode

PROGRAM = Path(__file__).with_name("kills.py")
WHAT = ("backup", "archive", "retain", "rebuild", "retain-parquet")


@pytest.fixture
def folder(make, tmp_path):
    """A store of three days, and the records that it is made of."""
    stored = [hourly(make, first, first + 10) for first in range(0, 60, 10)]
    with Store.open(str(tmp_path / "s.duckdb"), columns=make.COLUMNS) as store:
        for at, record in enumerate(stored, 1):
            store.write([record._replace(next=at)])
    with ParquetStore.open(str(tmp_path / "root"), columns=make.COLUMNS) as store:
        for first in range(0, 60, 10):
            rejects = [make.reject(first + at) for at in (1, 7) if first + at in {7, 41}]
            store.write([hourly(make, first, first + 10, rejects=rejects)])
        answers = [
            {"source_topic": "events.raw", "source_partition": 0, "source_offset": offset,
             "id": f"id-{offset}", "kind": "intent", "answer": "ask", "source": "llm", "local": "",
             "tokens_in": 1, "tokens_out": 1, "answered_at": 0, "log_offset": at}
            for at, offset in enumerate((3, 50))
        ]  # fmt: skip
        rows = pa.Table.from_pylist(answers, schema=ANSWERS)
        store.write_answers(Answers("events.answers", 0, 2, rows))
    records = []
    for record in stored:
        value, headers = encode(record.enriched)
        records.append(Record(len(records), 1000 * len(records), None, value, headers))
    (tmp_path / "records").write_bytes(pickle.dumps((records, make.COLUMNS)))
    return tmp_path


def killed(what, folder, times=0):
    """How often it was killed; ``times`` 0: before each file operation."""
    path = [str(PROGRAM.parents[1]), str(PROGRAM.parents[2]), os.environ["PYTHONPATH"]]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), what, str(folder), str(times)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def brought(what, folder):
    """What the attempt that nobody killed has to leave."""
    left = {one.name for one in folder.iterdir()} - {"s.duckdb", "records", "root"}
    if what == "retain-parquet":
        assert left == set()
        root = folder / "root"
        newest = json.loads(max((root / "_manifest").iterdir()).read_text())
        files = {one["path"] for one in newest["files"]} | {path for path, _ in newest["retired"]}
        assert {str(one.relative_to(root)) for one in root.rglob("*.parquet")} == files
        assert [run[2:6] for run in newest["retained"]] == [[0, 29, 28, 1], [41, 42, 0, 1]]
        return
    if what == "backup":
        assert left == {"copy"}
        assert is_sound(folder / "copy")
    elif what == "rebuild":
        assert left == {"s.duckdb.before-rebuild"}
        assert plain(folder / "s.duckdb", 'SELECT max("next") FROM position') == [(6,)]
    else:
        assert left == {"archive"}
        parts = [one for one in (folder / "archive").rglob("*") if one.name.startswith(".")]
        assert parts == []
        assert len(archived(folder / "archive")) == (24 if what == "retain" else 60)
    count = plain(folder / "s.duckdb", "SELECT count(*) FROM events")
    assert count == [(36 if what == "retain" else 60,)]


@pytest.mark.parametrize("what", WHAT)
def test_killed_before_each_file_operation(folder, what):
    assert killed(what, folder) >= 5
    brought(what, folder)


@pytest.mark.parametrize("what", WHAT)
def test_killed_at_random_lines(folder, what):
    assert killed(what, folder, 4) == 4
    brought(what, folder)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", WHAT)
def test_killed_at_two_hundred_lines(folder, what):
    assert killed(what, folder, 200) == 200
    brought(what, folder)
