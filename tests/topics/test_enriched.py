"""The enriched record keeps everything, and a plain Arrow reader sees the rows."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.batch import Rejected
from streamapp.core.errors import Halt
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.core.state import StateEntry
from streamapp.topics.enriched import (
    REJECT_SCHEMA,
    STATE_SCHEMA,
    Cover,
    Enriched,
    cover_of,
    decode,
    encode,
    no_rows,
)
from streamapp.topics.wire import decode_slice

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3),
)
states = st.builds(StateEntry, st.text(), st.text(), st.text(), st.integers(0, 2**40), plain)
rejects = st.builds(
    Rejected, st.integers(0, 2**40), st.integers(0, 2**40), st.none() | st.binary(), st.none() | st.binary(),
    st.lists(st.tuples(st.text(), st.binary()), max_size=3).map(tuple), st.text(), st.text(), st.text(),
)  # fmt: skip


def rows(count):
    values = [Record(i, 5, None, b'{"message": "m"}') for i in range(count)]
    return decode_slice(Slice(OffsetRange("t", 0, 0, count), values), event_bytes_max=99).rows


def record_of(enriched, offset=3):
    value, headers = encode(enriched)
    return Record(offset, 0, None, value, headers)


@given(st.integers(0, 3), st.lists(states, max_size=4), st.lists(rejects, max_size=4))
def test_what_goes_in_comes_out(count, entries, bad):
    cover = Cover(topic="t", partition=2, first=4, next=9, rows=count, lost=1, snapshot=7)
    original = Enriched(cover, rows(count), tuple(entries), tuple(bad), '[{"stage":"x"}]')
    back = decode(record_of(original))
    assert back == original
    assert back.cover.range == OffsetRange("t", 2, 4, 9)


def test_a_reader_that_knows_only_arrow_sees_the_rows():
    value, _ = encode(Enriched(Cover(topic="t", partition=0, first=0, next=2, rows=2), rows(2)))
    with pa.ipc.open_stream(value) as reader:
        assert reader.read_all().column("text").to_pylist() == ["m", "m"]


@pytest.mark.parametrize(
    "record",
    [
        Record(0, 0, None, b"x", ()),
        Record(0, 0, None, b"x", [("streamapp", b"{}")]),
        Record(
            0,
            0,
            None,
            b"x",
            [("streamapp", b'{"topic":"t","partition":0,"first":0,"next":1,"format":9}')],
        ),
        Record(
            0, 0, None, b"x", [("streamapp", b'{"topic":"t","partition":0,"first":0,"next":1}')]
        ),
        Record(
            0, 0, None, None, [("streamapp", b'{"topic":"t","partition":0,"first":0,"next":1}')]
        ),
    ],
)
def test_a_foreign_record_halts_with_its_offset(record):
    with pytest.raises(Halt, match="offset 0 of the enriched topic is not ours"):
        decode(record)


def test_the_cover_is_read_without_the_value():
    cover = Cover(topic="t", partition=0, first=5, next=5, is_snapshot=True)
    value, headers = encode(Enriched(cover, no_rows()))
    assert cover_of(Record(0, 0, None, None, headers)) == cover
    assert len(value) < 4000


def test_streams_that_are_empty_in_another_way_are_empty():
    """What another version of Arrow writes for no states and no rejects need not be our bytes."""
    value, headers = encode(Enriched(Cover(topic="t", partition=0, first=0, next=2), rows(2)))
    with pa.ipc.open_stream(value) as reader:
        table = reader.read_all()
    sink = pa.BufferOutputStream()
    for schema, batches in (
        (table.schema, table.to_batches()),
        (STATE_SCHEMA.with_metadata({"by": "another"}), []),
        (REJECT_SCHEMA.with_metadata({"by": "another"}), []),
    ):
        with pa.ipc.new_stream(sink, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
    other = sink.getvalue().to_pybytes()
    assert other != value
    assert decode(Record(0, 0, None, other, headers)) == decode(Record(0, 0, None, value, headers))


@pytest.mark.parametrize("count", [1, 3000])
def test_a_record_that_was_cut_halts_or_is_whole(count):
    """Only the mark of a stream's end may be missing, which says nothing."""
    whole = Enriched(Cover(topic="t", partition=0, first=0, next=count, rows=count), rows(count))
    value, headers = encode(whole)
    for size in {
        *range(0, len(value), max(1, len(value) // 200)),
        *range(len(value) - 20, len(value)),
    }:
        try:
            assert decode(Record(0, 0, None, value[:size], headers)) == whole
        except Halt:
            continue
        assert size >= len(value) - 8
