"""What was retained is gone, is counted, and never comes back: of either store."""

import uuid
from datetime import UTC, datetime
from pathlib import Path

import kept
import pytest
from kept import NO_WINDOW, archived, four_days, hourly, rows_of, size_of, stored

from streamapp.core.errors import Halt, Refuse
from streamapp.sink import retain
from streamapp.sink.archive import archive
from streamapp.sink.parquet import ParquetStore
from streamapp.sink.parquet.read import checked
from streamapp.sink.verify import Window

both = pytest.mark.parametrize("kind", ["duckdb", "parquet", "parquet-memory"], indirect=True)


@pytest.fixture
def kind(request):
    return getattr(request, "param", "duckdb")


@pytest.fixture
def path(kind, tmp_path):
    names = {"duckdb": str(tmp_path / "store.duckdb"), "parquet": str(tmp_path / "root")}
    return names.get(kind, f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def open_store(kind, make, open_store):
    if kind == "duckdb":
        yield open_store
        return
    stores = []

    def opened(url, **options):
        stores.append(ParquetStore.open(url, columns=make.COLUMNS, **options))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


def is_sound(path):
    if path.endswith(".duckdb"):
        return kept.is_sound(path)
    *_, report = checked(path, NO_WINDOW, deep=True)
    return report["ok"]


@pytest.fixture
def store(make, open_store, path):
    return four_days(make, open_store(path))


def drop(store, **limits):
    window = limits.pop("window", NO_WINDOW)
    options = {name: limits.pop(name) for name in ("archive_to", "step_rows") if name in limits}
    *_, done = retain.retain(store, retain.bound(store, window, **limits), **options)
    return done


def at(day):
    return datetime(1970, 1, day, tzinfo=UTC)


@both
def test_what_was_dropped_never_comes_back(make, store, open_store, path):
    done = drop(store, before=at(3))
    assert (done["rows"], done["kept_for_dedup"]) == (96, 0)
    again = store.write([hourly(make, 0, 100), hourly(make, 0, 48, partition=1)])
    assert (again.rows, again.duplicates_by_range) == (4, 144)
    assert rows_of(store, "SELECT min(source_offset), count(*) FROM events") == [(48, 52)]
    store.close()
    with open_store(path) as opened:
        assert opened.write([hourly(make, 0, 100)]).rows == 0
    assert is_sound(path)


@both
@pytest.mark.parametrize("step_rows", [1, 7, 10_000])
def test_steps_and_ranges(store, path, step_rows):
    drop(store, before=at(2), step_rows=step_rows)
    ranges = 'SELECT "partition", min("first"), max("next"), sum(rows) FROM retained GROUP BY 1 ORDER BY 1'
    assert rows_of(store, ranges) == [(0, 0, 24, 24), (1, 0, 24, 24)]
    store.close()
    assert is_sound(path)


@both
def test_keep_rows_and_days(store, monkeypatch):
    assert drop(store, keep_rows=1000)["rows"] == 0
    assert drop(store, keep_rows=10)["rows"] == 134
    assert rows_of(store, "SELECT min(source_offset), count(*) FROM events") == [(86, 10)]
    monkeypatch.setattr("streamapp.core.clock.now_us", lambda: 96 * 3_600_000_000)
    assert drop(store, days=1)["rows"] == 0
    monkeypatch.setattr("streamapp.core.clock.now_us", lambda: 114 * 3_600_000_000)
    assert drop(store, days=1)["rows"] == 4
    assert drop(store, keep_rows=0)["rows"] == 6


@both
def test_events_out_of_order_are_kept_by_their_own_age(make, open_store, path):
    """A clock that was wrong neither saves its neighbours nor takes them along."""
    store = open_store(path)
    days = {10: 9, 20: -3, 40: -2}
    events = [
        make.event(o, ingest_us=(days.get(o, 2 if o < 30 else 5)) * 24 * make.HOUR_US)
        for o in range(50)
    ]
    store.write([make.record(0, 50, events)])
    assert drop(store, before=at(4))["rows"] == 30
    kept = rows_of(store, "SELECT list(source_offset ORDER BY source_offset) FROM events")
    assert kept == [([10, *(o for o in range(30, 50) if o != 40)],)]
    store.close()
    assert is_sound(path)


@both
def test_a_hole_in_old_ranges_can_still_be_filled(make, open_store, path):
    store = open_store(path)
    store.write([hourly(make, 0, 10), hourly(make, 20, 30)])
    drop(store, before=at(9))
    assert store.write([hourly(make, 0, 30)]).rows == 10
    store.close()
    assert is_sound(path)


@both
def test_dead_letters_go_too(make, open_store, path):
    store = open_store(path)
    store.write([hourly(make, 0, 30, rejects=[make.reject(3)])])
    done = drop(store, before=at(2))
    assert (done["rows"], done["dead"]) == (23, 1)
    assert rows_of(store, "SELECT count(*) FROM dead") == [(0,)]
    store.close()
    assert is_sound(path)


@both
def test_ids_of_the_dedup_window_stay(make, open_store, path):
    """A restart reads them back from the rows, so a repeat is still known after it."""
    store = open_store(path)
    store.write([hourly(make, 0, 96)])
    done = drop(store, keep_rows=1, window=Window(10 * 3600, 1000))
    assert (done["rows"], done["kept_for_dedup"]) == (85, 10)
    store.close()
    reopened = open_store(path, dedup_window_s=10 * 3600, dedup_window_events=1000)
    repeat = make.event(96, name="id-85", source="s0", ingest_us=95 * make.HOUR_US)
    assert reopened.write([make.record(96, 97, [repeat])]).duplicates_by_id == 1


@both
def test_the_archive_has_everything_that_was_dropped(make, store, tmp_path):
    expected = stored(store)
    drop(store, before=at(3), archive_to=tmp_path / "a")
    store.write([hourly(make, 96, 98)])
    away, here = set(archived(tmp_path / "a")), set(stored(store))
    assert away | here == {*expected, ("events.raw", 0, 96), ("events.raw", 0, 97)}
    list(archive(store.reader, tmp_path / "a"))
    assert len(archived(tmp_path / "a")) == 146


@both
def test_nothing_is_dropped_when_the_archive_fails(store, tmp_path):
    (tmp_path / "a").write_text("a file")
    with pytest.raises(Refuse):
        drop(store, before=at(3), archive_to=tmp_path / "a")
    assert rows_of(store) == [(144,)]


@both
def test_what_comes_in_old_while_it_archives_is_not_dropped(make, store, tmp_path):
    steps = retain.retain(
        store, retain.bound(store, NO_WINDOW, before=at(9)), archive_to=tmp_path / "a"
    )
    next(steps)
    store.write([make.record(96, 97, [make.event(96, ingest_us=0)])])
    *_, done = steps
    assert done["rows"] == 144
    assert rows_of(store, "SELECT source_offset FROM events") == [(96,)]


def test_a_plan_that_does_not_fit_drops_nothing(make, store):
    steps = retain.retain(store, retain.bound(store, NO_WINDOW, before=at(3)))
    next(steps)
    store.exclusively(lambda writer: writer.execute(
        "DELETE FROM events WHERE source_offset = 5").fetchall())  # fmt: skip
    with pytest.raises(Halt, match="store verify"):
        list(steps)
    assert rows_of(store, "SELECT count(*) FROM retained") == [(0,)]


def test_space_is_used_again(make, open_store, path):
    store = open_store(path)
    text = "".join(map(chr, range(33, 126))) * 20

    def fill(first):
        for at in range(first, first + 20_480, 2048):
            events = [make.event(o, text=f"{hash(o)}{text}") for o in range(at, at + 2048)]
            store.write([make.record(at, at + 2048, events, stages=False)])

    fill(0)
    for round_ in range(1, 4):
        fill(round_ * 20_480)
        store.checkpoint()
        if round_ == 1:
            size = Path(path).stat().st_size
        drop(store, keep_rows=20_480)
    assert Path(path).stat().st_size < 1.3 * size
    assert rows_of(store) == [(20_480,)]


def test_a_reader_that_stays_does_not_stop_checkpoints(make, open_store, path):
    """DELETE is not UPDATE: after it, and with an open snapshot, the WAL still stays small."""
    store = open_store(path)
    store.write([make.record(0, 20_000)])
    reader = store.reader()
    slow = reader.sql("SELECT * FROM events").to_arrow_reader(100)
    seen = slow.read_next_batch().num_rows
    assert drop(store, keep_rows=5000)["rows"] == 15_000
    text, largest = "words " * 400, 0
    for first in range(20_000, 60_000, 500):
        events = [make.event(o, text=f"{text}{o}") for o in range(first, first + 500)]
        store.write([make.record(first, first + 500, events, stages=False)])
        largest = max(largest, size_of(Path(f"{path}.wal")))
    assert largest < 32 << 20
    assert seen + sum(batch.num_rows for batch in slow) == 20_000
    reader.close()
