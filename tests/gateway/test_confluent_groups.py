"""REST consumers as members of their groups, on the embedded log and on Kafka."""

import asyncio
from types import SimpleNamespace
from uuid import uuid4

import pytest
from aiokafka.errors import UnknownError
from rest_consumers import EARLIEST, create, fill

from streamapp.core.clock import SYSTEM
from streamapp.core.errors import Refuse
from streamapp.core.slice import Record
from streamapp.gateway.confluent.instances import Found, Instance, Log, Options
from streamapp.gateway.confluent.registry import Registry
from streamapp.transport import TopicSpec
from streamapp.transport.kafka.members import KafkaMember
from streamapp.transport.local.groups import Groups
from streamapp.transport.local.lease import Lease


@pytest.fixture(params=["local", "kafka"])
async def log(request, serve_rest):
    """(a gateway, a topic of two partitions that no other test has)"""
    if request.param == "local":
        rest = await serve_rest(request.getfixturevalue("log_url"))
        return rest, "plain"
    rest = await serve_rest(request.getfixturevalue("kafka").url)
    topic = f"rest-{uuid4().hex[:8]}"
    await rest.admin.create(TopicSpec(topic, 2, 100_000))
    return rest, topic


async def shared(consumers):
    """The partitions of each, as soon as two have one of two."""
    async with asyncio.timeout(60):
        while True:
            held = [
                [p["partition"] for p in (await c.call("GET", "/assignments"))[1]["partitions"]]
                for c in consumers
            ]
            if sorted(held) == [[0], [1]]:
                return held


@pytest.mark.timeout(300)
async def test_the_whole_cycle(log):
    rest, topic = log
    await fill(rest, topic, 0, 1, 2)
    await fill(rest, topic, 3, 4, partition=1)
    consumer = await create(rest, {**EARLIEST, "auto.commit.enable": "false"})
    await consumer.subscribe(topic)
    assert await consumer.call("GET", "/subscription", status=200) == {"topics": [topic]}
    records = await consumer.read(5)
    assert sorted((r["partition"], r["offset"], r["value"]) for r in records) == [
        (0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 0, 3), (1, 1, 4),
    ]  # fmt: skip
    assert records[0].keys() == {"topic", "key", "value", "partition", "offset"}
    assigned = (await consumer.call("GET", "/assignments", status=200))["partitions"]
    assert assigned == [{"topic": topic, "partition": 0}, {"topic": topic, "partition": 1}]

    assert await consumer.committed(topic) is None
    done = {"offsets": [{"topic": topic, "partition": 0, "offset": 1}]}
    assert await consumer.call("POST", "/offsets", done, 200) == []
    assert await consumer.committed(topic) == 2  # the next to read
    assert await consumer.call("POST", "/offsets", status=200) == []
    assert (await consumer.committed(topic), await consumer.committed(topic, 1)) == (3, 2)
    assert (await rest.admin.committed(consumer.group))[topic, 0] == 3

    back = {"offsets": [{"topic": topic, "partition": 0, "offset": 2}]}
    await consumer.call("POST", "/positions", back, 204)
    assert [r["offset"] for r in await consumer.read(1)] == [2]
    places = {"partitions": [{"topic": topic, "partition": 1}]}
    await consumer.call("POST", "/positions/beginning", places, 204)
    assert [r["value"] for r in await consumer.read(2)] == [3, 4]
    await consumer.call("POST", "/positions/beginning", places, 204)
    await consumer.call("POST", "/positions/end", places, 204)
    await fill(rest, topic, 9, partition=1)
    assert [r["value"] for r in await consumer.read(1)] == [9]

    await consumer.call("DELETE", "/subscription", status=204)
    assert await consumer.call("GET", "/subscription", status=200) == {"topics": []}
    await consumer.subscribe(topic)  # where the group is
    assert [r["value"] for r in await consumer.read(1)] == [9]
    await consumer.call("DELETE", status=204)
    status, answer = await consumer.call("GET", "/records")
    assert (status, answer["error_code"]) == (404, 40403)


@pytest.mark.timeout(300)
async def test_a_group_shares_partitions_and_hands_them_on(log):
    rest, topic = log
    for partition in (0, 1):
        await fill(rest, topic, 0, 1, 2, partition=partition)
    first = await create(rest)
    await first.subscribe(topic)
    assert len(await first.read(6)) == 6
    second = await create(rest, group=first.group)
    await second.subscribe(topic)
    both = [first, second]
    held = await shared(both)
    for partition in (0, 1):
        await fill(rest, topic, 3, partition=partition)
    # What the first had was committed when the second came: nothing comes twice.
    for consumer, own in zip(both, held, strict=True):
        (record,) = await consumer.read(1)
        assert (record["partition"], record["value"]) == (own[0], 3)
    await second.call("DELETE", status=204)
    for partition in (0, 1):
        await fill(rest, topic, 4, partition=partition)
    assert sorted((r["partition"], r["value"]) for r in await first.read(2)) == [(0, 4), (1, 4)]
    await first.call("DELETE", status=204)
    assert await rest.admin.committed(first.group) == {(topic, 0): 5, (topic, 1): 5}


