"""Records that Faust delivers singly come as Slices without a hole, whatever Faust skipped or repeats."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.agents.coalesce import JoinedStream, Limits
from streamapp.core.metrics import Metrics
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice

TOPIC = "orders"


class Message:
    def __init__(self, partition, offset, generation, value=b"{}"):
        self.topic, self.partition, self.offset = TOPIC, partition, offset
        self.generation_id = generation
        self.timestamp = 1_700_000_000.123
        self.key, self.value, self.headers = b"k", value, [("h", b"1")]


class Event:
    def __init__(self, partition, offset, generation=1, value=b"{}"):
        self.message = Message(partition, offset, generation, value)
        self.value = value
        self.acked = 0

    def ack(self):
        self.acked += 1
        return True


class Stream:
    """A Faust stream: yields its events, then waits."""

    def __init__(self, events, error=None):
        self._events = events
        self._error = error

    def noack(self):
        return self

    async def events(self):
        for event in self._events:
            yield event
        if self._error:
            raise self._error


class Log:
    """One partition's records, of which compaction may have taken some."""

    def __init__(self, offsets, begin=0):
        self.offsets = [o for o in offsets if o >= begin]
        self.begin = begin

    async def bounds(self, topic, partition):
        return self.begin, self.offsets[-1] + 1

    async def read(self, topic, partition, offset, *, records_max, bytes_max):
        assert offset >= self.begin
        found = [o for o in self.offsets if o >= offset][:records_max]
        next_ = found[-1] + 1 if found else offset
        records = [Record(o, 0, None, b"read") for o in found]
        return Slice(OffsetRange(topic, partition, offset, next_), records)


def joined(
    stream, log=None, positions=None, generation=lambda: 1, events_max=100, bytes_max=1 << 20
):
    async def answer(tps):
        return {tp: (positions or {}).get(tp, 0) for tp in tps}

    limits = Limits(events_max, bytes_max)
    return JoinedStream(stream, answer, log or Log([0]), generation, limits, Metrics())


async def slices_of(stream):
    return [event async for event in stream.noack().events()]


def offsets(events):
    return [[record.offset for record in event.value.records] for event in events]


async def test_what_is_there_is_one_slice_per_partition_and_acknowledged_as_one():
    events = [Event(p, o) for o in range(3) for p in range(2)]
    found = await slices_of(joined(Stream(events)))
    assert [event.value.range for event in found] == [(TOPIC, 0, 0, 3), (TOPIC, 1, 0, 3)]
    assert all(event.message.generation_id == 1 for event in found)
    record = found[0].value.records[0]
    assert record == Record(0, 1_700_000_000_123, b"k", b"{}", (("h", b"1"),))
    assert found[0].ack()
    assert [event.acked for event in events] == [1, 0] * 3


async def test_a_slice_has_its_limits():
    events = [Event(0, o) for o in range(10)]
    found = await slices_of(joined(Stream(events), events_max=4))
    assert max(map(len, offsets(found))) <= 4
    big = [Event(0, o, value=b"x" * 100) for o in range(4)]
    found = await slices_of(joined(Stream(big), bytes_max=150))
    assert offsets(found) == [[0, 1], [2, 3]]


async def test_records_of_an_older_generation_are_left_alone():
    events = [Event(0, 0, generation=1), Event(0, 1, generation=2)]
    found = await slices_of(joined(Stream(events), Log([]), {(TOPIC, 0): 1}, lambda: 2))
    assert offsets(found) == [[1]]
    assert events[0].acked == 0


async def test_each_generation_asks_where_the_agent_stands():
    asked, generation = [], [1]

    class Both(Stream):
        async def events(self):
            yield Event(0, 5)
            while not asked:
                await asyncio.sleep(0)
            generation[0] = 2
            yield Event(0, 6, generation=2)

    stream = joined(Both([]), Log([]), {(TOPIC, 0): 5}, lambda: generation[0])
    answer = stream._positions

    async def counted(tps):
        asked.append(list(tps))
        return await answer(tps) if len(asked) == 1 else {(TOPIC, 0): 6}

    stream._positions = counted
    assert offsets(await slices_of(stream)) == [[5], [6]]
    assert asked == [[(TOPIC, 0)], [(TOPIC, 0)]]


async def test_what_faust_passed_over_is_read_from_the_log_in_order():
    stream = joined(
        Stream([Event(0, 7), Event(0, 8), Event(0, 11)]), Log(range(12)), {(TOPIC, 0): 2}
    )
    found = await slices_of(stream)
    assert [o for part in offsets(found) for o in part] == list(range(2, 12))
    ranges = [event.value.range for event in found]
    assert [r.first for r in ranges] == [2, *(r.next for r in ranges[:-1])]
    assert found[0].ack()  # read, so there is nothing to acknowledge


async def test_what_retention_took_is_left_for_the_agent_to_count():
    found = await slices_of(joined(Stream([Event(0, 9)]), Log(range(12), begin=8), {(TOPIC, 0): 2}))
    assert offsets(found) == [[8], [9]]
    assert found[0].value.range.first == 2


async def test_the_end_of_the_stream_and_its_error_are_the_agent_s():
    with pytest.raises(LookupError):
        await slices_of(joined(Stream([Event(0, 0)], LookupError())))


async def test_nothing_is_delivered_after_stop():
    events = [Event(0, 0), Event(0, 1)]
    stream = joined(Stream(events), events_max=1)
    found = stream.events()
    await anext(found)
    stream.stop()
    assert [event async for event in found] == []
    assert events[1].acked == 0


async def test_slices_pass_through():
    whole = Event(0, 0)
    whole.value = Slice(OffsetRange(TOPIC, 0, 0, 5), [Record(4, 0, None, b"")])
    assert await slices_of(joined(Stream([whole]))) == [whole]


@given(data=st.data())
async def test_no_record_of_the_log_is_missing_and_order_is_kept(data):
    """Whatever subset Faust delivers, and from wherever it starts over."""
    kept = sorted(data.draw(st.sets(st.integers(0, 30), min_size=1)))
    start = data.draw(st.integers(0, 20))
    delivered = []
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(kept) - 1))
        run = kept[at : data.draw(st.integers(at, len(kept) - 1)) + 1]
        delivered += [o for o in run if data.draw(st.booleans())] or run[:1]
    stream = joined(
        Stream([Event(0, o) for o in delivered]),
        Log(kept),
        {(TOPIC, 0): start},
        events_max=data.draw(st.integers(1, 8)),
    )
    next_ = start
    seen = []
    for event in await slices_of(stream):
        slice_ = event.value
        numbers = [record.offset for record in slice_.records]
        assert numbers == sorted(numbers)
        assert slice_.range.first <= numbers[0]
        assert slice_.range.next == numbers[-1] + 1
        assert slice_.range.first <= next_, "a hole"
        fresh = [o for o in numbers if o >= next_]
        seen += fresh
        next_ = max(next_, slice_.range.next)
    reached = max([*delivered, start - 1])
    assert seen == [o for o in kept if start <= o <= reached]
