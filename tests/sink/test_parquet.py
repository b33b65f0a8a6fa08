"""The Parquet store's own promises: what is not in the manifest is not there."""

import json
import os
from pathlib import Path

import duckdb
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from sinks import COLUMNS, DAY_US, ParquetSink, event, record, reject, rows

from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.sink.parquet import ParquetStore, dataset, files, tidy
from streamapp.sink.parquet.commits import Commits
from streamapp.testing import FakeClock


@pytest.fixture
def sink(tmp_path):
    return ParquetSink(str(tmp_path / "root"))


def data_files(sink):
    return sorted(str(path) for path in Path(sink.url).rglob("*.parquet"))


def offsets(sink):
    return sorted(sink.arrow("events")["source_offset"].to_pylist())


def test_one_file_per_topic_and_day_in_one_commit(sink):
    events = [event(0), event(1, ingest_time=DAY_US), event(2)]
    with sink.open() as store:
        store.write([record(0, 3, events), record(0, 1, topic="odd/../topic", partition=1)])
    folders = {str(Path(path).parent.relative_to(sink.url)) for path in sink.paths("events")}
    assert folders == {
        "events/topic=events.raw/day=1970-01-01",
        "events/topic=events.raw/day=1970-01-02",
        "events/topic=odd%2F..%2Ftopic/day=1970-01-01",
    }
    assert data_files(sink) == sorted(sink.paths("events") + sink.paths("provenance"))
    assert sorted(sink.arrow("events")["stored_order"].to_pylist()) == [0, 1, 2, 3]


def test_a_file_that_no_commit_names_is_never_read_and_swept_at_the_next_start(sink):
    with sink.open() as store:
        store.write([record(0, 4)])
        [path] = sink.paths("events")
        orphan = path.replace("part-", "part-9")
        Path(orphan).write_bytes(Path(path).read_bytes())
        cursor = store.reader()
        assert cursor.execute("SELECT count(*) FROM events").fetchall() == [(4,)]
        cursor.close()
        assert dataset(sink.url).count_rows() == 4
        assert orphan not in files(sink.url)
    sink.open().close()
    assert not Path(orphan).exists()
    assert Path(path).exists()


def test_drafts_of_a_killed_writer_are_removed(sink):
    sink.open().close()
    draft = Path(sink.url) / "_drafts" / "0123"
    draft.write_bytes(b"half")
    sink.open().close()
    assert not draft.exists()


def test_one_writer_in_a_directory(sink):
    with sink.open():
        with pytest.raises(Refuse, match=f"written by process {os.getpid()}") as caught:
            sink.open()
        assert caught.value.code == "store.locked"
        assert files(sink.url) == []  # readers need no lock
    sink.open().close()


def test_two_writers_of_an_object_store_take_turns(tmp_path):
    sink = ParquetSink(f"memory://{tmp_path.name}")
    first, second = sink.open(), sink.open()
    first.write([record(0, 3)])
    with pytest.raises(Retry, match="another writer"):
        second.write([record(0, 4)])
    written = second.write([record(0, 4)])
    assert (written.rows, written.duplicates_by_range) == (1, 3)
    with pytest.raises(Retry, match="another writer"):
        first.write([record(4, 5)])
    first.write([record(4, 5)])
    assert offsets(sink) == [*range(5)]
    assert first.positions() == {("events.enriched", 0): 5}


def test_a_writer_that_slept_through_checkpoints_loses_nothing(tmp_path):
    """The number it would take is free again, because its entry was taken away since."""
    sink = ParquetSink(f"memory://{tmp_path.name}")
    slow, busy = sink.open(), sink.open(checkpoint_commits=4)
    slow.write([record(0, 2)])
    with pytest.raises(Retry):
        busy.write([record(0, 2)])
    for at in range(2, 30):
        busy.write([record(at, at + 1)])
    assert not sink.files.exists(f"{sink.root}/_manifest/000000000003.json")
    with pytest.raises(Retry, match="another writer"):
        slow.write([record(29, 31)])
    written = slow.write([record(29, 31)])
    assert (written.rows, written.duplicates_by_range) == (1, 1)
    assert offsets(sink) == [*range(31)]


