"""An archive has each row once, whenever it is written, and gives back what was stored."""

from datetime import date

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from kept import EVERYTHING, archived, four_days, hourly, rows_of, stored

from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.sink import Store
from streamapp.sink.archive import archive


@pytest.fixture
def store(make, open_store, path):
    return four_days(make, open_store(path))


def test_each_row_once_by_day_and_topic(make, store, tmp_path):
    *_, done = archive(store.reader, tmp_path / "a", rows_max=10)
    assert done["rows"] == 144
    days = sorted(one.name for one in (tmp_path / "a" / "events").iterdir())
    assert days == [f"ingest_day=1970-01-0{n}" for n in (1, 2, 3, 4)]
    assert archived(tmp_path / "a") == stored(store)
    *_, done = archive(store.reader, tmp_path / "a", rows_max=7)
    assert (done["rows"], done["files"]) == (0, 0)


def test_what_came_since_is_added(make, store, tmp_path):
    list(archive(store.reader, tmp_path / "a"))
    late = make.event(97, name="late", ingest_us=5 * make.HOUR_US)
    store.write([make.record(96, 98, [make.event(96, ingest_us=97 * make.HOUR_US), late])])
    store.write([hourly(make, 110, 120)])
    list(archive(store.reader, tmp_path / "a"))
    store.write([hourly(make, 98, 110)])  # the hole
    list(archive(store.reader, tmp_path / "a"))
    assert archived(tmp_path / "a") == stored(store)


def test_only_whole_days_before_one(store, tmp_path):
    list(archive(store.reader, tmp_path / "a", before=date(1970, 1, 3)))
    assert len(archived(tmp_path / "a")) == 96


def test_types_come_back(make, store, tmp_path):
    """Vectors with their length, null ones null: in pyarrow as they are, in DuckDB by view."""
    list(archive(store.reader, tmp_path / "a"))
    cursor = store.reader()
    expected = cursor.sql(EVERYTHING).to_arrow_table()
    cursor.close()
    schema = expected.schema
    read = ds.dataset(tmp_path / "a" / "events", partitioning=ds.partitioning(
        pa.schema([("ingest_day", pa.date32()), ("source_topic", pa.string())]), flavor="hive"
    )).to_table()  # fmt: skip
    assert read.schema.field("embedding").type == make.COLUMNS["embedding"]
    read = read.sort_by([("source_partition", "ascending"), ("source_offset", "ascending")])
    assert read.select(schema.names).to_pylist() == expected.to_pylist()
    assert read["embedding"].null_count == expected["embedding"].null_count > 0
    plain = duckdb.connect()
    plain.execute((tmp_path / "a" / "read.sql").read_text())
    kinds = dict(
        plain.execute("SELECT column_name, column_type FROM (DESCRIBE archived_events)").fetchall()
    )
    assert (kinds["embedding"], kinds["payload"]) == ("FLOAT[4]", "JSON")
    assert (kinds["ingest_day"], kinds["source_topic"]) == ("DATE", "VARCHAR")
    assert plain.execute("SELECT count(*), sum(words) FROM archived_events").fetchall() == (
        rows_of(store, "SELECT count(*), sum(words) FROM events")
    )
    joined = "SELECT DISTINCT p.detail FROM archived_events e JOIN archived_provenance p ON e.provenance = p.id"
    assert plain.execute(joined).fetchall() == [('["embed@1"]',)]
    plain.close()


def test_columns_that_came_later(make, open_store, path, tmp_path):
    with Store.open(path, columns={}) as bare:
        bare.write([hourly(make, 0, 5, stages=False)])
    store = open_store(path)
    list(archive(store.reader, tmp_path / "a"))
    store.write([hourly(make, 5, 10)])
    list(archive(store.reader, tmp_path / "a"))
    plain = duckdb.connect()
    plain.execute((tmp_path / "a" / "read.sql").read_text())
    assert plain.execute("SELECT count(*), count(words) FROM archived_events").fetchall() == [
        (10, 5)
    ]
    plain.close()


def test_dead_letters_and_odd_names(make, open_store, tmp_path):
    store = open_store()
    store.write([make.record(0, 5, rejects=[make.reject(3)], topic="a/b =%1")])
    list(archive(store.reader, tmp_path / "a b'c"))
    plain = duckdb.connect()
    plain.execute((tmp_path / "a b'c" / "read.sql").read_text())
    dead = "SELECT source_topic, source_offset, value, headers[1].value FROM archived_dead"
    assert plain.execute(dead).fetchall() == [("a/b =%1", 3, b"\xffnot json", b"\x00\xff")]
    assert plain.execute("SELECT DISTINCT source_topic FROM archived_events").fetchall() == [
        ("a/b =%1",)
    ]
    plain.close()


def test_one_at_a_time(store, tmp_path):
    first = archive(store.reader, tmp_path / "a")
    next(first)
    with pytest.raises(Retry, match="is being written"):
        list(archive(store.reader, tmp_path / "a"))
    list(first)
    assert archived(tmp_path / "a") == stored(store)


def test_a_column_with_the_folders_name_is_refused(open_store, tmp_path):
    store = open_store(columns={"ingest_day": pa.int32()})
    with pytest.raises(Refuse, match="ingest_day"):
        list(archive(store.reader, tmp_path / "a"))


def test_a_file_that_is_none_of_ours_is_refused(store, tmp_path):
    list(archive(store.reader, tmp_path / "a"))
    day = next((tmp_path / "a" / "events").rglob("*.parquet")).parent
    for name in ("mine.parquet", "0-1-2.parquet", "x-y-z.parquet"):  # ours have 20 digits
        (day / name).write_bytes(b"")
        with pytest.raises(Refuse, match=f"{name} is no file of this archive"):
            list(archive(store.reader, tmp_path / "a"))
        (day / name).unlink()


def test_a_damaged_file_does_not_pass_for_its_rows(store, tmp_path):
    list(archive(store.reader, tmp_path / "a"))
    file = next((tmp_path / "a" / "events").rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(Halt, match="cannot be read"):
        list(archive(store.reader, tmp_path / "a"))
    file.unlink()
    list(archive(store.reader, tmp_path / "a"))
    assert archived(tmp_path / "a") == stored(store)


def test_another_store_s_archive_does_not_pass_for_this_one_s(make, store, open_store, tmp_path):
    list(archive(store.reader, tmp_path / "a"))
    with Store.open(str(tmp_path / "other.duckdb"), columns=make.COLUMNS) as other:
        events = [make.event(n, name=f"other-{n}", ingest_us=n * make.HOUR_US) for n in range(96)]
        other.write([make.record(0, 96, events)])
        with pytest.raises(Refuse, match="has rows of another store"):
            list(archive(other.reader, tmp_path / "a"))


def test_where_nothing_can_be_written(store, tmp_path):
    (tmp_path / "a").write_text("a file")
    with pytest.raises(Refuse, match="a is a file, and an archive is a folder"):
        list(archive(store.reader, tmp_path / "a"))
    with pytest.raises(Refuse, match="cannot write"):
        list(archive(store.reader, tmp_path / "a" / "b"))
