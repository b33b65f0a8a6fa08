"""A RangeSet is a set of integers, whatever the order they come in."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.ranges import Ledger, OffsetRange, RangeSet

ranges = st.tuples(st.integers(0, 60), st.integers(0, 60))


def members(pairs):
    return {offset for first, next_ in pairs for offset in range(first, next_)}


@given(st.lists(ranges))
def test_is_the_union_of_what_was_added(pairs):
    done = RangeSet(pairs)
    expected = members(pairs)
    assert members(done) == expected
    assert [offset in done for offset in range(70)] == [o in expected for o in range(70)]
    assert done.end == max(expected, default=-1) + 1


@given(st.lists(ranges))
def test_ranges_are_sorted_disjoint_and_do_not_touch(pairs):
    done = list(RangeSet(pairs))
    assert all(first < next_ for first, next_ in done)
    assert all(a[1] < b[0] for a, b in pairwise(done))


@given(st.lists(ranges), ranges)
def test_missing_is_the_difference(pairs, wanted):
    done = RangeSet(pairs)
    holes = done.missing(*wanted)
    assert members(holes) == members([wanted]) - members(pairs)
    assert done.covers(*wanted) == (not holes)


@given(st.lists(ranges), st.integers(0, 70))
def test_prefix_ends_at_the_first_gap(pairs, start):
    expected = start
    while expected in members(pairs):
        expected += 1
    assert RangeSet(pairs).prefix_end(start) == expected


@given(st.lists(ranges), st.lists(st.integers(-5, 70)))
def test_mask_is_membership(pairs, offsets):
    done = RangeSet(pairs)
    mask = done.mask(np.array(offsets, np.int64))
    assert mask.tolist() == [offset in done for offset in offsets]


def test_ledger_keeps_partitions_apart_and_names_holes():
    ledger = Ledger(
        [OffsetRange("a", 0, 0, 5), OffsetRange("a", 0, 8, 9), OffsetRange("a", 1, 5, 8)]
    )
    assert list(ledger) == [("a", 0, 0, 5), ("a", 0, 8, 9), ("a", 1, 5, 8)]
    assert ledger.holes() == [OffsetRange("a", 0, 5, 8)]
    assert 6 in ledger.of("a", 1)
    assert 6 not in ledger.of("a", 0)
    assert OffsetRange("a", 0, 5, 8).size == 3
