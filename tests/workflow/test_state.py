"""State: bounded, transactional, and equal after any replay."""

from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.state import StateEntry
from streamapp.workflow.state import PartitionState

keys = st.sampled_from("abcdefg")
kinds = st.sampled_from([("s", "k"), ("s", "l"), ("t", "k")])
puts = st.lists(st.tuples(kinds, keys), max_size=40)


def entries(history, first=0):
    return [
        StateEntry(stage, kind, key, offset, [offset])
        for offset, ((stage, kind), key) in enumerate(history, first)
    ]


def seen(state):
    return {
        (stage, kind, key): state.map(stage, kind).get(key)
        for stage, kind in (("s", "k"), ("s", "l"), ("t", "k"))
        for key in "abcdefg"
    }


@given(puts, st.lists(st.tuples(puts, st.booleans()), max_size=4), st.integers(1, 8))
def test_an_overlay_shows_and_commits_what_direct_puts_would(before, attempts, cap):
    direct, state = PartitionState(cap), PartitionState(cap)
    direct.apply(entries(before))
    state.apply(entries(before))
    overlay, at = state.overlay(), len(before)
    for history, succeeds in attempts:
        attempt = overlay.overlay()
        changes = entries(history, at)
        at += len(history)
        for entry in changes:
            attempt.view(entry.stage).put(entry.kind, entry.key, entry.source_offset, entry.value)
        if succeeds:
            attempt.commit()
            direct.apply(changes)
            assert seen(attempt) == seen(direct)
        assert seen(overlay) == seen(direct)
    untouched = PartitionState(cap)
    untouched.apply(entries(before))
    assert state.snapshot() == untouched.snapshot()
    overlay.commit()
    assert state.snapshot() == [e for e in direct.snapshot() if e]


@given(puts, puts, st.integers(1, 8))
def test_snapshot_and_replay_equal_an_uninterrupted_run(before, after, cap):
    whole = PartitionState(cap)
    whole.apply(entries(before))
    restarted = PartitionState(cap)
    restarted.apply(entries([(("s", "k"), "old")]))
    restarted.restore(whole.snapshot())
    changes = entries(after, len(before))
    whole.apply(changes)
    # A record keeps the last put of a key, in source order.
    last = {entry[:3]: entry for entry in changes}
    restarted.apply(sorted(last.values(), key=lambda entry: entry.source_offset))
    assert restarted.snapshot() == whole.snapshot()


def test_the_key_put_longest_ago_goes_first():
    state = PartitionState(2)
    overlay = state.overlay()
    view = overlay.view("s")
    for offset, key in enumerate(["a", "b", "a", "c"]):
        view.put("k", key, offset, offset)
    assert [view.get("k", key) for key in "abc"] == [2, None, 3]
    overlay.commit()
    assert [entry.key for entry in state.snapshot()] == ["a", "c"]


def test_stages_and_kinds_do_not_share_keys():
    overlay = PartitionState(2).overlay()
    overlay.view("s").put("k", "a", 0, 1)
    assert overlay.view("t").get("k", "a") is None
    assert overlay.view("s").get("l", "a") is None
    assert overlay.changes == [StateEntry("s", "k", "a", 0, 1)]