@pytest.mark.timeout(300)
async def test_assigned_by_hand_it_reads_alone_and_commits_for_an_empty_group(log):
    rest, topic = log
    await fill(rest, topic, 0, 1, partition=1)
    consumer = await create(rest, {**EARLIEST, "auto.commit.enable": False})
    place = {"partitions": [{"topic": topic, "partition": 1}]}
    await consumer.call("POST", "/assignments", place, 204)
    assert [r["value"] for r in await consumer.read(2)] == [0, 1]
    await consumer.call("POST", "/offsets", status=200)
    assert await consumer.committed(topic, 1) == 2
    status, answer = await consumer.call("POST", "/subscription", {"topics": [topic]})
    assert (status, answer["error_code"]) == (409, 40903)
    await consumer.call("DELETE", "/subscription", status=204)
    member = await create(rest, group=consumer.group)
    await member.subscribe(topic)
    await fill(rest, topic, 2, partition=1)
    await member.read(1)
    await consumer.call("POST", "/assignments", place, 204)
    done = {"offsets": [{"topic": topic, "partition": 1, "offset": 0}]}
    status, answer = await consumer.call("POST", "/offsets", done)
    assert (status, answer["error_code"]) == (409, 40903)


class Forbidden:
    """A member whose commits are refused."""

    def __init__(self):
        self.stopped = False

    def member(self, group, on_revoke):
        return self

    async def stop(self):
        self.stopped = True

    async def commit(self, offsets):
        raise Refuse("log.forbidden", "no commits", "grant them")


async def test_whoever_may_not_commit_is_told_and_still_leaves():
    forbidden = Forbidden()
    instance = Instance("g", Options(auto_commit=True), Log(None, None, forbidden), SYSTEM)
    instance.delivered(Found([("plain", 0, Record(0, 0, None, b"1", ()))]), 1)
    with pytest.raises(Refuse, match="no commits"):
        await instance.close(commit=True)
    assert forbidden.stopped


@pytest.mark.timeout(300)
@pytest.mark.parametrize("committing", [True, False])
async def test_latest_is_the_end_once_and_not_at_every_rebalance(log, committing):
    """What comes after a group's first look is somebody's, though nothing was delivered before."""
    rest, topic = log
    config = {"format": "json", "auto.commit.enable": committing}
    first = await create(rest, config)
    await first.subscribe(topic)
    async with asyncio.timeout(60):
        while not (await first.call("GET", "/assignments", status=200))["partitions"]:
            pass
    assert await first.call("GET", "/records?timeout=0", status=200) == []
    for partition in (0, 1):
        await fill(rest, topic, partition, partition=partition)
    second = await create(rest, config, group=first.group)
    await second.subscribe(topic)
    both, found = [first, second], []
    await shared(both)
    async with asyncio.timeout(60):
        while len(found) < (2 if committing else 1):
            for consumer in both:
                got = await consumer.call("GET", "/records?timeout=500", status=200)
                found += [r["value"] for r in got]
    # Who commits by hand knows where it began, and nobody else does.
    assert sorted(found) == [0, 1] or not committing


@pytest.mark.timeout(300)
async def test_a_commit_for_partitions_that_went_to_another_is_refused(log):
    rest, topic = log
    for partition in (0, 1):
        await fill(rest, topic, 0, 1, partition=partition)
    by_hand = {**EARLIEST, "auto.commit.enable": False}
    first = await create(rest, by_hand)
    await first.subscribe(topic)
    await first.read(4)
    second = await create(rest, by_hand, group=first.group)
    await second.subscribe(topic)
    held = []
    async with asyncio.timeout(60):
        while len(held) != 1:
            held = (await second.call("GET", "/assignments", status=200))["partitions"]
    own = held[0]["partition"]
    await fill(rest, topic, 2, partition=own)
    await second.read(3)
    await second.call("POST", "/offsets", status=200)
    status, answer = await first.call("POST", "/offsets")
    assert (status, answer["error_code"]) == (409, 40903)
    assert await rest.admin.committed(first.group) == {(topic, own): 3}
    await first.read(2)  # of what is left to it, again
    await first.call("POST", "/offsets", status=200)
    assert await rest.admin.committed(first.group) == {(topic, own): 3, (topic, 1 - own): 2}


