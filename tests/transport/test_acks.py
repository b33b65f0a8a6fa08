"""The account of acknowledgements against a naive model, by both of the ways Faust acknowledges."""

import asyncio
from types import SimpleNamespace

import faust
import pytest
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp import transport
from streamapp.core.errors import Refuse
from streamapp.core.slice import Record, Slice
from streamapp.transport.acks import Progress, slices_of
from streamapp.transport.local.transport import Transport

P0 = TP("topic", 0)


def consumer_of(tmp, start=0, **options):
    """A real consumer that is assigned one partition of an app that is not started."""
    app = faust.App("a", broker=f"local://{tmp}", datadir=str(tmp), web_enabled=False)
    app.transport = Transport(app.conf.broker, app)
    app.topics._acking_topics.add("topic")
    app.flow_control.resume()
    app.consumer_generation_id = 1
    transport.configure(app, **options)
    consumer = app.consumer
    consumer._assigned = {P0}
    consumer._progress[P0] = Progress(start)
    return consumer


def delivered(consumer, position, offsets, *, coalesce=False):
    records = [Record(offset, 0, None, b"v") for offset in offsets]
    messages = []
    for piece in slices_of(P0, position, records, coalesce=coalesce):
        message = consumer._to_message(P0, piece)
        message.incref()
        messages.append(message)
    return messages


def by_method(consumer, message):
    message.ack(consumer)


def by_compiled_stream(consumer, message):
    compiled = pytest.importorskip("faust._cython.streams")
    stream = SimpleNamespace(
        channel=SimpleNamespace(__anext__=None),
        app=consumer.app,
        loop=None,
        enable_acks=True,
        on_merge=None,
        _processors=[],
        _skipped_value=None,
        _on_stream_event_in=None,
        _on_stream_event_out=lambda *_: None,
        _on_message_in=None,
        _on_message_out=lambda *_: None,
    )
    iterator = compiled.StreamIterator(stream)
    iterator.after(SimpleNamespace(message=message), True, None)


WAYS = [by_method, by_compiled_stream]


@pytest.fixture(autouse=True)
async def _a_loop():
    """Faust's services want a running event loop."""


@settings(max_examples=150, deadline=None)
@given(
    start=st.integers(0, 5),
    steps=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    cuts=st.sets(st.integers(0, 12)),
    order=st.randoms(use_true_random=False),
    way=st.sampled_from(WAYS),
    coalesce=st.booleans(),
)
def test_a_commit_is_the_end_of_what_is_done_without_a_hole(
    tmp_path_factory, start, steps, cuts, order, way, coalesce
):
    asyncio.set_event_loop(loop := asyncio.new_event_loop())
    try:
        coalesced = {"topic"} if coalesce else ()
        consumer = consumer_of(tmp_path_factory.mktemp("a"), start, coalesce=coalesced)
        offsets, at = [], start - 1
        for step in steps:  # a step of more than 1 leaves offsets that the log does not have
            at += step
            offsets.append(at)
        messages, covered, position = [], {}, start
        for low, high in zip([0, *sorted(cuts)], [*sorted(cuts), len(offsets)], strict=True):
            fetched = offsets[low:high]
            if fetched:
                new = delivered(consumer, position, fetched, coalesce=coalesce)
                ends = [fetched[-1]] if coalesce else fetched
                for message, end in zip(new, ends, strict=True):
                    covered[id(message)] = range(position, end + 1)
                    position = end + 1
                messages += new
        order.shuffle(messages)
        done = set()
        assert consumer._new_offset(P0) == start
        assert not consumer._should_commit(P0, start)
        for message in messages:
            way(consumer, message)
            way(consumer, message)  # twice changes nothing
            done |= set(covered[id(message)])
            expected = start
            while expected in done:
                expected += 1
            assert consumer._new_offset(P0) == expected
            assert consumer._should_commit(P0, expected) == (expected > start)
        assert consumer._new_offset(P0) == offsets[-1] + 1
        assert consumer._progress[P0].in_flight == 0
        assert list(consumer._filter_tps_with_pending_acks()) == [P0]
        assert not list(consumer._filter_tps_with_pending_acks({"other"}))
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@pytest.mark.parametrize("way", WAYS)
async def test_a_gap_is_done_only_with_the_record_after_it(tmp_path, way):
    consumer = consumer_of(tmp_path)
    first, after_gap = delivered(consumer, 0, [0, 100])
    await consumer._add_gap(P0, 1, 100)  # Faust's own account would now commit past 100
    way(consumer, first)
    assert consumer._new_offset(P0) == 1
    way(consumer, after_gap)
    assert consumer._new_offset(P0) == 101


