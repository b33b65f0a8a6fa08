"""Copies of a store, and what its actions take."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from kept import EVERYTHING, NO_WINDOW, four_days, hourly, is_sound, rows_of, size_of

from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.sink import keep
from streamapp.sink.upkeep import Upkeep, of_file, of_store
from streamapp.sink.verify import Window


@pytest.fixture
def store(make, open_store, path):
    return four_days(make, open_store(path))


def test_the_copy_is_a_store_that_goes_on(make, store, open_store, tmp_path):
    target = tmp_path / "copy.duckdb"
    expected = rows_of(store, EVERYTHING)
    *_, done = keep.backup(store.reader, target, window=NO_WINDOW)
    assert (done["rows"], done["ok"], done["bytes"]) == (144, True, target.stat().st_size)
    assert sorted(one.name for one in tmp_path.iterdir() if one.name.startswith((".", "copy"))) == [
        "copy.duckdb"
    ]
    copy = open_store(str(target))
    assert rows_of(copy, EVERYTHING) == expected
    assert copy.positions() == store.positions()
    assert list(copy.ledger) == list(store.ledger)
    again = copy.write([hourly(make, 90, 100)])
    assert (again.rows, again.duplicates_by_range) == (4, 6)
    assert rows_of(copy, "SELECT count(*) FROM latest") == [(100,)]


def test_a_path_that_no_system_takes_is_refused(store, tmp_path):
    impossible = tmp_path / ("x" * 300)
    for attempt in (
        lambda: list(keep.backup(store.reader, impossible, window=NO_WINDOW)),
        lambda: keep.opened(str(impossible)).__enter__(),
        lambda: list(of_store(store, NO_WINDOW)["backup"]({"target": str(impossible)})),
    ):
        with pytest.raises(Refuse, match="cannot look at"):
            attempt()


def test_the_dedup_window_of_the_copy_knows_the_same_ids(make, open_store, path, tmp_path):
    store = open_store(path)
    store.write([make.record(0, 5000)])
    list(keep.backup(store.reader, tmp_path / "copy", window=Window(1 << 30, 1 << 30)))
    copy = open_store(str(tmp_path / "copy"))
    repeated = make.record(5000, 5002, [make.event(5000, name="id-7"), make.event(5001)])
    assert copy.write([repeated]).duplicates_by_id == 1


def test_it_is_one_moment_and_the_writer_goes_on(make, open_store, path, tmp_path):
    """The WAL is checkpointed while the copy's transaction is open, so it stays small."""
    store = open_store(path)
    store.write([make.record(0, 50_000)])
    copying = keep.backup(store.reader, tmp_path / "copy", window=NO_WINDOW)
    assert next(copying)["table"] == "events"
    wal, largest, first = Path(f"{path}.wal"), 0, 50_000
    text = "words " * 400
    while first < 90_000:
        events = [make.event(o, text=f"{text}{o}") for o in range(first, first + 500)]
        store.write([make.record(first, first + 500, events, stages=False)])
        first += 500
        largest = max(largest, size_of(wal))
    *_, done = copying
    assert done["rows"] == 50_000
    assert rows_of(store) == [(90_000,)]
    assert largest < 32 << 20


def test_a_file_that_is_there_is_kept_unless_told(store, tmp_path):
    target = tmp_path / "copy.duckdb"
    target.write_text("mine")
    with pytest.raises(Refuse, match="exists"):
        list(keep.backup(store.reader, target, window=NO_WINDOW))
    assert target.read_text() == "mine"
    list(keep.backup(store.reader, target, replace=True, window=NO_WINDOW))
    assert is_sound(target)


def test_another_store_s_file_is_not_taken_from_under_it(store, tmp_path):
    target = tmp_path / "other.duckdb"
    program = f"import duckdb; c = duckdb.connect({str(target)!r}); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        other.stdout.readline()
        before = target.stat().st_ino
        with pytest.raises(Refuse, match="is open in another process") as caught:
            list(keep.backup(store.reader, target, replace=True, window=NO_WINDOW))
        assert caught.value.code == "backup.open"
        assert target.stat().st_ino == before
        other.communicate("\n")
    list(keep.backup(store.reader, target, replace=True, window=NO_WINDOW))
    assert is_sound(target)


def test_what_came_while_it_was_copied_is_not_replaced_untold(store, tmp_path):
    target = tmp_path / "copy.duckdb"
    copying = keep.backup(store.reader, target, window=NO_WINDOW)
    next(copying)
    target.write_text("somebody else's")
    with pytest.raises(Refuse) as caught:
        list(copying)
    assert caught.value.code == "backup.exists"
    assert target.read_text() == "somebody else's"
    assert [one.name for one in tmp_path.glob("*copy*")] == ["copy.duckdb"]


def test_a_file_that_was_opened_while_it_was_copied_is_not_replaced(store, tmp_path):
    target = tmp_path / "other.duckdb"
    list(keep.backup(store.reader, target, window=NO_WINDOW))
    copying = keep.backup(store.reader, target, replace=True, window=NO_WINDOW)
    next(copying)
    program = f"import duckdb; c = duckdb.connect({str(target)!r}); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        other.stdout.readline()
        with pytest.raises(Refuse, match="is open in another process"):
            list(copying)
        other.communicate("\n")
    assert is_sound(target)


