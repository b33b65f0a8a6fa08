"""Faust's producer on the local log while the log refuses."""

import faust
import pytest
from faust.exceptions import ProducerSendError

from streamapp.core.errors import Retry
from streamapp.transport.local import producer as producer_module
from streamapp.transport.local.transport import Transport


@pytest.fixture
async def producer(tmp_path, monkeypatch):
    monkeypatch.setattr(producer_module, "RETRY_S", 0)
    app = faust.App(
        "p", broker=f"local://{tmp_path}/log", datadir=str(tmp_path), topic_partitions=1
    )
    app.transport = Transport(app.conf.broker, app)
    producer = app.producer
    await producer.start()
    yield producer
    producer._failure = None
    await producer.stop()


def refuse(producer, monkeypatch, times):
    append = producer.transport.log.append

    async def refusing(topic, rows):
        nonlocal times
        times -= 1
        if times >= 0:
            raise Retry("log.full", "no space left")
        return await append(topic, rows)

    monkeypatch.setattr(producer.transport.log, "append", refusing)


async def send(producer, number, topic="t", **options):
    values = {"key": b"k", "partition": None, "timestamp": None, "headers": None} | options
    return await producer.send(topic, values.pop("key"), b"%d" % number, **values)


async def test_messages_wait_in_order_until_the_log_takes_them(producer, monkeypatch):
    await (await send(producer, 0))
    refuse(producer, monkeypatch, times=3)
    sent = [await send(producer, number) for number in range(1, 10)]
    await producer.flush()
    assert [future.result().offset for future in sent] == list(range(1, 10))


async def test_what_is_given_up_fails_and_nothing_is_committed_after_it(producer, monkeypatch):
    await (await send(producer, 0))
    producer.request_timeout = 0
    refuse(producer, monkeypatch, times=10**9)
    lost = await send(producer, 1)
    for _ in range(2):
        with pytest.raises(ProducerSendError, match="no space left"):
            await producer.flush()
    with pytest.raises(ProducerSendError, match="no space left"):
        await lost


async def test_a_message_too_large_fails_alone(producer):
    with pytest.raises(ProducerSendError, match="topic 't' takes"):
        await producer.send("t", None, b"x" * 2_000_000, None, None, None)
    assert (await producer.send_and_wait("t", None, b"x", None, None, None)).offset == 0


async def test_a_header_of_text_fails_alone_and_nothing_of_it_is_kept(producer):
    """Kept, no reader could get past it."""
    with pytest.raises(
        ProducerSendError, match="a header is str with bytes, not str with str: 'h'"
    ):
        await producer.send("t", None, b"v", None, None, {"h": "text"})
    assert (await producer.send_and_wait("t", None, b"v", None, None, {"h": b"1"})).offset == 0


async def test_headers_timestamps_and_partitions_are_kept(producer):
    await producer.create_topic("t", 3, 1)
    meta = await producer.send_and_wait("t", b"k", b"v", 2, 1.5, {"h": b"1"})
    assert (meta.partition, meta.offset, meta.timestamp) == (2, 0, 1500)
    [record] = await read(producer)
    assert (record.timestamp, record.headers) == (1500, (("h", b"1"),))
    assert producer.key_partition("t", b"k").partition in range(3)


async def read(producer):
    from streamapp.transport.local.engine import Wanted

    read = await producer.transport.log.fetch([Wanted("t", 2, 0, 9, 99)])
    return read.pieces["t", 2].records


async def test_the_apps_own_partitioner_decides(producer):
    producer.partitioner = lambda key, everything, available: everything[-1]
    await producer.create_topic("t", 3, 1)
    assert (await producer.send_and_wait("t", b"k", b"v", None, None, None)).partition == 2
    assert producer.key_partition("t", b"k").partition == 2


async def test_more_messages_than_the_queue_holds_make_the_sender_wait(producer, monkeypatch):
    monkeypatch.setattr(producer_module, "QUEUE_MESSAGES_MAX", 5)
    for number in range(50):
        await send(producer, number)
        assert len(producer._queue) <= 6
    await producer.flush()
    assert (await producer.transport.log.bounds("t", 0)) == (0, 50)
