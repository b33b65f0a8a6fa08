"""What a coalesced topic's agent may expect: limits, waits, and offsets that Kafka skips."""

import asyncio

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from faust_apps import WAIT_S
from transport_differences import differs, once

from streamapp.transport import Outgoing

#: Offsets of the records that the transactions below append; 10, 16 and 27 are their markers.
COMMITTED, ABORTED = [*range(10), *range(17, 27)], [*range(11, 16)]
END = 28


def holes(slices, first=0):
    """Where a Slice does not begin where the one before ended, partition by partition."""
    found, ends = [], {}
    for piece in slices:
        expected = ends.get(piece["partition"], first)
        if piece["at"][0] != expected:
            found.append((expected, piece["at"][0]))
        ends[piece["partition"]] = piece["at"][1]
    return found


def offsets_of(slices, partition=0):
    return [at for piece in slices if piece["partition"] == partition for at in piece["offsets"]]


def offsets_of_all(worker, word):
    return [one["offset"] for one in worker.said(word)]


@pytest.mark.parametrize("broker", ["local", "kafka+batch"], indirect=True)
async def test_slices_keep_their_limits_and_never_wait_without_a_reason(broker, worker_of, log):
    await log.create("grow", "large", "many", "release", partitions=1)
    await log.send_numbers("many", range(1050))
    sizes = [100_000] * 10 + [1 << 20] + [100_000] * 9
    await log.send("large", [Outgoing(b"x" * size) for size in sizes])
    worker = worker_of("slices")

    # A wait of an hour delays nobody: there is more already, or nothing is in work.
    await log.until_no_lag("many", "large", partitions=1)
    many, large = worker.said("MANY"), worker.said("LARGE")
    assert holes(many) == holes(large) == []
    assert offsets_of(many) == list(range(1050))
    assert offsets_of(large) == list(range(20))
    assert max(len(piece["offsets"]) for piece in many) == 100
    assert [size for piece in large for size in piece["sizes"]] == sizes
    assert max(sum(piece["sizes"][:-1]) for piece in large) < 250_000

    # While one is in work the next grows until it is full, and goes on when nothing is.
    await log.send_numbers("grow", range(1))
    await worker.until_said("GROW", 1)
    for number in range(1, 11):
        await log.send_numbers("grow", range(number * 10, number * 10 + 10))
    second = (await worker.until_said("GROW", 2))[1]
    assert second["at"] == [1, 101]
    await log.send_numbers("grow", range(101, 111))
    await log.send_numbers("release", range(1))
    await worker.until(lambda w: offsets_of(w.said("GROW")) == list(range(111)), "all that grew")
    await log.send_numbers("release", range(1, 2))
    await log.until_no_lag("grow", "release", partitions=1)
    assert holes(worker.said("GROW")) == []
    assert [one["value"] for one in worker.said("RELEASE")] == ["0", "1"]
    assert not worker.trouble()


async def produce_transactions(bootstrap, topics):
    """Ten records, five that are aborted, ten more."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=topics[0])
    await producer.start()
    for count, keep in ((10, True), (5, False), (10, True)):
        await producer.begin_transaction()
        for topic in topics:
            for number in range(count):
                await producer.send(topic, b"%d" % number, partition=0)
        await producer.flush()
        await (producer.commit_transaction() if keep else producer.abort_transaction())
    await producer.stop()


async def make_compacted(bootstrap, topic):
    """A topic whose segments close, and are compacted, as soon as may be."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    configs = {
        "cleanup.policy": "compact",
        "segment.ms": "50",
        "min.cleanable.dirty.ratio": "0.001",
    }
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=configs)])
    await admin.close()


async def compact(log, name):
    """Send until older records of the same keys are gone; the offsets that are left."""
    async with asyncio.timeout(WAIT_S):
        while True:
            await log.send_numbers(name, range(20), lambda n: b"key%d" % (n % 3))
            left = await left_of(log, name)
            if left[-1] + 1 > len(left):
                return left
            await asyncio.sleep(0.1)


async def left_of(log, name):
    """The offsets that a topic's records have now."""
    topic, offsets, position = log.topic(name), [], 0
    _, end = await log.reader.bounds(topic, 0)
    while position < end:
        piece = await log.reader.read(topic, 0, position, wait_ms_max=1000)
        offsets += [record.offset for record in piece.records]
        position = piece.range.next
    return offsets


@pytest.mark.parametrize("broker", ["kafka+batch", "kafka"], indirect=True)
async def test_gaps_are_covered_and_never_pass_for_processed(broker, kafka, worker_of, log):
    await log.create("plain", "all-but-one", "transactions", partitions=1)
    topics = [log.topic(name) for name in ("plain", "all-but-one", "transactions")]
    await produce_transactions(kafka.bootstrap, topics)
    await make_compacted(kafka.bootstrap, log.topic("compacted"))
    left = await compact(log, "compacted")
    worker = worker_of("gaps", HELD="17")

    visible = sorted(COMMITTED + ABORTED)
    for word in ("PLAIN", "ONE"):
        await worker.until(lambda w, s=word: visible[-1:] == offsets_of_all(w, s)[-1:], "all of it")
        assert once(broker, offsets_of_all(worker, word)) == visible  # Faust reads uncommitted
    if broker.ours:
        await log.until_no_lag("plain", "transactions", "compacted", partitions=1)
        await log.send_numbers("plain", range(1))  # a commit after every acknowledgement
        await log.until_no_lag("plain", partitions=1)
        assert await log.committed("all-but-one") in {16, 17}
        assert holes(worker.said("TRANSACTIONS")) == holes(worker.said("COMPACTED")) == []
        assert offsets_of(worker.said("TRANSACTIONS")) == visible
        received = offsets_of(worker.said("COMPACTED"))
        assert received == sorted(set(received))
        assert set(await left_of(log, "compacted")) <= set(received) <= set(left)
    else:
        assert differs(broker, "commit.gap")
        await log.until_committed("all-but-one", END - 1)
        assert differs(broker, "commit.marker")
        await log.until_committed("plain", END - 1)
        assert await log.lag("plain", partitions=1) == 1
    assert not worker.trouble()
