"""Some columns of an enriched record: the same values, and the rest is left alone."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.batch import EVENT_SCHEMA
from streamapp.core.errors import Halt
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.core.state import StateEntry
from streamapp.topics import enriched
from streamapp.topics.enriched import Cover, Enriched, decode, decode_rows, encode
from streamapp.topics.wire import decode_slice


def record_of(count, extra=0):
    raw = [Record(i, 5, None, b'{"message": "m%d"}' % i) for i in range(count)]
    batch = decode_slice(Slice(OffsetRange("t", 0, 0, count), raw), event_bytes_max=99)
    batch = batch.with_columns({f"x{i}": pa.array(range(count)) for i in range(extra)})
    states = (StateEntry("s", "k", "key", 0, 1),)
    cover = Cover(topic="t", partition=2, first=0, next=count, rows=count)
    return Record(3, 0, None, *encode(Enriched(cover, batch.rows, states, (), "[1]")))


names = st.frozensets(st.sampled_from([*EVENT_SCHEMA.names, "x0", "x1", "no such column"]))


@given(st.integers(0, 3), st.integers(0, 2), names)
def test_the_columns_asked_for_are_those_of_the_whole(count, extra, wanted):
    record = record_of(count, extra)
    whole = decode(record)
    cover, rows = decode_rows(record, wanted)
    assert cover == whole.cover
    assert rows.num_rows == count
    if count:
        assert rows == whole.rows.select([n for n in whole.rows.schema.names if n in wanted])


def test_schemas_without_end_are_not_all_kept():
    for extra in range(3 * enriched._OPTIONS_MAX):
        decode_rows(record_of(1, extra), frozenset({"x0"}))
    assert len(enriched._options) <= enriched._OPTIONS_MAX


@pytest.mark.parametrize("value", [b"", b"junk", b"\xff\xff\xff\xff\xff\xff\xff\x7f", None])
def test_a_stranger_s_record_stops_us(value):
    with pytest.raises(Halt, match="is not ours"):
        decode_rows(record_of(2)._replace(value=value), frozenset({"id"}))


def test_a_record_that_ends_early_stops_us():
    record = record_of(2)
    with pytest.raises(Halt, match="is not ours"):
        decode_rows(record._replace(value=record.value[:900]), frozenset({"id"}))
