"""What every log must do for code that is not a Faust agent: produce, read, administer.

Inherit it and say where the log is::

    from streamapp.testing.contracts.log import LogAt, LogContract

    class TestMyLog(LogContract):
        @pytest.fixture
        def log(self, tmp_path):
            return LogAt(f"local://{tmp_path}")
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from uuid import uuid4

import pytest

from streamapp.core.errors import Refuse, Reject
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import RecordLike, Slice
from streamapp.transport import (
    Address,
    Admin,
    Outgoing,
    Producer,
    Reader,
    TopicSpec,
    open_admin,
    open_producer,
    open_reader,
)

MEGABYTE = 1 << 20
RECORD_BYTES_MAX = 2 * MEGABYTE

#: How long a log may take to answer, and to see what another client wrote.
PATIENCE_S = 60.0


class Log(Protocol):
    """What the contract asks of its fixture ``log``: clients that are not started yet."""

    def producer(self) -> Producer: ...
    def reader(self) -> Reader: ...
    def admin(self) -> Admin: ...


class LogAt(NamedTuple):
    """The log at a URL."""

    url: str

    def producer(self) -> Producer:
        return open_producer(self.url)

    def reader(self) -> Reader:
        return open_reader(self.url)

    def admin(self) -> Admin:
        return open_admin(self.url)


@dataclass(frozen=True)
class Opened:
    """Started clients of one log, and topics that no other test has."""

    producer: Producer
    reader: Reader
    admin: Admin

    async def topic(self, partitions: int = 1) -> str:
        """Make a topic."""
        name = f"contract-{uuid4().hex[:12]}"
        assert await self.admin.create(TopicSpec(name, partitions, RECORD_BYTES_MAX))
        return name

    async def records(self, topic: str, partition: int = 0) -> list[RecordLike]:
        """All records of a partition, read Slice by Slice; the Slices leave no hole."""
        first, end = await self.reader.bounds(topic, partition)
        found: list[RecordLike] = []
        position = first
        while position < end:
            piece = await self.reader.read(topic, partition, position, wait_ms_max=1000)
            assert piece.range[:3] == (topic, partition, position)
            found += piece.records
            position = piece.range.next
        return found


Story = Callable[["LogContract", Opened], Awaitable[None]]


def told(story: Story) -> "Callable[[LogContract, Log], None]":
    """A test out of a coroutine that is given started clients; it needs no pytest plugin."""

    def test(self: "LogContract", log: Log) -> None:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(_tell(story, self, log))

    test.__name__, test.__doc__ = story.__name__, story.__doc__
    return test


async def _tell(story: Story, contract: "LogContract", log: Log) -> None:
    opened = Opened(log.producer(), log.reader(), log.admin())
    clients = opened.producer, opened.reader, opened.admin
    async with asyncio.timeout(PATIENCE_S):
        for client in clients:
            await client.start()
        try:
            await story(contract, opened)
        finally:
            for client in clients:
                await client.stop()


class LogContract:
    """Give it a fixture ``log``; each test says one thing that must hold."""

    @told
    async def test_a_record_is_read_as_it_was_sent(self, log: Opened) -> None:
        """Key, value, headers with their order and repeats, and the time survive."""
        topic = await log.topic()
        pairs = (("trace", b"1"), ("trace", b"2"), ("a", b""), ("trace", b"1"))
        sent = [
            Outgoing(b"value", b"key", pairs, 0, 1_700_000_000_123),
            Outgoing(None, b"key", (), 0, 1_700_000_000_000),
            Outgoing(b"", b"", (), 0, 1_700_000_000_001),
            Outgoing(b"only a value", None, (), 0, 1_700_000_000_002),
            Outgoing(None, None, (), 0, 1_700_000_000_003),
        ]
        await log.producer.send(topic, sent)
        assert [_as_sent(r) for r in await log.records(topic)] == sent

    @told
    async def test_offsets_count_from_0_in_the_order_of_sending(self, log: Opened) -> None:
        """An address says where a record is, and it is there."""
        topic = await log.topic(3)
        sent = [Outgoing(b"%d" % n, None, (), n % 3) for n in range(30)]
        addresses = await log.producer.send(topic, sent[:20])
        addresses += await log.producer.send(topic, sent[20:])
        assert addresses == [Address(topic, n % 3, n // 3) for n in range(30)]
        for partition in range(3):
            records = await log.records(topic, partition)
            assert [record.offset for record in records] == list(range(10))
            assert _values(records) == [b"%d" % n for n in range(partition, 30, 3)]

    @told
    async def test_keys_go_where_kafka_sends_them(self, log: Opened) -> None:
        """By murmur2 of the key, as every Kafka client has it."""
        topic = await log.topic(7)
        keys = [b"user-1", b"user-2", b"a", b"", "é".encode(), b"conversation-42"]
        addresses = await log.producer.send(topic, [Outgoing(b"", key) for key in keys])
        assert [address.partition for address in addresses] == [3, 0, 5, 2, 4, 5]

    @told
    async def test_records_without_keys_are_spread(self, log: Opened) -> None:
        """Call by call over all partitions."""
        topic = await log.topic(7)
        calls = [await log.producer.send(topic, [Outgoing(b"")] * 3) for _ in range(7)]
        assert {addresses[0].partition for addresses in calls} == set(range(7))

    @told
    async def test_concurrent_calls_keep_their_own_order(self, log: Opened) -> None:
        """Records of one call are in the order given, however many calls run at once."""
        topic = await log.topic()
        calls = [[Outgoing(b"%d %d" % (c, n)) for n in range(10)] for c in range(20)]
        told_addresses = await asyncio.gather(*(log.producer.send(topic, call) for call in calls))
        records = await log.records(topic)
        assert [record.offset for record in records] == list(range(200))
        for call, addresses in zip(calls, told_addresses, strict=True):
            offsets = [address.offset for address in addresses]
            assert offsets == sorted(offsets)
            assert [records[at].value for at in offsets] == [record.value for record in call]

    @told
    async def test_a_record_of_a_megabyte(self, log: Opened) -> None:
        """Large records pass, alone and beside small ones."""
        topic = await log.topic()
        sent = [Outgoing(b"small"), Outgoing(b"x" * MEGABYTE), Outgoing(b"y" * MEGABYTE, b"key")]
        await log.producer.send(topic, sent)
        assert _values(await log.records(topic)) == [record.value for record in sent]

    @told
    async def test_a_record_too_large_is_rejected_and_nothing_is_appended(
        self, log: Opened
    ) -> None:
        """Not even the records of the call that would fit; and the log goes on."""
        topic = f"contract-{uuid4().hex[:12]}"
        await log.admin.create(TopicSpec(topic, 1, 1000))
        with pytest.raises(Reject) as rejected:
            await log.producer.send(topic, [Outgoing(b"fits"), Outgoing(b"x" * 900, b"k" * 101)])
        assert rejected.value.code == "record.too_large"
        await log.producer.send(topic, [Outgoing(b"x" * 900, b"k" * 100)])
        assert _values(await log.records(topic)) == [b"x" * 900]

    @told
    async def test_reading_begins_where_it_is_told(self, log: Opened) -> None:
        """Any offset can be asked for, again and again, in any order."""
        topic = await log.topic()
        await log.producer.send(topic, [Outgoing(b"%d" % n) for n in range(100)])
        for offset in (99, 0, 42, 42):
            piece = await _news(log, topic, offset)
            assert piece.range.first == offset == piece.records[0].offset
            assert piece.records[0].value == b"%d" % offset

    @told
    async def test_a_read_is_bounded(self, log: Opened) -> None:
        """By records, and by bytes once there is one record."""
        topic = await log.topic()
        await log.producer.send(topic, [Outgoing(b"x" * 1000) for _ in range(50)])
        piece = await log.reader.read(topic, 0, 10, records_max=7, wait_ms_max=10_000)
        assert piece.range == OffsetRange(topic, 0, 10, 17)
        assert len(piece) == 7
        piece = await log.reader.read(topic, 0, 10, bytes_max=1, wait_ms_max=10_000)
        assert piece.range == OffsetRange(topic, 0, 10, 11)
        piece = await log.reader.read(topic, 0, 0, bytes_max=10_000, wait_ms_max=10_000)
        assert 1 <= len(piece) <= 11

    @told
    async def test_an_empty_read_ends_where_it_began(self, log: Opened) -> None:
        """No record, no error, no moved position: at the end, past it, and where nothing is."""
        topic = await log.topic(2)
        await log.producer.send(topic, [Outgoing(b"", partition=0)])
        for partition, offset in ((0, 1), (0, 1000), (1, 0)):
            for wait_ms_max in (0, 50):
                piece = await log.reader.read(topic, partition, offset, wait_ms_max=wait_ms_max)
                assert piece.range == OffsetRange(topic, partition, offset, offset)
                assert len(piece) == 0

    @told
    async def test_a_waiting_read_is_woken_by_a_record(self, log: Opened) -> None:
        """Of its own partition; it does not sit out its wait."""
        topic = await log.topic(2)
        waiting = asyncio.create_task(
            log.reader.read(topic, 0, 0, wait_ms_max=int(PATIENCE_S * 2000))
        )
        await asyncio.sleep(0.05)
        await log.producer.send(topic, [Outgoing(b"elsewhere", partition=1)])
        await log.producer.send(topic, [Outgoing(b"news", partition=0)])
        assert _values((await waiting).records) == [b"news"]

    @told
    async def test_bounds_are_the_first_offset_and_the_next(self, log: Opened) -> None:
        """Of an empty partition both are 0."""
        topic = await log.topic(2)
        await log.producer.send(topic, [Outgoing(b"", partition=1)] * 5)
        assert await log.reader.bounds(topic, 0) == (0, 0)
        assert await log.reader.bounds(topic, 1) == (0, 5)

    @told
    async def test_deleted_records_are_gone_and_offsets_go_on(self, log: Opened) -> None:
        """Up to where it was told and in that partition only; deleted again they are no error."""
        topic = await log.topic(2)
        for partition in (0, 1):
            await log.producer.send(
                topic, [Outgoing(b"%d" % n, None, (), partition) for n in range(5)]
            )
        for before in ({0: 3}, {0: 2}, {}):
            await log.admin.delete_records(topic, before)
            assert await log.reader.bounds(topic, 0) == (3, 5)
        assert await log.reader.bounds(topic, 1) == (0, 5)
        assert _values(await log.records(topic, 0)) == [b"3", b"4"]
        await log.admin.delete_records(topic, {0: 5, 1: 1})
        assert await log.reader.bounds(topic, 0) == (5, 5)
        piece = await log.reader.read(topic, 0, 1)
        assert (piece.range, len(piece)) == (OffsetRange(topic, 0, 1, 5), 0), "none to wait for"
        assert await log.reader.bounds(topic, 1) == (1, 5)
        assert await log.producer.send(topic, [Outgoing(b"", None, (), 0)]) == [
            Address(topic, 0, 5)
        ]

    @told
    async def test_records_that_must_stay_are_not_deleted(self, log: Opened) -> None:
        """What is not there yet, and what a topic keeps by key."""
        topic = await log.topic()
        await log.producer.send(topic, [Outgoing(b"kept")])
        compacted = f"contract-{uuid4().hex[:12]}"
        await log.admin.create(TopicSpec(compacted, 1, RECORD_BYTES_MAX, compacted=True))
        await log.producer.send(compacted, [Outgoing(b"kept", b"key")])
        for name, before in ((topic, {0: 2}), (topic, {1: 0}), (compacted, {0: 1}), ("no", {0: 0})):
            with pytest.raises(Refuse):
                await log.admin.delete_records(name, before)
        assert await log.reader.bounds(topic, 0) == (0, 1)
        assert await log.reader.bounds(compacted, 0) == (0, 1)

    @told
    async def test_what_is_not_there_is_refused(self, log: Opened) -> None:
        """A topic or a partition that does not exist is never made by naming it."""
        topic = await log.topic(2)
        for attempt, code in (
            (log.producer.send("contract-no-such-topic", [Outgoing(b"")]), "topic.unknown"),
            (log.producer.send(topic, [Outgoing(b"", partition=2)]), "topic.partition"),
            (log.reader.read("contract-no-such-topic", 0, 0), "topic.unknown"),
            (log.reader.read(topic, 2, 0), "topic.partition"),
            (log.reader.read(topic, 0, -1), "read.arguments"),
            (log.reader.read(topic, 0, 0, records_max=0), "read.arguments"),
            (log.reader.bounds("contract-no-such-topic", 0), "topic.unknown"),
            (log.reader.bounds(topic, 2), "topic.partition"),
        ):
            with pytest.raises(Refuse) as refused:
                await attempt
            assert refused.value.code == code
        with pytest.raises(Refuse):
            await log.producer.send("../t", [Outgoing(b"")])
        assert "contract-no-such-topic" not in await log.admin.topics()

    @told
    async def test_topics_are_made_once(self, log: Opened) -> None:
        """Made again is no error, with another number of partitions it is."""
        topic = await log.topic(2)
        spec = TopicSpec(topic, 2, RECORD_BYTES_MAX)
        assert not await log.admin.create(spec)
        with pytest.raises(Refuse, match="has 2 partitions, not 3"):
            await log.admin.create(spec._replace(partitions=3))
        assert (await log.admin.topics())[topic].partitions == 2
        with pytest.raises(Refuse):
            await log.admin.create(spec._replace(name="../t"))

    @told
    async def test_a_topic_is_listed_as_it_was_made(self, log: Opened) -> None:
        """With its limits and its retention."""
        name = f"contract-{uuid4().hex[:12]}"
        spec = TopicSpec(name, 3, MEGABYTE, 3_600_000, 64 * MEGABYTE, compacted=True)
        await log.admin.create(spec)
        assert (await log.admin.topics())[name] == spec

    @told
    async def test_a_group_that_never_committed_has_no_positions(self, log: Opened) -> None:
        """And asking makes none."""
        assert await log.admin.committed(f"contract-{uuid4().hex[:12]}") == {}

    def test_stop_finishes_what_was_accepted(self, log: Log) -> None:
        """And what was answered for is there for clients opened later."""

        async def story(_contract: LogContract, opened: Opened) -> None:
            topic = await opened.topic()
            producer = log.producer()
            await producer.start()
            sends = [
                asyncio.create_task(producer.send(topic, [Outgoing(b"%d" % n)])) for n in range(9)
            ]
            await asyncio.sleep(0)  # each is accepted
            await producer.stop()
            assert sorted([(await send)[0].offset for send in sends]) == list(range(9))
            assert len(await opened.records(topic)) == 9

        told(story)(self, log)


def _as_sent(record: RecordLike) -> Outgoing:
    headers = tuple((name, value) for name, value in record.headers)
    return Outgoing(record.value, record.key, headers, 0, record.timestamp)


def _values(records: Sequence[RecordLike]) -> list[bytes | None]:
    return [record.value for record in records]


async def _news(log: Opened, topic: str, offset: int) -> Slice:
    """What follows the offset, which must be something."""
    return await log.reader.read(topic, 0, offset, wait_ms_max=int(PATIENCE_S * 1000))