def test_a_pipe_or_a_device_is_not_replaced(store, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Refuse, match="is no regular file"):
        list(keep.backup(store.reader, tmp_path / "pipe", replace=True, window=NO_WINDOW))
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("there", [True, False])
def test_the_wal_of_what_was_there_does_not_get_into_the_copy(store, tmp_path, there):
    target, live = tmp_path / "copy.duckdb", tmp_path / "live.duckdb"
    with duckdb.connect(str(live)) as old:
        old.execute("CREATE TABLE theirs AS SELECT 1 AS n").fetchall()
        shutil.copy(f"{live}.wal", f"{target}.wal")
        if there:
            shutil.copy(live, target)
    list(keep.backup(store.reader, target, replace=True, window=NO_WINDOW))
    assert is_sound(target)


def test_one_copy_of_a_target_at_a_time(store, tmp_path):
    first = keep.backup(store.reader, tmp_path / "copy", window=NO_WINDOW)
    next(first)
    with pytest.raises(Retry, match="is being written"):
        list(keep.backup(store.reader, tmp_path / "copy", window=NO_WINDOW))
    *_, done = first
    assert done["ok"]


def test_a_copy_that_is_given_up_leaves_nothing(store, tmp_path):
    before = set(tmp_path.iterdir())
    copying = keep.backup(store.reader, tmp_path / "copy", window=NO_WINDOW)
    next(copying)
    copying.close()
    assert set(tmp_path.iterdir()) == before


def test_a_copy_that_differs_is_not_kept(store, tmp_path, monkeypatch):
    insert = keep.recall.insert

    def losing(connection, table, rows):
        insert(connection, table, rows.slice(table == '"events"'))

    monkeypatch.setattr(keep.recall, "insert", losing)
    with pytest.raises(Halt, match="differs|copy for"):
        list(keep.backup(store.reader, tmp_path / "copy", window=NO_WINDOW))
    assert not list(tmp_path.glob("copy*"))


def test_where_nothing_can_be_written(store, tmp_path):
    with pytest.raises(Refuse, match="cannot write"):
        list(keep.backup(store.reader, tmp_path / "none" / "copy", window=NO_WINDOW))


def test_a_copy_of_a_store_with_a_hole_says_so(make, store, tmp_path):
    store.write([hourly(make, 100, 104)])
    *_, done = keep.backup(store.reader, tmp_path / "copy", window=NO_WINDOW)
    assert (done["ok"], done["holes"]) == (False, ["events.raw-0[96,100)"])
    assert (tmp_path / "copy").exists()


def test_the_running_store_offers_them(store, tmp_path):
    actions = of_store(store, NO_WINDOW)
    assert set(actions) == {"verify", "backup", "archive", "retain"}
    *_, done = actions["backup"]({"target": str(tmp_path / "c"), "store": store.path})
    assert done["rows"] == 144
    *_, done = actions["retain"]({"before": "1970-01-02", "archive": str(tmp_path / "a")})
    assert (done["rows"], done["files"]) == (48, 2)
    *_, done = actions["archive"]({"folder": str(tmp_path / "a"), "before": "1970-01-03"})
    assert done["rows"] == 48
    *_, done = actions["verify"]({"deep": True})
    assert done["ok"]


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("verify", {"deep": 1}, "action.argument"),
        ("verify", {"store": "/another"}, "store.other"),
        ("backup", {}, "action.argument"),
        ("backup", {"target": "relative"}, "action.argument"),
        ("backup", {"target": "/"}, "backup.folder"),
        ("backup", {"target": "/nowhere/x.duckdb.wal"}, "backup.wal"),
        ("backup", {"target": "/x\0y"}, "action.argument"),
        ("archive", {"folder": 7}, "action.argument"),
        ("archive", {"folder": "/tmp/x", "before": "soon"}, "store.before"),
        ("archive", {"folder": "/tmp/x", "before": 5}, "action.argument"),
        ("retain", {}, "retain.limit"),
        ("retain", {"days": 1, "keep_rows": 2}, "retain.limit"),
        ("retain", {"days": -1}, "action.argument"),
        ("retain", {"days": True}, "action.argument"),
        ("retain", {"keep_rows": 1.5}, "action.argument"),
        ("retain", {"days": 10**9}, "store.before"),
    ],
)
def test_bad_arguments(store, name, arguments, code):
    with pytest.raises(Refuse) as caught:
        list(of_store(store, NO_WINDOW)[name](arguments))
    assert caught.value.code == code
    assert rows_of(store) == [(144,)]


def test_a_store_is_not_copied_onto_itself(store):
    with pytest.raises(Refuse, match="the store itself"):
        list(of_store(store, NO_WINDOW)["backup"]({"target": store.path, "replace": True}))


def test_one_at_a_time(store, tmp_path):
    actions = of_store(store, NO_WINDOW)
    copying = actions["backup"]({"target": str(tmp_path / "c")})
    next(copying)
    with pytest.raises(Retry, match="is running"):
        list(actions["retain"]({"days": 1}))
    list(actions["verify"]({}))
    list(copying)
    list(actions["retain"]({"keep_rows": 1000}))


def test_a_file_is_read_and_not_written(store, path, tmp_path):
    store.close()
    before = Path(path).read_bytes()
    for name, arguments in (
        ("verify", {}),
        ("backup", {"target": str(tmp_path / "c")}),
        ("archive", {"folder": str(tmp_path / "a")}),
    ):
        with of_file(path, NO_WINDOW, name) as action:
            *_, done = action(arguments)
        assert done["rows"] == 144
    assert Path(path).read_bytes() == before
    with of_file(path, NO_WINDOW, "retain") as action:
        *_, done = action({"keep_rows": 44})
    assert (done["rows"], is_sound(path)) == (100, True)


def test_reading_only_nothing_is_retained(store):
    upkeep = Upkeep(store.path, store.reader, NO_WINDOW)
    with pytest.raises(Refuse, match="read only"):
        list(upkeep.retain({"days": 1}))
