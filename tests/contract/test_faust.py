"""What an app may expect of a transport; each promise on each of them, or the difference by name."""

import asyncio
import hashlib
from collections import Counter, defaultdict
from importlib import import_module
from types import SimpleNamespace

import faust
import pytest
from faust_apps import WAIT_S
from transport_differences import differs, once
from yarl import URL

from streamapp.core.errors import Refuse
from streamapp.transport import Outgoing

MEGABYTE = 1 << 20


def sent_records():
    """Two partitions with everything a record can be."""
    pairs = (("trace", b"1"), ("trace", b"2"), ("a", b""), ("trace", b"1"))
    kinds = [
        Outgoing(b"value", b"key", pairs, 1, 1_700_000_000_123),
        Outgoing(None, b"key", (), 1, 1_700_000_000_001),
        Outgoing(b"", b"", (("only", b"header"),), 1, 1_700_000_000_002),
        Outgoing(b"m" * MEGABYTE, None, (), 1, 1_700_000_000_003),
        Outgoing(b"M" * MEGABYTE, b"big", pairs, 1, 1_700_000_000_004),
    ]
    return kinds + [Outgoing(b"%d" % n, None, (), n % 2, 1_700_000_000_005 + n) for n in range(200)]


def as_told(record, address):
    value = record.value
    return {
        "at": [address.partition, address.offset],
        "key": None if record.key is None else record.key.decode(),
        "value": None if value is None else hashlib.sha256(value).hexdigest(),
        "headers": [[name, content.decode()] for name, content in record.headers],
        "timestamp_ms": record.timestamp_ms,
    }


def offsets_of(worker, word):
    return [one["offset"] for one in worker.said(word)]


def by_partition(told):
    return {p: [one for one in told if one["at"][0] == p] for p in {one["at"][0] for one in told}}


async def test_records_arrive_whole_and_in_order_and_nothing_spins(broker, worker_of, log):
    ways = {"records": "RECORD", "slices": "SLICED"} if broker.ours else {"records": "RECORD"}
    await log.create(*ways)
    records = sent_records()
    half = len(records) // 2
    addresses = {name: await log.send(name, records[:half]) for name in ways}
    worker = worker_of("delivery")
    for name, word in ways.items():
        await worker.until_said(word, half)
        addresses[name] += await log.send(name, records[half:])
    for name, word in ways.items():
        await worker.until_said(word, len(records))
        await log.until_no_lag(name)
        told = once(broker, worker.said(word))
        sent = [as_told(*pair) for pair in zip(records, addresses[name], strict=True)]
        assert by_partition(told) == by_partition(sent)
    paces = len(worker.said("PACE"))
    paces = (await worker.until_said("PACE", paces + 4))[paces + 1 :]
    assert min(pace["polls"] for pace in paces) < 20
    assert min(pace["cpu"] for pace in paces) < 0.5
    for word in ways.values():
        assert len(once(broker, worker.said(word))) == len(records)
    await log.until_no_lag(*ways)
    assert await worker.terminate() == 0


async def test_acknowledgement_seek_and_the_end_of_a_worker(broker, worker_of, log):
    names = "disorder", "again", "back", "half"
    await log.create(*names, partitions=1)
    for name in names:
        await log.send_numbers(name, range(10))
    worker = worker_of("acks")
    commits = await worker.until_said("COMMITTED", 10)
    assert [c["acked"] for c in commits] == [9, 5, 6, 1, 0, 2, 3, 8, 7, 4]
    committed = [c["committed"] for c in commits]
    if differs(broker, "commit.order"):
        assert committed == [10] * 10
    else:
        assert committed == [0, 0, 0, 0, 2, 3, 4, 4, 4, 10]

    await worker.until(lambda w: offsets_of(w, "READ").count(8) == 2, "what was sought")
    await log.until_no_lag("again", partitions=1)
    read = offsets_of(worker, "READ")
    at = read.index(9) + 1
    assert once(broker, read[:at]) == list(range(10))
    assert sorted(once(broker, read[at:])) == list(range(3, 10))

    [back] = await worker.until_said("BACK")
    assert back == {"before": 10, "after": 10 if differs(broker, "commit.back") else 4}

    await worker.until(lambda w: 9 in offsets_of(w, "HALF"), "half of it")
    assert once(broker, offsets_of(worker, "HALF")) == list(range(10))
    assert await worker.terminate() == 0
    assert await log.committed("half") == 4
    assert await log.committed("again") == 10
    worker = worker_of("acks")
    await worker.until(lambda w: 9 in offsets_of(w, "HALF"), "the other half")
    assert once(broker, offsets_of(worker, "HALF")) == list(range(4, 10))
    assert worker.said("READ") == []


