"""What lies on a dead-letter topic: whatever the bytes, it is a letter or a mark."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.agents.publish import dead_letter
from streamapp.core.errors import Refuse
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record
from streamapp.topics.dead import (
    CONNECT,
    MARK,
    MARK_KEY,
    REPLAYS,
    Letter,
    LetterAddress,
    Mark,
    Source,
    read,
    runs,
)
from streamapp.topics.wire import rejected

names = st.sampled_from(
    [MARK, REPLAYS, "h", *(CONNECT + name for name in ("topic", "partition", "offset", "stage"))]
)
values = st.one_of(st.none(), st.binary(max_size=20), st.sampled_from([b"0", b"-1", b"7", b"t"]))
headers = st.lists(st.tuples(names, values), max_size=8)
marks = st.builds(
    Mark,
    st.sampled_from(["replayed", "purged"]),
    st.lists(st.tuples(st.integers(-5, 50), st.integers(-5, 50)), max_size=4),
).map(msgspec.json.encode)


@given(st.one_of(st.none(), st.binary(max_size=60), marks), headers, st.booleans())
def test_whatever_the_bytes_it_is_a_letter_or_a_mark(value, headers, keyed):
    found = read(3, Record(9, -1, MARK_KEY if keyed else None, value, headers))
    if isinstance(found, Mark):
        assert keyed
        assert not any(name.startswith(CONNECT) for name, _ in headers)
        assert all(0 <= first < next_ for first, next_ in found.letters)
        assert list(found.destinations()) == []
    else:
        assert found.address == LetterAddress(3, 9)
        assert found.replays >= 0
        assert found.source is None or min(found.source[1:]) >= 0


@given(st.sampled_from([MARK_KEY, b"k", None]), st.binary(max_size=60), headers)
def test_what_a_worker_buries_is_a_letter_with_all_it_had(key, value, headers):
    """Whatever its producer wrote, headers of ours included."""
    record = Record(5, 1000, key, value, tuple(headers))
    letter = dead_letter(OffsetRange("raw", 2, 5, 6), rejected(record, "s", "c.d", "why"))
    found = read(0, Record(0, 1000, letter.key, letter.value, letter.headers))
    assert isinstance(found, Letter)
    assert found.source == Source("raw", 2, 5)
    assert (found.stage, found.code, found.reason) == ("s", "c.d", "why")
    assert (found.key, found.value) == (key, value)
    assert list(found.headers) == [h for h in headers if not h[0].startswith(CONNECT)]


@given(st.sets(st.integers(0, 60)))
def test_runs_hold_these_offsets_and_no_other(offsets):
    found = runs(sorted(offsets))
    assert {offset for first, next_ in found for offset in range(first, next_)} == offsets
    assert all(one[1] < other[0] for one, other in pairwise(found))


def test_a_mark_says_where_each_letter_went():
    mark = Mark("replayed", [(3, 5), (9, 10)], "raw", [(0, 7), (1, 8), (0, 9)])
    again = read(0, Record(11, 0, MARK_KEY, msgspec.json.encode(mark), [(MARK, b"replayed")]))
    assert isinstance(again, Mark)
    assert list(again.destinations()) == [
        (3, Source("raw", 0, 7)),
        (4, Source("raw", 1, 8)),
        (9, Source("raw", 0, 9)),
    ]


@pytest.mark.parametrize(
    ("said", "count"),
    [(b"2", 2), (b"-2", 0), (b"", 0), (b"x", 0), (None, 0), (b"\xff", 0), (b"9" * 40, 0)],
)
def test_a_count_that_can_be_no_count_is_none(said, count):
    letter = read(0, Record(0, 0, None, b"", [(REPLAYS, said)]))
    assert letter.replays == count


@pytest.mark.parametrize(
    "text", ["", "1", "1:", ":1", "a:b", "1:2:3", "-1:2", "1:-2", "1 :2", "²:1"]
)
def test_what_is_no_address(text):
    with pytest.raises(Refuse, match="partition:offset"):
        LetterAddress.parse(text)


@given(st.integers(0, 10**9 - 1), st.integers(0, 10**18 - 1))
def test_an_address_is_read_as_it_is_written(partition, offset):
    address = LetterAddress(partition, offset)
    assert LetterAddress.parse(str(address)) == address
