"""What ``retain`` leaves of a Parquet store's files, and who else may be at work on it."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from kept import NO_WINDOW, hourly, rows_of
from sinks import ParquetSink

from streamapp.core.errors import Refuse, Retry
from streamapp.flight.complaints import refusal
from streamapp.sink import Store, retain, upkeep
from streamapp.sink.answers import ANSWERS, Answers
from streamapp.sink.parquet import dataset, tidy
from streamapp.sink.parquet.place import Directory
from streamapp.sink.parquet.read import checked, summary
from streamapp.sink.parquet.retain import Change
from streamapp.testing import FakeClock


@pytest.fixture
def sink(tmp_path):
    return ParquetSink(str(tmp_path / "root"))


def day(number, hour=0):
    return datetime(1970, 1, number, hour, tzinfo=UTC)


def drop(store, **limits):
    step_rows = limits.pop("step_rows", None)
    *_, done = retain.retain(store, retain.bound(store, NO_WINDOW, **limits), step_rows=step_rows)
    return done


def offsets(sink):
    return sorted(sink.arrow("events")["source_offset"].to_pylist())


def is_sound(sink):
    *_, report = checked(sink.url, NO_WINDOW, deep=True)
    return report["ok"]


def on_disk(sink):
    return {str(path) for path in Path(sink.url).rglob("*.parquet")}


def test_old_files_go_whole_and_the_days_of_the_cut_anew(sink, make):
    with sink.open() as store:
        for first in range(0, 96, 12):
            store.write([hourly(make, first, first + 12)])
        before = sink.paths("events")
        assert drop(store, before=day(3, 6))["rows"] == 54
        after = sink.paths("events")
    assert len(before) == 8
    assert after[:3] == before[5:]  # untouched
    assert [Path(path).parent.name for path in after[3:]] == ["day=1970-01-03"]
    assert offsets(sink) == [*range(54, 96)]
    assert is_sound(sink)
    assert summary(sink.url)["retained"] == 54


def test_dropped_files_stay_for_an_hour_for_those_who_read_them(sink, make):
    hands = FakeClock()
    with hands.installed(), sink.open() as store:
        store.write([hourly(make, 0, 24)])
        store.write([hourly(make, 24, 96)])
        dropped, told = sink.paths("events")[0], dataset(sink.url)
        reader, late = store.reader(), store.reader()
        slow = reader.sql("SELECT * FROM events").to_arrow_reader(10)
        seen = slow.read_next_batch().num_rows
        drop(store, before=day(2))
        assert told.count_rows() == 96
        assert seen + sum(batch.num_rows for batch in slow) == 96
        reader.close()
        hands.advance(tidy.RETIRED_S - 1)
        drop(store, before=day(3))
        assert Path(dropped).exists()
        hands.advance(2)
        drop(store, before=day(4))
        assert not Path(dropped).exists()
        hands.advance(tidy.RETIRED_S)
        with pytest.raises(FileNotFoundError, match=Path(dropped).name):
            told.to_table()
        with pytest.raises(duckdb.Error) as caught:
            late.execute("SELECT sum(words) FROM events").fetchall()
        complaint = refusal(caught.value)  # as a client of Flight is told
        assert (complaint.code, "cannot read one" in complaint.message) == ("flight.store", True)
        assert sink.url not in complaint.message + complaint.fix
        late.close()
    with hands.installed():
        sink.open().close()
    assert on_disk(sink) == set(sink.paths("events") + sink.paths("provenance"))


def test_what_a_killed_retain_left_is_removed_at_the_next_start(sink, make):
    with sink.open() as store:
        store.write([hourly(make, 0, 96)])
        change = Change(*store.exclusively(lambda c: (c.place, c.state)), store.ledger, 10**11)
        change.prepare()
        assert len(on_disk(sink)) == 6  # one of them is named by nobody
    sink.open().close()
    assert on_disk(sink) == set(sink.paths("events") + sink.paths("provenance"))
    assert offsets(sink) == [*range(96)]


@pytest.mark.parametrize("step", ["put", "create"])
def test_a_full_disk_drops_nothing_and_leaves_nothing(sink, make, monkeypatch, step):
    with sink.open() as store:
        store.write([hourly(make, 0, 96)])

        def full(*_):
            raise OSError(28, "No space left on device")

        before = on_disk(sink)
        monkeypatch.setattr(Directory, step, full)
        with pytest.raises(Retry, match="No space left") as caught:
            drop(store, before=day(2, 6))
        assert caught.value.code == "store.write"
        assert on_disk(sink) == before
        monkeypatch.undo()
        assert offsets(sink) == [*range(96)]
        assert drop(store, before=day(2, 6))["rows"] == 30
        assert store.write([hourly(make, 90, 100)]).rows == 4
    assert is_sound(sink)


def test_files_that_are_merged_meanwhile_are_looked_at_again(sink, make, monkeypatch):
    look, looks = Change.prepare, []

    def prepare(self):
        look(self)
        looks.append(self)
        if len(looks) == 1:
            for at in range(17, 24):
                store.write([hourly(make, at, at + 1)])

    with sink.open(checkpoint_commits=20) as store:
        for at in range(17):
            store.write([hourly(make, at, at + 1)])
        monkeypatch.setattr(Change, "prepare", prepare)
        assert drop(store, before=day(1, 20))["rows"] == 17  # what came in meanwhile was not meant
        assert len(looks) == 2
        assert offsets(sink) == [*range(17, 24)]
    assert is_sound(sink)


def test_beside_another_writer_of_an_object_store(tmp_path, make):
    sink = ParquetSink(f"memory://{tmp_path.name}")
    with sink.open() as busy, sink.open() as other:
        busy.write([hourly(make, 0, 50)])
        with pytest.raises(Retry, match="another writer"):
            other.write([hourly(make, 0, 50)])
        assert other.write([hourly(make, 0, 50)]).rows == 0
        busy.write([hourly(make, 50, 60)])
        assert drop(other, before=day(2))["rows"] == 24  # it finds out, and looks again
        with pytest.raises(Retry, match="another writer"):
            busy.write([hourly(make, 0, 62)])
        again = busy.write([hourly(make, 0, 62)])
        assert (again.rows, again.duplicates_by_range) == (2, 60)
        assert rows_of(busy, "SELECT count(*), min(source_offset) FROM events") == [(38, 24)]
    assert is_sound(sink)


def test_files_that_another_writer_merged_long_ago(tmp_path, make, monkeypatch):
    monkeypatch.setattr(tidy, "RETIRED_S", -1)  # removed by the checkpoint after the merge
    sink = ParquetSink(f"memory://{tmp_path.name}")
    with sink.open() as slow:
        slow.write([hourly(make, 0, 1)])
        with sink.open(checkpoint_commits=20) as busy:
            for at in range(1, 48):
                busy.write([hourly(make, at, at + 1)])
        assert drop(slow, before=day(1, 12))["rows"] == 1  # of what it knew when it was asked
        assert drop(slow, before=day(1, 12))["rows"] == 11
    assert offsets(sink) == [*range(12, 48)]
    assert is_sound(sink)


def test_answers_of_dropped_events_go_too(sink, make):
    answers = [
        {"source_topic": "events.raw", "source_partition": 0, "source_offset": offset,
         "id": f"id-{offset}", "kind": "intent", "answer": "ask", "source": "llm", "local": "",
         "tokens_in": 1, "tokens_out": 1, "answered_at": 0, "log_offset": at}
        for at, offset in enumerate((3, 3, 50))
    ]  # fmt: skip
    with sink.open() as store:
        store.write([hourly(make, 0, 60)])
        rows = pa.Table.from_pylist(answers, schema=ANSWERS)
        store.write_answers(Answers("events.answers", 0, 3, rows))
        drop(store, before=day(2))
    assert sink.arrow("answers")["source_offset"].to_pylist() == [50]


def test_the_manifest_does_not_grow_with_every_retain(sink, make):
    with sink.open() as store:
        store.write([hourly(make, 0, 96)])
        for hour in range(1, 60):
            drop(store, before=day(1) + timedelta(hours=hour))
        (ranges,) = rows_of(store, 'SELECT "first", "next", "rows", before FROM retained')
    assert ranges == (0, 59, 59, day(1) + timedelta(hours=59))
    assert is_sound(sink)


def test_what_is_no_store_is_not_made_one(tmp_path):
    with (
        pytest.raises(Refuse, match="is not a Parquet store"),
        upkeep.of_root(str(tmp_path / "none"), NO_WINDOW),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(6))
def test_both_stores_drop_the_same(sink, make, tmp_path, seed):
    """Events out of order, repeats, dead letters, lost ones and holes; cuts at any moment."""
    chance = random.Random(seed)
    records = []
    for _ in range(12):
        partition, first = chance.randrange(2), chance.randrange(0, 90)
        next_ = first + chance.randint(1, 25)
        rejects = [make.reject(o) for o in range(first, next_) if o % 11 == 0]
        # A function of the address: what comes again is the same.
        times = {o: o + hash((partition, o // 3)) % 30 for o in range(first, next_)}
        dead = {one.source_offset for one in rejects}
        events = [
            make.event(
                o, name=f"{o % 70}", source=f"s{partition}", ingest_us=times[o] * make.HOUR_US
            )
            for o in range(first, next_)
            if o not in dead
        ]
        records.append(make.record(first, next_, events, rejects=rejects, partition=partition))
    left = []
    for opened in (
        Store.open(str(tmp_path / "s.duckdb"), columns=make.COLUMNS),
        sink.open(columns=make.COLUMNS, checkpoint_commits=3),
    ):
        done = []
        with opened as store:
            for at, one in enumerate(records):
                store.write([one])
                if at % 3 == 2:
                    limits = {"before": day(1) + timedelta(hours=at * 8)}
                    done.append(drop(store, **limits, step_rows=[1, 10, None][at % 2]))
            done.append(drop(store, keep_rows=20))
            kept = "SELECT source_partition, source_offset, id FROM events ORDER BY ALL"
            dead = "SELECT source_partition, source_offset FROM dead ORDER BY ALL"
            again = [store.write([one]).rows for one in records]
            totals = 'SELECT sum("rows")::BIGINT, sum(dead)::BIGINT FROM retained'
            said = [rows_of(store, sql) for sql in (kept, dead, totals)]
        left.append((done, again, said))
    assert left[0] == left[1]
    assert sum(one["rows"] for one in left[1][0]) > 0
    assert sum(left[1][1]) == 0
    *_, report = checked(sink.url, NO_WINDOW, deep=True)
    assert set(report["counts"]) <= {"ledger.hole"}
    assert ds.dataset(sink.paths("events")).count_rows() == len(left[1][2][0])
