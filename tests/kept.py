"""What the tests of copies, archives and retention share."""

import contextlib

import pyarrow.dataset as ds

from streamapp.sink import keep
from streamapp.sink.verify import Window, verify

#: Nothing is a duplicate by id, and nothing is kept for it.
NO_WINDOW = Window(0, 0)
EVERYTHING = "SELECT * FROM events ORDER BY source_topic, source_partition, source_offset"


def is_sound(path, *, deep=True):
    """Does a file that nobody has open verify?"""
    with keep.opened(str(path)) as read, contextlib.closing(read()) as cursor:
        *_, report = verify(cursor, NO_WINDOW, deep=deep)
    return report["ok"]


def hourly(make, first, next_, **given):
    """Events an hour apart, so that 24 offsets are a day."""
    dead = {one.source_offset for one in given.get("rejects", ())}
    offsets = [o for o in range(first, next_) if o not in dead]
    source = f"s{given.get('partition', 0)}"
    events = [make.event(o, source=source, ingest_us=o * make.HOUR_US) for o in offsets]
    return make.record(first, next_, events, **given)


def four_days(make, store):
    """Two partitions: four days of one, two of the other."""
    store.write([hourly(make, 0, 30), hourly(make, 30, 96), hourly(make, 0, 48, partition=1)])
    return store


def rows_of(store, sql="SELECT count(*) FROM events"):
    with contextlib.closing(store.reader()) as cursor:
        return cursor.execute(sql).fetchall()


def stored(store):
    """Addresses of the rows."""
    sql = "SELECT source_topic, source_partition, source_offset FROM events"
    return sorted(rows_of(store, sql))


def archived(root):
    """Addresses of an archive's rows, as pyarrow reads them."""
    table = ds.dataset(root / "events", partitioning="hive").to_table()
    columns = ("source_topic", "source_partition", "source_offset")
    return sorted(zip(*(table[name].to_pylist() for name in columns), strict=True))


def size_of(path):
    return path.stat().st_size if path.exists() else 0
