"""A worker that takes over stands where the enriched topic ends, with the state that belongs there."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.agents.publish import Standpoint, enriched_records, lost_record, snapshot_record
from streamapp.agents.recovery import recover
from streamapp.core.errors import Halt, Retry
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.core.state import StateEntry
from streamapp.stages.kinetics import Kinetics
from streamapp.topics.wire import decode_slice
from streamapp.workflow import PartitionState
from streamapp.workflow.repeats import STAGE, Repeats

CAP = 5  # small, so that eviction is at work
SOURCE = "events.raw", 0


class MemoryReader:
    """A log of one partition that skips offsets like a compacted one."""

    def __init__(self, records, skip=1):
        self.records = [
            Record(i * skip, 0, None, r.value, r.headers) for i, r in enumerate(records)
        ]
        self.end = self.records[-1].offset + 1 if records else 0
        self.silent = 0

    async def bounds(self, topic, partition):
        return 0, self.end

    async def read(self, topic, partition, offset, **_limits):
        self.silent -= 1
        found = [r for r in self.records if r.offset >= offset][:3] if self.silent != 0 else []
        next_ = found[-1].offset + 1 if found else offset
        return Slice(OffsetRange(topic, partition, offset, next_), found)


class Worker:
    """What the enrich agent does with a Slice, without Faust: decode, repeats, kinetics, publish."""

    def __init__(self, state=None, snapshot=None, at=0):
        self.state = state or PartitionState(CAP)
        self.repeats = Repeats(CAP)
        self.snapshot = snapshot
        self.at = at
        self.kinetics = Kinetics({})

    def enrich(self, values, first):
        records = [Record(first + i, 0, None, value) for i, value in enumerate(values)]
        range_ = OffsetRange("events.raw", 0, self.at, first + len(values))
        decoded = decode_slice(Slice(range_, records), event_bytes_max=10_000)
        batch, found = self.repeats.without(decoded)
        overlay = self.state.overlay()
        import numpy as np

        from streamapp.plugin import vector_column

        vectors = np.full((len(batch), 4), 0.5, np.float32)
        batch = batch.with_columns({"embedding": vector_column(vectors)})
        if len(batch):
            batch = batch.with_columns(self.kinetics.enrich(batch, overlay.view("kinetics")))
        overlay.commit()
        self.repeats.remember(found)
        raw = {record.offset: record for record in records}
        out, _ = enriched_records(
            batch, overlay.changes, Standpoint(self.snapshot, "[]"), raw, 1 << 20
        )
        self.at = range_.next
        return out

    def remembered(self):
        return [*self.state.snapshot(), self.repeats.entry(0)]

    def take_snapshot(self, offset):
        record = snapshot_record(
            OffsetRange("events.raw", 0, self.at, self.at), self.remembered(), "[]"
        )
        self.snapshot = offset
        return record


events = st.lists(
    st.builds(
        lambda conversation, id_, time, key: msgspec.json.encode(
            {"message": "m", "conversation_id": f"c{conversation}", "id": f"e{id_}", "time": time, key: 1}
        ),
        st.integers(0, 7), st.integers(0, 30), st.integers(0, 10**6), st.sampled_from("abcd"),
    ),
    min_size=1, max_size=40,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(events, st.data())
async def test_taking_over_after_any_record_equals_never_stopping(values, data):
    """Cut the stream anywhere, snapshot anywhere, take over anywhere, with a zombie's records in between."""
    calm, published, states = Worker(), [], []
    at = 0
    while at < len(values):
        size = data.draw(st.integers(1, 6), "batch")
        published += calm.enrich(values[at : at + size], at)
        at = min(at + size, len(values))
        states.append((len(published), at, calm.remembered()))
        if data.draw(st.booleans(), "snapshot"):
            published.append(calm.take_snapshot(len(published)))
            states.append((len(published), at, calm.remembered()))
    count, next_, expected = data.draw(st.sampled_from(states), "take over here")
    log = published[:count]
    zombie = data.draw(st.integers(0, len(log)), "a zombie repeats from here")
    log += log[zombie : data.draw(st.integers(zombie, len(log)), "to here")]
    standing = await recover(MemoryReader(log), SOURCE, "events.enriched", CAP)
    assert standing.next == next_
    assert sorted([*standing.state.snapshot(), standing.repeats.entry(0)]) == sorted(expected)


async def test_a_zombies_snapshot_at_the_end_takes_nothing_back():
    """It froze before it published, and was due to take one when it woke up."""
    zombie = Worker()
    log = [*zombie.enrich([event_of("a")], 0), zombie.take_snapshot(1)]
    owner = Worker(PartitionState(CAP), 1, 1)
    owner.state.restore(zombie.state.snapshot())
    owner.repeats.restore([zombie.repeats.entry(0)])
    log += [record for n in (1, 2) for record in owner.enrich([event_of("b")], n)]
    log += [*zombie.enrich([event_of("b")], 1), zombie.take_snapshot(len(log) + 1)]
    standing = await recover(MemoryReader(log), SOURCE, "events.enriched", CAP)
    assert standing.next == 3
    assert standing.snapshot == 1
    assert standing.state.snapshot() == owner.state.snapshot()


async def test_an_empty_topic_says_nothing():
    standing = await recover(MemoryReader([]), SOURCE, "events.enriched", CAP)
    assert standing.next is None
    assert standing.snapshot is None


async def test_a_log_that_skips_offsets_is_read_to_its_end():
    worker = Worker()
    records = [r for n in range(9) for r in worker.enrich([b'{"message": "a"}'], n)]
    standing = await recover(MemoryReader(records, skip=7), SOURCE, "t", CAP)
    assert standing.next == 9


