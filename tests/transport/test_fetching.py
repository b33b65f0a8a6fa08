"""From fetched to delivered: holes are accounted for, what stands still is noticed."""

import asyncio
import logging
from types import SimpleNamespace

import faust
import pytest
from faust.types import TP

from streamapp import transport
from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.core.slice import Record
from streamapp.transport import fetching
from streamapp.transport.acks import Progress
from streamapp.transport.fetching import BatchingConsumer
from streamapp.transport.gather import Fetched
from streamapp.transport.kafka.transport import Transport

P0 = TP("topic", 0)


class Driver(BatchingConsumer):
    """A log of one partition that answers what the test says."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.answers, self.asked, self.sought, self.end = [], [], [], 0

    async def _fetch(self, wanted, wait_s):
        self.asked.append((dict(wanted), wait_s))
        return self.answers.pop(0) if self.answers else {}

    def _nudge(self):
        pass

    def assignment(self):
        return {P0}

    async def _seek(self, partition, offset):
        self.sought.append((partition, offset))

    async def _committed_positions(self, tps):
        return dict.fromkeys(tps, 7)

    async def highwaters(self, *tps):
        return dict.fromkeys(tps, self.end)


Driver.__abstractmethods__ = frozenset()


@pytest.fixture
async def driver_of(tmp_path):
    def make(**options):
        app = faust.App(
            "a", broker="kafka+batch://127.0.0.1", datadir=str(tmp_path), web_enabled=False
        )
        app.topics._acking_topics.add("topic")
        app.flow_control.resume()
        app.consumer_generation_id = 1
        transport.configure(app, **{"coalesce": {"topic"}, **options})
        app.transport = Transport(app.conf.broker, app)
        driver = Driver(app.transport, lambda _: None, None, None, loop=asyncio.get_running_loop())
        driver._progress[P0] = Progress(0)
        driver._active_partitions = {P0}
        return driver

    return make


def records(first, count, skipped=0):
    found = [Record(first + i, 0, None, b"v") for i in range(count)]
    return {P0: Fetched(first, found, first + count + skipped, count)}


def acknowledge(driver, piece):
    message = driver._to_message(P0, piece)
    message.incref()
    message.ack(driver)


async def test_a_commit_covers_what_the_log_skips(driver_of):
    """A transaction's marker behind the last record is part of its Slice: lag ends at 0."""
    driver = driver_of()
    driver.answers = [records(0, 3, skipped=1)]
    [piece] = (await driver._getmany({P0}, 1.0))[P0]
    assert (piece.range.first, piece.range.next) == (0, 4)
    assert driver._new_offset(P0) == 0
    acknowledge(driver, piece)
    assert driver._new_offset(P0) == 4


async def test_offsets_without_any_record_are_done(driver_of):
    """Only markers came (an aborted transaction): nothing to deliver, yet the commit goes on."""
    driver = driver_of()
    driver.answers = [{P0: Fetched(0, [], 5, 0)}, records(5, 1)]
    [piece] = (await driver._getmany({P0}, 1.0))[P0]
    assert (piece.range.first, piece.range.next) == (5, 6)
    assert driver._new_offset(P0) == 5
    acknowledge(driver, piece)
    assert driver._new_offset(P0) == 6


async def test_what_retention_took_is_part_of_the_next_slice_and_is_said(driver_of, caplog):
    driver = driver_of()
    driver.answers = [records(0, 2), records(10, 1)]
    first = (await driver._getmany({P0}, 1.0))[P0][0]
    acknowledge(driver, first)
    with caplog.at_level(logging.WARNING):
        second = (await driver._getmany({P0}, 1.0))[P0][0]
    assert (second.range.first, second.range.next) == (2, 11)
    assert "8 records from offset 2 on are gone" in caplog.text
    assert driver._new_offset(P0) == 2
    acknowledge(driver, second)
    assert driver._new_offset(P0) == 11