async def test_a_kill_redelivers_what_was_not_acknowledged_and_nothing_else(broker, worker_of, log):
    await log.create("words", "held", "raw")
    keys = (b"a", b"b", b"c")
    await log.send_numbers("words", range(30), lambda n: keys[n % 3])
    await log.send_numbers("held", range(10), partition=0)
    await log.send_numbers("raw", range(1000), partition=0)
    worker = worker_of("recovery", ACK_BELOW="5")
    await worker.until_said("COUNT", 30)
    await worker.until_said("HELD", 10)
    await log.until_no_lag("words")
    await log.until_committed("held", 5)
    done = 0
    if broker.ours:
        await worker.until(lambda w: end_of(w.said("SLICE")) > 500, "a slice that is held")
        done = max(one["range"][2] for one in worker.said("SLICE") if one["range"][2] <= 500)
        await log.until_committed("raw", done)
        held = [one for one in worker.said("SLICE") if one["range"][1] >= done]
        assert len(held) <= 4  # slices_in_flight_max
    await worker.kill()
    worker = worker_of("recovery", ACK_BELOW="10")
    await log.send_numbers("words", range(30, 33), lambda n: keys[n % 3])
    await log.until_no_lag("words", "held")
    assert set(offsets_of(worker, "HELD")) <= set(range(5, 10))
    if not differs(broker, "delivery.lost"):
        assert offsets_of(worker, "HELD") == list(range(5, 10))
        counts = sorted((one["key"], one["value"], one["count"]) for one in worker.said("COUNT"))
        assert counts == [("a", 30, 11), ("b", 31, 11), ("c", 32, 11)]
    if broker.ours:
        await log.until_no_lag("raw")
        redelivered = [offset for one in worker.said("SLICE") for offset in one["offsets"]]
        assert redelivered == list(range(done, 1000))
    assert not worker.trouble()


async def test_a_second_member_joins_and_leaves_under_load(broker, worker_of, log):
    await log.create("load", "raw", partitions=4)
    total = 0

    async def load_until(condition):
        nonlocal total
        async with asyncio.timeout(WAIT_S):
            while not condition():
                for name in ("load", "raw"):
                    await log.send_numbers(name, range(total, total + 30), key)
                total += 30
                await asyncio.sleep(0.05)

    first = worker_of("members")
    await load_until(lambda: len(first.said("RECORD")) >= 100)
    second = worker_of("members")
    await load_until(lambda: len(second.said("RECORD")) >= 200)
    leaving = asyncio.create_task(second.terminate())
    await load_until(leaving.done)
    assert leaving.result() == 0
    await log.until_no_lag("load", *(["raw"] if broker.ours else []), partitions=4)
    assert not first.trouble()
    for word in ("RECORD", "SLICE") if broker.ours else ("RECORD",):
        told = first.said(word) + second.said(word)
        assert {value for one in told for value in one["values"]} == set(range(total))
        assert owners_at_once(word, first, second) == 1
        for member in (first, second):
            for tenure in tenures(word, member).values():
                offsets = once(broker, tenure)
                assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))


def key(number):
    return b"key%d" % (number % 50)


def tenures(word, member):
    """(generation, partition) to the offsets that the member received."""
    found = defaultdict(list)
    for one in member.said(word):
        found[one["generation"], one["partition"]] += one["offsets"]
    return found


def owners_at_once(word, *members):
    """How many members received a partition's records in one generation, at most."""
    return max(Counter(at for member in members for at in tenures(word, member)).values())


def end_of(slices):
    return max((one["range"][2] for one in slices), default=0)


OURS = [("local", "local:///tmp"), ("kafka", "kafka+batch://127.0.0.1")]


@pytest.mark.parametrize(("module", "url"), OURS)
def test_ours_refuse_transactions(module, url):
    """The difference named "transactions"; that Faust's own has them is Faust's to test."""
    transport = import_module(f"streamapp.transport.{module}").Transport
    app = SimpleNamespace(
        conf=faust.App("transactions", processing_guarantee="exactly_once").conf, loop=None
    )
    with pytest.raises(Refuse, match="leave processing_guarantee at 'at_least_once'"):
        transport([URL(url)], app)
