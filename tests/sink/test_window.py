"""The dedup window: the last N stored ids, none older than the span behind the newest."""

from hypothesis import given
from hypothesis import strategies as st

from streamapp.sink.window import DedupWindow, key_of

S = 1_000_000


def stored(window, events):
    """Offer (id, second) pairs one transaction at a time; the ids that are stored."""
    kept = []
    for name, at_s in events:
        draft = window.draft()
        if draft.take("s", name, at_s * S):
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


def test_off():
    for window in (DedupWindow(0, 10), DedupWindow(10, 0)):
        assert stored(window, [("a", 0), ("a", 0)]) == [("a", 0), ("a", 0)]


def test_a_draft_that_is_dropped_leaves_nothing():
    window = DedupWindow(10, 10)
    assert window.draft().take("s", "a", 0)
    assert window.draft().take("s", "a", 0)


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
        expected = [n for n, (name, at) in enumerate(some) if not draft.take("s", name, at * S)]
        one_by_one.apply(draft.added.items())
        together = at_once.draft()
        keys, times = [key_of("s", name) for name, _ in some], [at * S for _, at in some]
        assert together.take_all(keys, times) == expected
        at_once.adopt(together.added)
        assert at_once._seen == one_by_one._seen
        assert list(at_once._seen) == list(one_by_one._seen)