def test_two_that_slept_do_not_follow_each_other(tmp_path):
    """The first leaves an entry where nobody reads; it is not the one that the second knows."""
    sink = ParquetSink(f"memory://{tmp_path.name}")
    first = sink.open()
    second, busy = sink.open(), sink.open(checkpoint_commits=4)
    busy.write([record(0, 1)])
    with pytest.raises(Retry):
        second.write([record(0, 1)])
    second.write([record(0, 1)])  # knows one more than the first
    for at in range(1, 30):
        busy.write([record(at, at + 1)])
    for slept in (first, second):
        with pytest.raises(Retry, match="another writer"):
            slept.write([record(30, 31)])
    second.write([record(30, 31)])
    assert offsets(sink) == [*range(31)]


def test_a_writer_takes_over_columns_that_another_added(tmp_path):
    sink = ParquetSink(f"memory://{tmp_path.name}")
    old = sink.open(columns={"words": COLUMNS["words"]}, checkpoint_commits=1)
    old.write([record(0, 2)])
    sink.open().write([record(2, 4)])
    with pytest.raises(Retry, match="another writer"):
        old.write([record(4, 6)])
    assert old.write([record(4, 6)]).left_out == {}  # it knows them now
    cursor = old.reader()
    sql = "SELECT source_offset, len(entities) FROM events ORDER BY 1"
    found = [(0, None), (1, None), (2, 1), (3, 1), (4, 1), (5, 1)]
    assert cursor.execute(sql).fetchall() == found
    cursor.close()
    assert set(COLUMNS) <= set(dataset(sink.url).schema.names)


def test_a_writer_that_slept_while_files_were_merged_looks_again(tmp_path, monkeypatch):
    sink = ParquetSink(f"memory://{tmp_path.name}")
    monkeypatch.setattr(tidy, "RETIRED_S", -1)  # removed by the checkpoint after the merge
    slow = sink.open(dedup_window_s=0)
    slow.write([record(0, 2)])
    busy = sink.open(checkpoint_commits=20)
    for at in range(2, 50):
        busy.write([record(at, at + 1)])
    with pytest.raises(Retry, match="another writer"):
        slow.write([record(0, 2)])
    assert slow.write([record(0, 2)]).duplicates_by_range == 2
    [first] = [
        file["path"]
        for entry in sink.entries()
        for file in entry["files"]
        if file["table"] == "events" and file.get("first", 0) == 0
    ]
    sink.files.rm_file(f"{sink.root}/{first}")
    with pytest.raises(Retry, match="another writer"):
        slow.write([record(0, 2)])
    with pytest.raises(Halt, match="gone"):
        slow.write([record(0, 2)])


def test_two_that_start_at_once_both_start(tmp_path, monkeypatch):
    """The second makes its first entry between the first one's look and its own."""
    sink = ParquetSink(f"memory://{tmp_path.name}")
    look, others = Commits.load, []

    def load(self):
        look(self)
        if not others:
            others.append(None)
            others.append(sink.open(columns={}))

    monkeypatch.setattr(Commits, "load", load)
    with sink.open() as store:
        assert store.write([record(0, 2)]).rows == 2
    assert len(others) == 2
    assert offsets(sink) == [0, 1]


def test_a_place_that_cannot_create_exclusively_is_refused(monkeypatch):
    def overwrite(self, path, value, **_):
        self.open(path, "wb", data=value)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", overwrite)
    with pytest.raises(Refuse, match="only if it is missing") as caught:
        ParquetStore.open("memory://overwriting", columns={})
    assert caught.value.code == "store.place"