async def test_a_hole_behind_what_is_gathered_is_read_again_from_its_beginning(driver_of):
    driver = driver_of(batch_wait_ms_max=60_000)
    driver._progress[P0].in_flight = 1  # busy
    driver.answers = [records(0, 2), records(10, 1)]
    assert await driver._getmany({P0}, 0.05) == {}
    assert driver.sought == [(P0, 0)]
    assert P0 not in driver._gathering


async def test_a_topic_made_anew_stops_whoever_knows_positions(driver_of):
    async def start_positions(tps):
        return dict.fromkeys(tps, 50)

    driver = driver_of(start_positions=start_positions)
    driver._progress[P0] = Progress(50)
    driver.answers = [records(0, 2)]
    with pytest.raises(Halt, match="begins again at 0"):
        await driver._getmany({P0}, 1.0)


async def test_without_such_a_position_a_topic_made_anew_is_read_from_its_beginning(driver_of):
    driver = driver_of()
    driver._progress[P0] = Progress(50)
    driver.answers = [records(0, 2)]
    [piece] = (await driver._getmany({P0}, 1.0))[P0]
    assert piece.range.first == 0
    acknowledge(driver, piece)
    assert driver._new_offset(P0) == 2


async def test_flow_that_stops_meanwhile_loses_and_repeats_nothing(driver_of):
    """What was fetched and what was gathered goes back; delivery ended before both."""
    driver = driver_of(batch_wait_ms_max=60_000)
    driver._progress[P0].in_flight = 1
    driver.answers = [records(0, 2)]
    assert await driver._getmany({P0}, 0.05) == {}
    driver.answers = [records(2, 2)]
    driver.flow_active = False
    assert await driver._getmany({P0}, 1.0) is None
    assert driver.sought == [(P0, 0)]
    assert driver._progress[P0].read == 0


async def test_a_full_partition_is_not_fetched_and_the_others_are(driver_of):
    driver = driver_of(slices_in_flight_max=2)
    driver._progress[P0].in_flight = 2
    other = TP("plain", 0)
    driver.assignment = lambda: {P0, other}
    await driver._getmany({P0, other}, 0.0)
    assert driver.asked[-1][0].keys() == {other}


async def test_a_busy_partition_grows_and_an_idle_one_does_not_wait(driver_of):
    driver = driver_of(batch_wait_ms_max=60_000, batch_events_max=5)
    driver._progress[P0].in_flight = 1
    driver.answers = [records(0, 2), records(2, 3)]
    [piece] = (await driver._getmany({P0}, 5.0))[P0]
    assert (piece.range.first, piece.range.next) == (0, 5)
    assert driver.asked[1][0][P0].records_max == 3
    driver._progress[P0].in_flight = 0
    driver.answers = [records(5, 1)]
    [piece] = (await driver._getmany({P0}, 5.0))[P0]
    assert (piece.range.first, piece.range.next) == (5, 6)


async def test_what_came_for_a_paused_partition_is_kept_or_read_again(driver_of):
    driver, other = driver_of(), TP("plain", 0)
    driver.assignment = lambda: {P0, other}
    driver._active_partitions = {P0, other}

    async def pausing(wanted, wait_s):
        driver.pause_partitions([P0, other])
        return records(0, 2) | {other: Fetched(3, [Record(3, 0, None, b"v")], 4, 1)}

    driver._fetch, fetch = pausing, driver._fetch
    assert await driver._getmany({P0, other}, 0.0) == {}
    assert driver.sought == [(other, 3)]
    driver._fetch = fetch
    driver.resume_partitions([P0, other])
    [piece] = (await driver._getmany({P0, other}, 1.0))[P0]
    assert (piece.range.first, piece.range.next) == (0, 2)


