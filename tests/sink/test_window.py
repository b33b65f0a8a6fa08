"""The dedup window: the last N stored ids, none older than the span behind the newest."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.sink._keys import siphash
from streamapp.sink.window import DedupWindow, keys_of

S = 1_000_000
SECRET = bytes(range(16))
#: SipHash-2-4 of 128 bits of no byte, of 0, and of 0 to 7 (vectors.h of the reference code).
VECTORS = {
    0: "a3817f04ba25a8e66df67214c7550293",
    1: "da87c1d86b99af44347659119b22fc45",
    8: "3b62a9ba6258f5610f83e264f31497b4",
}


def key_of(source, id_):
    return keys_of(pa.array([source]), pa.array([id_]))[0]


def rotated(x, bits):
    return (x << bits | x >> (64 - bits)) & (2**64 - 1)


def twin(message, secret):
    """SipHash-2-4 of 128 bits as its paper and reference code have it."""
    k0, k1 = (int.from_bytes(secret[n : n + 8], "little") for n in (0, 8))
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D ^ 0xEE]
    v += [k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rounds(n):
        for _ in range(n):
            for a, b, c, d, one, two in ((0, 1, 2, 3, 13, 16), (2, 1, 0, 3, 17, 21)):
                v[a], v[c] = (v[a] + v[b]) % 2**64, (v[c] + v[d]) % 2**64
                v[b], v[d] = rotated(v[b], one) ^ v[a], rotated(v[d], two) ^ v[c]
                v[a] = rotated(v[a], 32)

    whole = message + bytes(-(len(message) + 1) % 8) + bytes([len(message) % 256])
    for n in range(0, len(whole), 8):
        word = int.from_bytes(whole[n : n + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    key = b""
    for place, mark in ((2, 0xEE), (1, 0xDD)):
        v[place] ^= mark
        rounds(4)
        key += (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")
    return key


def stored(window, events):
    """Offer (id, second) pairs one transaction at a time; the ids that are stored."""
    kept = []
    for name, at_s in events:
        draft = window.draft()
        if not draft.take_all([key_of("s", name)], [at_s * S]):
            kept.append((name, at_s))
        window.apply(draft.added.items())
    return kept


def test_time_bounds_the_window():
    window = DedupWindow(10, 100)
    events = [("a", 0), ("a", 10), ("a", 11), ("b", 30), ("a", 31)]
    assert stored(window, events) == [("a", 0), ("a", 11), ("b", 30), ("a", 31)]


def test_count_bounds_the_window():
    window = DedupWindow(1000, 2)
    assert stored(window, [("a", 0), ("b", 0), ("c", 0), ("b", 0), ("a", 0)])[-1] == ("a", 0)
    assert len(window) == 2


def test_source_and_id_do_not_run_together():
    assert key_of("ab", "c") != key_of("a", "bc")


def test_the_twin_is_siphash():
    for size, key in VECTORS.items():
        assert twin(bytes(range(size)), SECRET).hex() == key


@given(
    st.lists(st.tuples(st.text(max_size=30), st.text(max_size=60)), min_size=1, max_size=20),
    st.integers(0, 19),
)
def test_keys_are_siphash_of_length_source_and_id(events, first):
    """Also of rows in the middle of a column, as a part of a batch has them."""
    sources, ids = (pa.array(column).slice(first) for column in zip(*events, strict=True))
    given_ = (part for column in (sources, ids) for part in (*column.buffers()[1:], column.offset))
    found = siphash(*(b"" if part is None else part for part in given_), len(sources), SECRET)
    said = [
        len(source.encode()).to_bytes(8, "little") + source.encode() + id_.encode()
        for source, id_ in events[first:]
    ]
    assert found == [twin(message, SECRET) for message in said]


@pytest.mark.parametrize(
    ("offsets", "data", "first", "n"),
    [
        pytest.param([0, 1], b"a", 0, 2, id="fewer offsets"),
        pytest.param([0, 1], b"a", 1, 1, id="behind the offsets"),
        pytest.param([0, 9], b"a", 0, 1, id="behind the bytes"),
        pytest.param([0, 2, 1], b"ab", 0, 2, id="falling"),
        pytest.param([-1, 1], b"ab", 0, 1, id="before the bytes"),
        pytest.param([0, 1], b"a", -1, 1, id="a row before the first"),
    ],
)
def test_buffers_of_something_else_are_refused(offsets, data, first, n):
    raw = b"".join(offset.to_bytes(4, "little", signed=True) for offset in offsets)
    with pytest.raises(ValueError, match="buffers|rows"):
        siphash(raw, data, first, raw, data, first, n, SECRET)


def test_off():
    for window in (DedupWindow(0, 10), DedupWindow(10, 0)):
        assert stored(window, [("a", 0), ("a", 0)]) == [("a", 0), ("a", 0)]


def test_a_draft_that_is_dropped_leaves_nothing():
    window = DedupWindow(10, 10)
    assert window.draft().take_all([key_of("s", "a")], [0]) == []
    assert window.draft().take_all([key_of("s", "a")], [0]) == []


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 40)), max_size=40),
    st.integers(0, 40),
    st.integers(1, 40),
)
def test_a_window_read_back_answers_as_the_one_in_memory(events, cut, span_s):
    """What a restart rebuilds from the stored rows keeps deciding the same."""
    whole = stored(DedupWindow(span_s, 1000), events)
    before = stored(DedupWindow(span_s, 1000), events[:cut])
    rebuilt = DedupWindow(span_s, 1000)
    newest_s = max((at_s for _, at_s in before), default=0)
    rebuilt.apply(
        (key_of("s", name), at_s * S) for name, at_s in before if at_s >= newest_s - span_s
    )
    assert before + stored(rebuilt, events[cut:]) == whole


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 40)), max_size=40),
    st.integers(1, 5),
    st.integers(1, 40),
    st.integers(1, 6),
)
def test_many_at_once_are_decided_as_one_by_one(events, size, span_s, events_max):
    one_by_one, at_once = DedupWindow(span_s, events_max), DedupWindow(span_s, events_max)
    for start in range(0, len(events), size):
        some = events[start : start + size]
        draft = one_by_one.draft()
        keys = [key_of("s", name) for name, _ in some]
        expected = [
            n for n, (_, at) in enumerate(some) if draft.take_all(keys[n : n + 1], [at * S])
        ]
        one_by_one.apply(draft.added.items())
        together = at_once.draft()
        times = [at * S for _, at in some]
        assert together.take_all(keys, times) == expected
        at_once.adopt(together)
        assert at_once._newest_us == one_by_one._newest_us
        assert at_once._seen == one_by_one._seen
        assert list(at_once._seen) == list(one_by_one._seen)