def test_an_answer_that_was_lost_is_no_second_commit(monkeypatch, tmp_path):
    """The driver sent the entry again, because no answer came: its own is already there."""
    sink = ParquetSink(f"memory://{tmp_path.name}")
    pipe = MemoryFileSystem.pipe_file

    def twice(self, path, value, mode="overwrite", **options):
        pipe(self, path, value, mode=mode, **options)
        if mode == "create" and path.endswith("2.json"):
            pipe(self, path, value, mode=mode, **options)

    with sink.open() as store:
        monkeypatch.setattr(MemoryFileSystem, "pipe_file", twice)
        assert store.write([record(0, 3)]).rows == 3
        assert store.write([record(3, 4)]).rows == 1
    assert offsets(sink) == [*range(4)]


def test_a_commit_whose_outcome_is_unknown_is_looked_up(monkeypatch, tmp_path):
    """The entry is there, but the driver says that it failed; the same records come again."""
    sink = ParquetSink(f"memory://{tmp_path.name}")
    pipe = MemoryFileSystem.pipe_file

    def fails_after(self, path, value, mode="overwrite", **options):
        pipe(self, path, value, mode=mode, **options)
        if path.endswith("2.json"):
            raise ConnectionResetError("reset by peer")

    with sink.open() as store:
        monkeypatch.setattr(MemoryFileSystem, "pipe_file", fails_after)
        with pytest.raises(Retry, match="reset by peer"):
            store.write([record(0, 3, rejects=[reject(1)])])
        monkeypatch.undo()
        again = store.write([record(0, 3, rejects=[reject(1)])])
        assert (again.rows, again.dead, again.duplicates_by_range) == (0, 0, 2)
        cursor = store.reader()
        assert cursor.execute("SELECT count(*) FROM events").fetchall() == [(2,)]
        cursor.close()
    assert offsets(sink) == [0, 2]


def test_checkpoints_keep_the_manifest_short_and_say_the_same(sink):
    with sink.open(checkpoint_commits=5) as store:
        for at in range(33):
            store.write([record(at, at + 1)])
    entries = sorted(path.name for path in (Path(sink.url) / "_manifest").glob("*.json"))
    assert len(entries) <= 2 * 5 + 2
    assert offsets(sink) == [*range(33)]
    assert rows(sink, "SELECT min(first), max(next), sum(rows) FROM ledger", "ledger") == [
        (0, 33, 33)
    ]
    with sink.open() as store:
        assert store.positions() == {("events.enriched", 0): 33}
        assert store.write([record(0, 34)]).rows == 1


def test_small_files_become_larger_ones_and_stay_for_an_hour(sink):
    hands = FakeClock()
    with hands.installed(), sink.open(checkpoint_commits=40) as store:
        cuts = [(at, at + 1) for at in range(39)]
        for first, next_ in cuts:
            store.write([record(first, next_, rejects=[reject(first)] if first % 2 else ())])
        before = sink.paths("events")
        snapshot = ds.dataset(before, format="parquet")
        store.write([record(39, 40)])
        after = sink.paths("events")
        assert len(after) < len(before) / 2
        assert snapshot.count_rows() == len(before)  # who has the old list still reads it
        assert sorted(sink.arrow("dead")["source_offset"].to_pylist()) == [*range(1, 39, 2)]
        merged = [pq.read_table(path)["stored_order"].to_pylist() for path in after]
        assert all(order == sorted(order) for order in merged)
        with pytest.raises(Halt, match="made anew"):  # events are found at their address as before
            store.write([record(3, 5, [event(4, id="other")])])
        hands.advance(tidy.RETIRED_S + 1)
        for at in range(40, 80):
            store.write([record(at, at + 1)])
    assert not any(Path(path).exists() for path in set(before) - set(after))
    assert offsets(sink) == sorted({*range(0, 39, 2), *range(39, 80)})
    sink.open().close()
    assert set(data_files(sink)) >= set(sink.paths("events"))


def test_a_checkpoint_that_fails_costs_nothing(sink, monkeypatch, caplog):
    with sink.open(checkpoint_commits=3) as store:
        monkeypatch.setattr(tidy, "remove_retired", fail)
        for at in range(5):
            assert store.write([record(at, at + 1)]).rows == 1
        monkeypatch.undo()
        store.write([record(5, 6)])
    assert "no checkpoint" in caplog.text
    assert offsets(sink) == [*range(6)]