@pytest.mark.parametrize("to", [3, 100])
@pytest.mark.parametrize("fetched_at", ["before", "after"])
async def test_a_fetch_that_crosses_a_seek_is_neither_delivered_nor_lost(driver_of, to, fetched_at):
    """Whether its records are of before or of after the seek: they are read again from there."""
    driver, sought = driver_of(batch_wait_ms_max=60_000), asyncio.Event()
    driver._progress[P0] = Progress(9)
    driver._progress[P0].in_flight = 1

    async def crossing(wanted, wait_s):
        seek = asyncio.create_task(driver.seek(P0, to))
        await sought.wait()
        if fetched_at == "after":
            await seek
        return records(9 if fetched_at == "before" else to, 3)

    async def slow_seek(partition, offset):
        driver.sought.append((partition, offset))
        sought.set()
        await asyncio.sleep(0)

    driver._fetch, fetch, driver._seek = crossing, driver._fetch, slow_seek
    assert await driver._getmany({P0}, 0.0) == {}
    assert driver.sought == [(P0, to), (P0, to)]
    driver._fetch = fetch
    driver.answers = [records(to, 3)]
    [piece] = (await driver._getmany({P0}, 1.0))[P0]
    assert (piece.range.first, piece.range.next) == (to, to + 3)
    acknowledge(driver, piece)
    assert driver._new_offset(P0) == to + 3


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(fetching, "monotonic_s", lambda: clock.s)
    return clock


async def test_a_partition_that_stands_still_is_positioned_anew_then_the_process_ends(
    driver_of, clock, caplog
):
    driver = driver_of(stall_s_max=30)
    driver._asking.begin()
    driver._progress[P0].read = 3
    driver.end = 9
    for _ in range(4):
        await driver._look_for_stalls()
        clock.s += 9.9
    assert not driver.sought
    with caplog.at_level(logging.ERROR):
        await driver._look_for_stalls()
    assert driver.sought == [(P0, 3)]
    assert "topic-0: nothing was fetched for 30 s from offset 3, the log ends at 9" in caplog.text
    clock.s += 29
    await driver._look_for_stalls()
    clock.s += 1.5
    with pytest.raises(Retry, match="for 60 s from offset 3, the log ends at 9"):
        await driver._look_for_stalls()


REASONS = ["it moves", "nothing is there", "its agent is behind", "nobody asks"]


@pytest.mark.parametrize("reason", REASONS)
async def test_a_partition_that_has_a_reason_is_left_alone(driver_of, clock, reason):
    driver = driver_of(stall_s_max=30)
    driver._asking.begin()
    if reason == "nobody asks":  # Faust waits for a place in the queue of some agent
        driver._asking.end()
    driver.end = 1000
    for step in range(20):
        if reason == "it moves":
            driver._progress[P0].read = step
        elif reason == "nothing is there":
            driver.end = driver._progress[P0].read
        elif reason == "its agent is behind":
            driver._progress[P0].in_flight = 99 if step < 10 else 0
        await driver._look_for_stalls()
        clock.s += 10
        if reason == "its agent is behind" and step == 11:
            break  # it has just got room
    assert not driver.sought


async def test_a_log_that_does_not_say_where_it_ends_is_no_stall(driver_of, clock, caplog):
    driver = driver_of(stall_s_max=30)

    async def silent(*_tps):
        raise Retry("log.unreachable", "nobody answers")

    driver._asking.begin()
    driver.highwaters, answering = silent, driver.highwaters
    for _ in range(20):
        await driver._look_for_stalls()
        clock.s += 10
    assert not driver.sought
    driver.highwaters = answering
    await driver._look_for_stalls()
    assert [record.message.split(": ", 1)[1] for record in caplog.records] == [
        "the log does not answer; waiting for it",
        "the log answers again",
    ]


async def test_starting_says_where_work_goes_on(driver_of):
    """Lag tools see the position at once, also on a topic to which nothing comes."""
    driver = driver_of()
    positions = await driver.seek_to_committed()
    assert positions == {P0: 7}
    assert driver._should_commit(P0, driver._new_offset(P0))


async def test_an_agent_that_wants_records_of_a_coalesced_topic_is_refused(driver_of):
    """Every Slice would fail to decode, and Faust acknowledges what fails."""
    driver = driver_of()
    driver.app.topics.add(transport.slice_topic(driver.app, "topic"))
    driver.app.topics.add(driver.app.topic("other", value_type=int))
    await driver.seek_to_committed()
    driver.app.topics.add(driver.app.topic("topic", value_type=int))
    with pytest.raises(Refuse, match="takes single records of 'topic'"):
        await driver.seek_to_committed()
