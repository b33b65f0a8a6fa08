"""Producer, Reader and Admin on a real Apache Kafka."""

import asyncio
import signal
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import OutOfOrderSequenceNumber
from machine import stop

from streamapp.core.errors import Halt, Refuse, Reject, Retry
from streamapp.core.ranges import OffsetRange
from streamapp.transport import Outgoing, TopicSpec, open_admin, open_reader
from streamapp.transport.kafka import connection, lane

pytestmark = pytest.mark.timeout(300)
MB = 1 << 20


@pytest.fixture
async def clients(kafka, opened):
    return await opened(kafka.url)


@pytest.fixture
async def topic(clients):
    """A topic of two partitions that no other test has."""
    spec = TopicSpec(f"t-{uuid4().hex[:8]}", 2, 1000)
    await clients[0].create(spec)
    return spec.name


async def wait_until(condition):
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.05)


async def test_a_null_header_of_a_foreign_producer_is_an_empty_one(kafka, clients, topic):
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        await producer.send_and_wait(topic, b"v", partition=0, headers=[("null", None)])
    (record,) = (await clients[2].read(topic, 0, 0)).records
    assert record.headers == (("null", b""),)


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
async def test_what_others_compressed_is_read(kafka, clients, topic, codec):
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap, compression_type=codec
    ) as producer:
        await producer.send_and_wait(topic, b"again " * 100, partition=0)
    assert (await clients[2].read(topic, 0, 0)).records[0].value == b"again " * 100


async def test_one_megabyte_fits_and_what_does_not_rejects_the_call_whole(clients, topic):
    admin, producer, reader = clients
    await admin.create(TopicSpec(f"{topic}-large", 2, MB))
    large = [Outgoing(b"%d" % n * MB, partition=0) for n in range(3)]
    await producer.send(f"{topic}-large", large)
    assert [r.value for r in await read_all(reader, f"{topic}-large", 0)] == [
        r.value for r in large
    ]
    few = [Outgoing(b"ok", partition=1), Outgoing(b"x" * MB, b"k")]
    with pytest.raises(Reject) as rejected:
        await producer.send(f"{topic}-large", few)
    assert rejected.value.code == "record.too_large"
    assert await reader.bounds(f"{topic}-large", 1) == (0, 0)
    many_headers = [("h" * 200, b"v" * 100)] * 3000
    await producer.send(f"{topic}-large", [Outgoing(b"", None, many_headers, partition=1)])


async def read_all(reader, topic, partition):
    at, end = await reader.bounds(topic, partition)
    records = []
    while at < end:
        slice_ = await reader.read(topic, partition, at)
        records += slice_.records
        at = slice_.range.next
    return records


async def test_a_broker_that_takes_less_than_it_said_rejects_only_whose_record_it_is(
    clients, topic, monkeypatch
):
    _, producer, reader = clients
    monkeypatch.setattr("streamapp.transport.kafka.topics.OVERHEAD_BYTES", -5000)
    monkeypatch.setattr(lane, "BATCH_BYTES_MAX", MB)
    calls = [b"a", b"b" * 6000, b"c"]
    sends = [producer.send(topic, [Outgoing(value, partition=0)]) for value in calls]
    done = await asyncio.gather(*sends, return_exceptions=True)
    assert [type(outcome) for outcome in done] == [list, Reject, list]
    assert [r.value for r in await read_all(reader, topic, 0)] == [b"a", b"c"]


async def test_the_range_covers_what_transactions_leave_in_the_log(kafka, clients, topic):
    reader = clients[2]
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap, transactional_id=topic
    ) as producer:
        for value in (b"one", b"two"):
            async with producer.transaction():
                await producer.send_and_wait(topic, value, partition=0)
    read = await reader.read(topic, 0, 0)
    assert [(r.offset, r.value) for r in read.records] == [(0, b"one"), (2, b"two")]
    assert read.range == OffsetRange(topic, 0, 0, 4), "the last marker too"
    only_marker = await reader.read(topic, 0, 3)
    assert (only_marker.range, len(only_marker)) == (OffsetRange(topic, 0, 3, 4), 0)