@pytest.mark.parametrize("read", [2, 3, 4])
async def test_what_a_log_does_not_give_is_not_skipped(read):
    """A state without it would be another one, and the rows that come next."""
    worker = Worker()
    records = [r for n in range(9) for r in worker.enrich([b'{"message": "a"}'], n)]
    reader = MemoryReader(records)
    reader.silent = read  # the first looks for the last record
    with pytest.raises(Retry, match="ends at 9, not read from"):
        await recover(reader, SOURCE, "t", CAP)
    assert (await recover(reader, SOURCE, "t", CAP)).next == 9


async def test_loss_counts_as_covered():
    worker = Worker()
    records = worker.enrich([b'{"message": "a"}'], 0)
    records.append(lost_record(OffsetRange("events.raw", 0, 1, 50), Standpoint(None, "[]")))
    standing = await recover(MemoryReader(records), SOURCE, "t", CAP)
    assert standing.next == 50


async def test_foreign_records_halt():
    from streamapp.transport import Outgoing

    with pytest.raises(Halt, match="not ours"):
        await recover(MemoryReader([Outgoing(b"x")]), SOURCE, "t", CAP)


@pytest.mark.parametrize("others", [slice(0, 1), slice(1, 2), slice(0, 2)])
async def test_records_of_another_source_halt_instead_of_passing_for_ours(others):
    worker = Worker()
    records = [r for n in range(2) for r in worker.enrich([b'{"message": "a"}'], n)]
    for at in range(2)[others]:
        name, cover = records[at].headers[0]
        theirs = cover.replace(b'"events.raw"', b'"orders"')
        records[at] = records[at]._replace(headers=[(name, theirs)])
    with pytest.raises(Halt, match="'t' holds rows of 'orders', not of 'events.raw'") as caught:
        await recover(MemoryReader(records), SOURCE, "t", CAP)
    assert caught.value.code == "enrich.source"


def test_only_events_that_went_through_are_repeats():
    repeats = Repeats(100)
    good = b'{"message": "a", "id": "e1"}'
    records = [Record(i, 0, None, v) for i, v in enumerate([good, good, b'{"id": "e2"'])]
    batch = decode_slice(Slice(OffsetRange("t", 0, 0, 3), records), event_bytes_max=99)
    first, found = repeats.without(batch)
    assert (first.strings("id"), len(found)) == (["e1"], 1)
    assert len(repeats.without(batch)[0]) == 1  # not remembered yet: the batch may yet fail
    repeats.remember(found)
    again, found = repeats.without(batch)
    assert (len(again), found) == (0, [])
    assert (again.range, again.rejects) == (batch.range, batch.rejects)


@given(st.lists(st.lists(st.integers(0, 9), max_size=6)), st.integers(1, 8))
def test_the_window_holds_the_last_that_went_through(batches, cap):
    repeats, went = Repeats(cap), []
    for batch in batches:
        fresh = [e for e in dict.fromkeys(batch) if e not in went[-cap:]]
        repeats.remember([e.to_bytes(8) for e in fresh])
        went += fresh
    copy = Repeats(cap)
    copy.restore([repeats.entry(7)])
    assert copy.entry(7) == repeats.entry(7)
    assert repeats.entry(7).value == b"".join(e.to_bytes(8) for e in went[-cap:])


async def test_a_snapshot_from_before_there_was_a_window_is_read():
    """Each event was an entry of its own, its identity in hex."""
    worker = Worker()
    first = worker.enrich([event_with_id("e1"), event_with_id("e2")], 0)
    hexes = [worker.repeats.entry(0).value[at : at + 8].hex() for at in (0, 8)]
    entries = [StateEntry(STAGE, "id", key, at, True) for at, key in enumerate(hexes)]
    snapshot = snapshot_record(OffsetRange("events.raw", 0, 2, 2), entries, "[]")
    standing = await recover(MemoryReader([*first, snapshot]), SOURCE, "t", CAP)
    assert standing.repeats.entry(0) == worker.repeats.entry(0)
    assert standing.state.snapshot() == []


def event_with_id(identity):
    return msgspec.json.encode({"message": "m", "id": identity})


class TrimmedReader(MemoryReader):
    """Retention has dropped everything before `begin`."""

    def __init__(self, records, begin):
        super().__init__(records)
        self.begin = begin
        self.records = [record for record in self.records if record.offset >= begin]

    async def bounds(self, topic, partition):
        return self.begin, self.end


def event_of(conversation):
    return msgspec.json.encode({"message": "m", "conversation_id": conversation})


async def test_a_snapshot_found_on_the_way_makes_up_for_dropped_records():
    worker = Worker()
    records = [
        *worker.enrich([event_of("old")], 0),
        *worker.enrich([event_of("new")], 1),
        worker.take_snapshot(2),
        *worker.enrich([event_of("newer")], 2),
    ]
    stale = Worker(PartitionState(CAP), None, 2)  # its last record names no snapshot
    log = [*records, *stale.enrich([event_of("newer")], 2)]
    standing = await recover(TrimmedReader(log, 1), SOURCE, "t", CAP)
    assert standing.next == 3
    assert sorted([*standing.state.snapshot(), standing.repeats.entry(0)]) == sorted(
        worker.remembered()
    )
    assert standing.snapshot == 2


async def test_without_any_snapshot_the_position_is_right_all_the_same():
    worker = Worker()
    records = [r for n in range(6) for r in worker.enrich([event_of("c")], n)]
    standing = await recover(TrimmedReader(records, 4), SOURCE, "t", CAP)
    assert (standing.next, standing.snapshot) == (6, None)
