"""Gathering: what was added comes out once, in order, whole, and never later than it may."""

from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.slice import Record
from streamapp.transport.gather import Fetched, Gathering


def piece(position, count, skipped=0, size=10):
    records = [Record(position + i, 0, None, b"v") for i in range(count)]
    return Fetched(position, records, position + count + skipped, count * size)


def gathering(busy=True, events_max=100, bytes_max=10_000, wait_s_max=1.0):
    return Gathering(events_max, bytes_max, wait_s_max, lambda _: busy, lambda _: True)


def test_an_idle_partition_gets_its_records_at_once():
    few = gathering(busy=False)
    few.add("p", piece(0, 1), now_s=5.0)
    assert few.ready(5.0) == {"p": piece(0, 1)}
    assert few.ready(9.0) == {}
    assert few.wait_s(9.0) is None


def test_a_busy_one_waits_until_it_is_idle():
    busy = True
    growing = Gathering(100, 10_000, 1.0, lambda _: busy, lambda _: True)
    growing.add("p", piece(0, 3), now_s=0.0)
    growing.add("p", piece(3, 2, skipped=4), now_s=0.5)
    assert growing.ready(0.5) == {}
    assert growing.wait_s(0.5) == 0.5
    assert growing.room("p") == (95, 9_950)
    assert growing.continues("p", 9)
    assert not growing.continues("p", 12)
    busy = False
    ready = growing.ready(0.6)["p"]
    assert (ready.position, ready.next, ready.size_bytes) == (0, 9, 50)
    assert [record.offset for record in ready.records] == [0, 1, 2, 3, 4]


def test_a_busy_one_waits_no_longer_than_it_may():
    growing = gathering()
    growing.add("p", piece(0, 3), now_s=0.0)
    growing.add("p", piece(3, 3), now_s=0.99)
    assert growing.ready(0.99) == {}
    assert growing.ready(1.0)["p"].next == 6


def test_a_full_one_does_not_wait():
    by_count, by_size = gathering(events_max=4), gathering(bytes_max=40)
    for full in (by_count, by_size):
        full.add("p", piece(0, 3), now_s=0.0)
        assert full.ready(0.0) == {}
        full.add("p", piece(3, 1), now_s=0.0)
        assert full.ready(0.0)["p"].next == 4


def test_a_paused_one_stays_and_nobody_waits_for_it():
    paused = {"p"}
    growing = Gathering(4, 1_000, 1.0, lambda _: False, lambda p: p not in paused)
    growing.add("p", piece(0, 4), now_s=0.0)
    assert growing.ready(9.0) == {}
    assert growing.wait_s(9.0) is None
    paused.clear()
    assert growing.ready(9.0)["p"].next == 4


def test_what_was_dropped_is_gone():
    growing = gathering()
    growing.add("p", piece(0, 3), now_s=0.0)
    growing.drop("p")
    growing.drop("never seen")
    assert growing.all() == {}
    growing.add("p", piece(0, 1), now_s=7.0)
    assert growing.wait_s(7.0) == 1.0


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("pq"), st.integers(0, 9), st.integers(0, 3), st.integers(0, 4)),
        max_size=40,
    ),
    st.sets(st.integers(0, 40)),
)
def test_pieces_come_out_whole_and_in_order(steps, idle_at):
    """Any sequence of fetches, busy and idle: no record lost, none twice, no hole, none too late."""
    now, ends, out = 0.0, {"p": 0, "q": 0}, {"p": [], "q": []}
    added, entered = {"p": [], "q": []}, {}
    step = 0
    growing = Gathering(10, 1_000, 5.0, lambda _: step not in idle_at, lambda _: True)
    for step, (partition, count, skipped, later) in enumerate(steps):  # noqa: B007  # busy reads it
        now += later
        fetched = piece(ends[partition], count, skipped)
        added[partition] += [record.offset for record in fetched.records]
        if fetched.next > fetched.position:
            growing.add(partition, fetched, now)
            entered.setdefault(partition, now)
            ends[partition] = fetched.next
        for ready, whole in growing.ready(now).items():
            entered.pop(ready)
            out[ready].append(whole)
        assert all(now - since < 5.0 for since in entered.values())
    for partition, whole in growing.all().items():
        out[partition].append(whole)
    for partition, pieces in out.items():
        assert [r.offset for whole in pieces for r in whole.records] == added[partition]
        edges = [0] + [whole.next for whole in pieces]
        assert [whole.position for whole in pieces] == edges[:-1]