async def test_reading_below_the_beginning_goes_on_at_the_beginning(kafka, clients, topic):
    from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
    from aiokafka.structs import TopicPartition

    _, producer, reader = clients
    await producer.send(topic, [Outgoing(b"%d" % n, partition=0) for n in range(5)])
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=3)})
    await admin.close()
    assert await reader.bounds(topic, 0) == (3, 5)
    read = await reader.read(topic, 0, 0)
    assert (read.range, read.records[0].value) == (OffsetRange(topic, 0, 0, 5), b"3")


async def test_concurrent_sends_keep_each_call_together_and_in_order(clients, topic):
    _, producer, reader = clients
    calls = await asyncio.gather(
        *(
            producer.send(topic, [Outgoing(b"%d" % n, partition=0) for n in range(5)])
            for _ in range(40)
        )
    )
    for addresses in calls:
        first = addresses[0].offset
        assert [a.offset for a in addresses] == list(range(first, first + 5))
    assert [r.value for r in await read_all(reader, topic, 0)] == [b"%d" % n for n in range(5)] * 40


async def test_a_full_room_makes_callers_wait_and_loses_nothing(kafka, opened, topic, monkeypatch):
    monkeypatch.setattr("streamapp.transport.kafka.producer.IN_FLIGHT_BYTES_MAX", 1)
    _, producer, reader = await opened(kafka.url)
    sends = [
        asyncio.create_task(producer.send(topic, [Outgoing(b"%d" % n, partition=0)]))
        for n in range(50)
    ]
    await asyncio.sleep(0)
    for left in sends[10:20]:  # their callers leave while they wait
        left.cancel()
    await asyncio.gather(*sends, return_exceptions=True)
    values = [int(r.value) for r in await read_all(reader, topic, 0)]
    assert values == sorted(values)
    assert {*range(10), *range(20, 50)} <= set(values)


async def test_a_waiting_read_holds_up_no_other_request(clients, topic):
    _, producer, reader = clients
    waiting = asyncio.create_task(reader.read(topic, 0, 0, wait_ms_max=60_000))
    await asyncio.sleep(0)
    assert await reader.bounds(topic, 0) == (0, 0)
    await producer.send(topic, [Outgoing(b"news", partition=0)])
    assert (await waiting).records[0].value == b"news"


async def test_a_reader_that_stops_ends_a_read_that_waits(kafka, opened, topic):
    *_, reader = await opened(kafka.url)
    waiting = asyncio.create_task(reader.read(topic, 0, 0, wait_ms_max=60_000))
    await reader.bounds(topic, 0)
    await reader.stop()
    with pytest.raises(Halt, match="not open"):
        await waiting


async def test_more_copies_than_brokers_are_refused(kafka, topic):
    admin = open_admin(kafka.url, replication=3)
    await admin.start()
    with pytest.raises(Refuse, match="factor") as refused:
        await admin.create(TopicSpec(f"{topic}-copies", 1, 1000))
    assert "STREAMAPP_BROKER_REPLICATION" in refused.value.fix
    await admin.stop()


async def test_topics_of_the_broker_s_own_are_not_listed(clients):
    assert not [name for name in await clients[0].topics() if name.startswith("__")]


async def test_a_record_without_key_for_a_compacted_topic_is_rejected(clients, topic):
    admin, producer, _ = clients
    await admin.create(TopicSpec(f"{topic}-compacted", 1, 50, compacted=True))
    with pytest.raises(Reject, match="no key"):
        await producer.send(f"{topic}-compacted", [Outgoing(b"")])


async def test_a_batch_that_is_tried_again_is_appended_once(clients, topic, monkeypatch):
    """The answer is lost, not the batch: what a broken connection looks like from here."""
    _, producer, reader = clients
    produce, lost = lane.Lane._produce, []

    async def losing(self, data):
        offset = await produce(self, data)
        if not lost:
            lost.append(offset)
            raise connection.KafkaError("the answer is lost")
        return offset

    monkeypatch.setattr(lane.Lane, "_produce", losing)
    addresses = await producer.send(topic, [Outgoing(b"once", partition=0)])
    assert [a.offset for a in addresses] == lost == [0]
    await producer.send(topic, [Outgoing(b"next", partition=0)])
    assert [r.value for r in await read_all(reader, topic, 0)] == [b"once", b"next"]