def fail(*_):
    raise OSError("no room")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda entry: entry.write_text("{"), "damaged"),
        (lambda entry: entry.write_text('{"format": 2}'), "manifest format 2"),
        (
            lambda entry: entry.write_text(entry.read_text().replace('"number": 3', '"number": 7')),
            "7",
        ),
        (lambda entry: entry.unlink(), "entry 3 is missing"),
    ],
)
def test_a_damaged_manifest_is_refused_and_untouched(sink, spoil, message):
    with sink.open() as store:
        for at in range(3):
            store.write([record(at, at + 1)])
    spoil(Path(sink.url) / "_manifest" / "000000000003.json")
    there = data_files(sink)
    with pytest.raises(Refuse, match=message):
        sink.open()
    with pytest.raises(Refuse, match=message):
        files(sink.url)
    assert data_files(sink) == there


def test_a_data_file_that_is_gone_or_damaged_is_named(sink):
    with sink.open(dedup_window_s=0) as store:
        store.write([record(0, 3)])
        [path] = sink.paths("events")
        Path(path).write_bytes(b"PAR1 nonsense PAR1")
    with sink.open(dedup_window_s=0) as store:
        with pytest.raises(Halt, match="damaged"):
            store.write([record(0, 3)])
        Path(path).unlink()
        with pytest.raises(Halt, match="gone"):
            store.write([record(0, 3)])
    with pytest.raises(Refuse, match=Path(path).name):
        sink.open()  # which reads the dedup window


def test_a_folder_of_someone_else_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(Refuse, match=r"someone else \(thesis.txt\)"):
        ParquetStore.open(str(tmp_path), columns={})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense://x", "nonsense"),
        ("s3://key:secret@bucket/path", "names a user"),
        ("/proc/nothing/here", "cannot open"),
    ],
)
def test_urls_that_cannot_be_are_refused_without_secrets(url, message):
    with pytest.raises(Refuse, match=message) as caught:
        ParquetStore.open(url, columns={})
    assert "secret" not in caught.value.message + caught.value.fix


def test_readers_are_told_what_is_wrong(tmp_path):
    with pytest.raises(Refuse, match="no manifest"):
        files(str(tmp_path))
    with pytest.raises(Refuse, match="no table 'event'"):
        files(str(tmp_path), "event")


def test_a_query_opens_only_files_that_may_have_its_rows(sink):
    with sink.open() as store:
        for day in range(3):
            store.write([record(day, day + 1, [event(day, ingest_time=day * DAY_US)])])
    told = dataset(sink.url)
    damaged = [path for path in sink.paths("events") if "1970-01-02" not in path]
    for path in damaged:
        Path(path).write_bytes(b"")
    assert told.to_table(filter=ds.field("source_offset") == 1)["id"].to_pylist() == ["id-1"]


def test_sql_reaches_nothing_but_the_store(sink, tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    with sink.open() as store:
        store.write([record(0, 3)])
        cursor = store.reader()
        with pytest.raises(duckdb.PermissionException):
            cursor.execute(f"SELECT * FROM '{secret}'")
        with pytest.raises(duckdb.Error):
            cursor.execute("SET enable_external_access = true")
        assert cursor.execute("SELECT count(*) FROM latest").fetchall() == [(3,)]
        assert cursor.execute("SELECT events FROM conversations").fetchall() == [(3,)]
        cursor.close()


def test_the_manifest_is_json_that_a_person_can_read(sink):
    with sink.open(columns=COLUMNS) as store:
        store.write([record(0, 3)])
    entry = json.loads((Path(sink.url) / "_manifest" / "000000000002.json").read_text())
    assert entry["ranges"][0][:6] == ["events.raw", 0, 0, 3, 0, 3]
    assert entry["files"][0]["offsets"] == [[0, 0, 2]]
