"""A packed sequence of records is the sequence of those records."""

import pytest
from batches import packed
from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.packed import Packed, value_bytes
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import ByOffset, Record, Slice

parts = st.none() | st.binary(max_size=4)
rows = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.integers(-(2**62), 2**62),
        parts,
        parts,
        st.lists(st.tuples(st.text(max_size=2), st.binary(max_size=2)), max_size=2),
    ),
    max_size=6,
)
places = st.none() | st.integers(-8, 8)


def records_of(rows, offset=5):
    made = []
    for step, timestamp, key, value, headers in rows:
        offset += step
        made.append(Record(offset, timestamp, key, value, tuple(headers)))
    return made


def plain(records):
    return [Record(r.offset, r.timestamp, r.key, r.value, r.headers) for r in records]


@given(rows, rows, places, places, st.sampled_from([None, 1, 2, -1]))
def test_it_is_indexed_cut_joined_and_iterated_as_a_list(one, other, start, stop, step):
    a, b = records_of(one), records_of(other, 900)
    ours, theirs = packed(a) + packed(b), a + b
    assert plain(ours) == theirs
    assert (len(ours), bool(ours)) == (len(theirs), bool(theirs))
    assert [*plain(ours[n] for n in range(-len(ours), len(ours)))] == theirs * 2
    cut = slice(start, stop, step)
    assert plain(ours[cut]) == theirs[cut]
    assert isinstance(ours[cut], Packed) == (step in {None, 1})
    for place in (len(ours), -len(ours) - 1):
        with pytest.raises(IndexError):
            ours[place]
    sizes = [len(r.key or b"") + len(r.value or b"") for r in theirs]
    assert ours.sizes().tolist() == sizes
    assert ours.column("offset").tolist() == [r.offset for r in theirs]
    assert value_bytes(ours) == value_bytes(theirs) == sum(len(r.value or b"") for r in theirs)


@given(rows, st.integers(0, 30), st.booleans())
def test_a_slice_begins_later_and_finds_records_by_offset(rows, position, is_packed):
    records = records_of(rows)
    held = packed(records) if is_packed else records
    since = Slice(OffsetRange("t", 3, 0, 40), held).since(position)
    assert since.range == OffsetRange("t", 3, position, 40)
    left = [record for record in records if record.offset >= position]
    assert plain(since.records) == left
    found = ByOffset(since.records)
    assert (list(found), len(found)) == ([r.offset for r in left], len(left))
    for offset in range(41):
        wanted = [record for record in left if record.offset == offset]
        assert plain([found[offset]] if offset in found else []) == wanted