async def test_a_deletion_while_an_instance_connects_comes_after():
    registry, forbidden, steps = Registry(1), Forbidden(), []
    connected = asyncio.Event()

    async def start():
        await connected.wait()
        steps.append("started")

    async def stop():
        steps.append("stopped")

    forbidden.start, forbidden.stop = start, stop
    instance = Instance("g", Options(), Log(None, None, forbidden), SYSTEM)
    adding = asyncio.create_task(registry.add("g", "i", instance))
    await asyncio.sleep(0)
    removing = asyncio.create_task(registry.remove("g", "i"))
    await asyncio.sleep(0)
    connected.set()
    await asyncio.gather(adding, removing)
    await registry.close()
    assert steps == ["started", "stopped"]


async def test_a_group_s_name_stays_in_its_line_of_the_log(caplog):
    async def fails():
        raise UnknownError("no")

    member = KafkaMember(None, "g\nforged", None)
    member._coordinator = SimpleNamespace(check_errors=lambda: fails().send(None))
    assert await member.held() is None
    assert r"'g\nforged'" in caplog.text


@pytest.mark.timeout(300)
async def test_assigned_by_hand_beside_members_it_reads_on_and_ends_well(log, caplog):
    rest, topic = log
    member = await create(rest)
    await member.subscribe(topic)
    await fill(rest, topic, 0, partition=1)
    await member.read(1)
    consumer = await create(rest, group=member.group)  # it commits by itself, as far as it may
    place = {"partitions": [{"topic": topic, "partition": 1}]}
    for wanted in ({0}, {1}):
        await consumer.call("POST", "/assignments", place, 204)
        await fill(rest, topic, *wanted, partition=1)
        await consumer.read(1)
        assert await consumer.call("GET", "/records?timeout=0", status=200) == []
    await consumer.call("DELETE", "/subscription", status=204)
    await consumer.call("POST", "/assignments", place, 204)
    await consumer.call("DELETE", status=204)
    assert "did not end well" not in caplog.text


async def test_an_unused_instance_goes_and_its_partitions_with_it(rest):
    await fill(rest, "plain", 1)
    by_hand = {**EARLIEST, "auto.commit.enable": "false"}
    short = await create(rest, {**by_hand, "consumer.instance.timeout.ms": 1500})
    await short.subscribe("plain")
    assert len(await short.read(1)) == 1
    other = await create(rest, by_hand, group=short.group)
    await other.subscribe("plain")
    async with asyncio.timeout(60):
        while len((await other.call("GET", "/assignments", status=200))["partitions"]) < 2:
            await asyncio.sleep(0.05)
    assert [r["value"] for r in await other.read(1)] == [1]  # nobody said that it was done
    assert (await short.call("GET", "/subscription"))[0] == 404


async def test_a_stopping_gateway_answers_waits_and_leaves_the_group(rest):
    consumer = await create(rest, {**EARLIEST, "auto.commit.enable": False})
    await consumer.subscribe("plain")
    waits = asyncio.create_task(consumer.call("GET", "/records?timeout=50000", status=200))
    async with asyncio.timeout(60):
        while not rest.gateway.life.requests:
            await asyncio.sleep(0.01)
    rest.gateway.life.stop()
    assert await waits == []
    for close in rest.gateway.closing:
        await close()
    assert await rest.admin.groups() == []


async def test_an_app_and_a_rest_consumer_do_not_share_a_group(rest, tmp_path):
    consumer = await create(rest)
    folder = tmp_path / "log"
    lease = Lease(folder / "groups", lambda: None)
    groups = Groups(folder)
    groups.join(consumer.group, lease.member)
    await consumer.subscribe("plain")
    async with asyncio.timeout(60):
        while True:
            status, answer = await consumer.call("GET", "/records?timeout=500")
            if status != 200:
                break
    assert (status, answer["error_code"]) == (409, 40903)
    groups.leave(consumer.group, lease.member)
    lease.end()

    # The other way round the app has the right of way.
    other = await create(rest)
    await other.subscribe("plain")
    await fill(rest, "plain", 1)
    await other.read(1)
    app = Lease(folder / "groups", lambda: None)
    groups.join(other.group, app.member)
    assert groups.look(other.group, app.member, 10).present
    with pytest.raises(Refuse, match="running app"):
        groups.join(other.group, "late", b"plain\0[]")
    app.end()
    groups.close()
