"""Records through the C extension and around it, side by side."""

from batches import packed

from streamapp.core.batch import EVENT_SCHEMA
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.topics.columns import decode_plain
from streamapp.topics.wire import _decode_each, decode_slice

RANGE = OffsetRange("events.raw", 3, 0, 1000)
BYTES_MAX = 5000


def one_by_one(records):
    """The oracle: no record has seen the extension."""
    rows, rejects = _decode_each(records, RANGE, BYTES_MAX)
    return rows.to_pylist(), list(rejects)


def assert_same(records):
    batch = decode_slice(Slice(RANGE, records), event_bytes_max=BYTES_MAX)
    batch.rows.validate(full=True)
    assert batch.rows.schema.equals(EVENT_SCHEMA, check_metadata=True)
    rows, rejects = one_by_one(records)
    assert batch.rows.to_pylist() == rows
    assert list(batch.rejects) == rejects
    assert_same_packed(records)
    return batch


def assert_same_packed(records):
    """Where no record is an object, it has the row and the dead letter that it has as one."""
    found = packed(records)
    if found is None:
        return
    batch = decode_slice(Slice(RANGE, found), event_bytes_max=BYTES_MAX)
    batch.rows.validate(full=True)
    rows, rejects = one_by_one(list(found))
    assert batch.rows.to_pylist() == rows
    assert list(batch.rejects) == rejects
    assert [(r.key, r.value) for r in found] == [(r.key, r.value) for r in records]


def left_of(*values, key=None, headers=(), timestamp=7):
    """The values that the extension leaves."""
    records = [Record(n, timestamp, key, value, headers) for n, value in enumerate(values)]
    assert_same(records)
    _, left = decode_plain(records, "events.raw", 3, event_bytes_max=BYTES_MAX)
    return [record.value for record in left]


def is_taken(value, **record):
    return not left_of(
        value if value is None or isinstance(value, bytes) else value.encode(), **record
    )