async def test_a_broker_that_forgot_us_gets_the_batch_under_a_new_identity(
    clients, topic, monkeypatch
):
    _, producer, reader = clients
    produce, identities = lane.Lane._produce, []

    async def forgetful(self, data):
        identities.append(self._identity)
        if len(identities) == 2:
            raise OutOfOrderSequenceNumber
        return await produce(self, data)

    monkeypatch.setattr(lane.Lane, "_produce", forgetful)
    for value in (b"a", b"b", b"c"):
        await producer.send(topic, [Outgoing(value, partition=0)])
    assert [r.value for r in await read_all(reader, topic, 0)] == [b"a", b"b", b"c"]
    assert identities[0] == identities[1] != identities[2] == identities[3]


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_short_silence_is_waited_for(kafka, clients, topic, how, monkeypatch):
    monkeypatch.setattr(connection.Connection.persist, "__defaults__", (120.0,))
    _, producer, reader = clients
    await producer.send(topic, [Outgoing(b"before", partition=0)])
    await asyncio.to_thread(getattr(kafka, how))
    sends = [
        asyncio.create_task(producer.send(topic, [Outgoing(b"%d" % n, partition=0)]))
        for n in range(20)
    ]
    reading = asyncio.create_task(reader.read(topic, 0, 1, wait_ms_max=60_000))
    await asyncio.to_thread(kafka.start)
    done = await asyncio.gather(*sends)
    assert [address.offset for (address,) in done] == list(range(1, 21))
    assert (await reading).records[0].value == b"0"


async def test_a_long_silence_is_a_retry_and_the_same_clients_go_on_after_it(
    kafka, clients, topic, monkeypatch, caplog
):
    admin, producer, reader = clients
    await producer.send(topic, [Outgoing(b"before", partition=0)])
    monkeypatch.setattr(connection, "PATIENCE_S_MAX", 1.0)
    monkeypatch.setattr(connection.Connection.persist, "__defaults__", (1.0,))
    await asyncio.to_thread(kafka.stop)
    for call in (
        asyncio.gather(*(producer.send(topic, [Outgoing(b"lost")]) for _ in range(3))),
        reader.read(topic, 0, 0),
        reader.bounds(topic, 0),
        admin.topics(),
        admin.committed("group"),
        open_reader(kafka.url).start(),
    ):
        with pytest.raises(Retry) as silent:
            await call
        assert silent.value.code == "log.unreachable"
        assert "STREAMAPP_BROKER" in silent.value.fix
    assert not [r for r in caplog.records if r.name.startswith("aiokafka")]
    await asyncio.to_thread(kafka.start)

    async def taken():
        try:
            return await producer.send(topic, [Outgoing(b"after", partition=0)])
        except Retry:
            return None

    await wait_until(taken)
    values = [r.value for r in await read_all(reader, topic, 0)]
    assert (values[0], values[-1]) == (b"before", b"after")


async def test_a_broker_that_hangs_is_a_retry(kafka, clients, topic, monkeypatch):
    _, producer, _ = clients
    await producer.send(topic, [Outgoing(b"before")])
    monkeypatch.setattr(connection.Connection.persist, "__defaults__", (1.0,))
    stop(kafka.pid)
    try:
        with pytest.raises(Retry):
            await producer.send(topic, [Outgoing(b"lost?")])
    finally:
        kafka.signal(signal.SIGCONT)


@pytest.mark.parametrize("answer", ["empty", "nothing"])
async def test_a_broker_that_once_gives_nothing_of_what_is_there_is_asked_again(
    clients, topic, answer, monkeypatch
):
    """Who takes a partition over would else skip a record, or take the log for shorter."""
    _, producer, reader = clients
    await producer.send(topic, [Outgoing(b"v", partition=0)])
    ask, asked = reader._connection.ask_leader, []

    async def once_silent(*arguments, **options):
        found = await ask(*arguments, **options)
        asked.append(found)
        if len(asked) == 1:
            ((_, ((partition, code, end, *rest, _data),)),) = found.topics
            silent = [(topic, [(partition, code, end, *rest, b"")])] if answer == "empty" else []
            return type("Answer", (), {"topics": silent})
        return found

    monkeypatch.setattr(reader._connection, "ask_leader", once_silent)
    assert [r.value for r in (await reader.read(topic, 0, 0)).records] == [b"v"]
    assert len(asked) == 2