@pytest.mark.parametrize("way", WAYS)
async def test_messages_of_before_a_seek_or_revocation_do_not_count(tmp_path, way):
    consumer = consumer_of(tmp_path, coalesce={"topic"})
    [old] = delivered(consumer, 0, [0, 1], coalesce=True)
    consumer._progress[P0] = Progress(0)
    [new] = delivered(consumer, 0, [0, 1, 2], coalesce=True)
    way(consumer, old)
    assert consumer._new_offset(P0) == 0
    way(consumer, new)
    assert consumer._new_offset(P0) == 3
    consumer._progress.pop(P0)
    assert consumer._new_offset(P0) is None


async def test_seeking_back_below_the_commit_counts_anew(tmp_path):
    consumer = consumer_of(tmp_path, start=50)
    consumer._committed_offset[P0] = 50
    await consumer.seek(P0, 10)
    for message in delivered(consumer, 10, [10, 11]):
        by_method(consumer, message)
    assert consumer._new_offset(P0) == 12


async def test_what_a_suspended_stream_skips_is_not_done(tmp_path):
    consumer = consumer_of(tmp_path)
    skipped, taken = delivered(consumer, 0, [0, 1])
    taken.tracked = True
    consumer.app.flow_control.suspend()
    by_method(consumer, skipped)
    by_method(consumer, taken)
    assert consumer._new_offset(P0) == 0
    assert list(consumer._progress[P0]._done) == [(1, 2)]


async def test_slices_in_flight_are_limited(tmp_path):
    consumer = consumer_of(tmp_path, coalesce={"topic"}, slices_in_flight_max=2)
    assert consumer._may_fetch(P0)
    [one] = delivered(consumer, 0, [0], coalesce=True)
    delivered(consumer, 1, [1], coalesce=True)
    assert not consumer._may_fetch(P0)
    by_method(consumer, one)
    assert consumer._may_fetch(P0)


async def test_a_slice_is_delivered_as_it_is_and_a_plain_record_by_its_parts(tmp_path):
    record = Record(7, 1500, b"k", b"v", (("h", b"1"),))
    consumer = consumer_of(tmp_path, coalesce={"topic"})
    [piece] = slices_of(P0, 3, [record], coalesce=True)
    message = consumer._to_message(P0, piece)
    assert message.value is piece
    assert (message.offset, message.covers, message.key) == (3, (3, 8), None)
    transport.configure(consumer.app)
    [piece] = slices_of(P0, 3, [record], coalesce=False)
    assert isinstance(piece, Slice)
    message = consumer._to_message(P0, piece)
    assert (message.offset, message.covers) == (7, (3, 8))
    assert (message.key, message.value, message.headers) == (b"k", b"v", [("h", b"1")])
    assert (message.timestamp, message.generation_id) == (1.5, 1)


async def test_a_commit_that_failed_is_made_again(tmp_path):
    consumer = consumer_of(tmp_path)
    answers = [False, True]
    commits = []

    async def commit(offsets):
        commits.append(dict(offsets))
        return answers.pop(0)

    consumer._commit = commit
    for message in delivered(consumer, 0, [0, 1]):
        by_method(consumer, message)
    for _ in range(3):
        await consumer.force_commit()
    assert commits == [{P0: 2}, {P0: 2}]


def test_limits_below_one_are_refused():
    app = faust.App("x", broker="local:///nowhere")
    with pytest.raises(Refuse, match="batch_events_max is 0"):
        transport.configure(app, batch_events_max=0)
