"""What a fleet made of its events, beside what one worker makes of them that nobody disturbs."""

import asyncio

import duckdb
import pyarrow as pa
from machine import wait_for, wait_to_reach

from streamapp.agents.recovery import recover
from streamapp.core.ranges import RangeSet
from streamapp.topics.catalogue import DEAD, ENRICHED, RAW
from streamapp.topics.enriched import cover_of, decode
from streamapp.transport import Outgoing, open_admin, open_producer, open_reader

CONVERSATIONS_MAX = 10_000


class Calm:
    """Takes the records of another log in the same order, enriches them, and compares.

    Args:
        fleet: of its own, whose worker is about to run.
    """

    def __init__(self, fleet):
        self._fleet = fleet
        fleet.is_ready("worker")
        self._ends = {}

    def equals(self, fleet, sent):
        """Everything that was sent to the other fleet is there once, and as it would be here.

        Args:
            fleet: the one that was disturbed, and is left alone now.
            sent: what its log took, as :class:`fleet.Sent`.
        """
        raw = asyncio.run(records(fleet.broker, RAW))
        ends = {partition: len(found) for partition, found in raw.items()}
        wait_to_reach(lambda: stored(fleet), ends, "the store")
        fleet.nobody_died()
        asyncio.run(self._follow(raw))
        wait_to_reach(self._done, ends, "the calm worker")

        _every_id_once(fleet, sent, raw)
        _equal_rows(fleet, asyncio.run(rows(self._fleet.broker)))
        _dead_complete(fleet, sent, raw, asyncio.run(records(fleet.broker, DEAD)))
        assert asyncio.run(covered(fleet.broker)) == ends
        assert asyncio.run(states(fleet.broker)) == asyncio.run(states(self._fleet.broker))
        _frames_once(fleet)
        wait_for(lambda: asyncio.run(lag(fleet.broker)) == 0, "the groups' lag to be 0")

    def _done(self):
        committed = asyncio.run(committed_by("streamapp-enrich", self._fleet.broker))
        return {partition: next_ for (_, partition), next_ in committed.items()}

    async def _follow(self, raw):
        """Append what is new, to the same offsets."""
        producer = open_producer(self._fleet.broker)
        await producer.start()
        try:
            for partition, found in raw.items():
                new = found[self._ends.get(partition, 0) :]
                addresses = await producer.send(RAW, [_copy(one, partition) for one in new])
                assert [a.offset for a in addresses] == [one.offset for one in new]
                self._ends[partition] = len(found)
        finally:
            await producer.stop()


def _copy(record, partition):
    return Outgoing(record.value, record.key, record.headers, partition, record.timestamp)


def all_stored(fleet):
    """Return when what the log has now is in the store."""
    ends = asyncio.run(bounds(fleet.broker, RAW))

    def passed():
        there = stored(fleet)
        return all(there[partition] >= end for partition, end in ends.items())

    wait_for(passed, f"the store to reach {ends}")


def stored(fleet):
    """By partition, up to where the store has everything."""
    done = {}
    for row in fleet.rows("select partition, first, next from ledger"):
        done.setdefault(row["partition"], RangeSet()).add(row["first"], row["next"])
    return {partition: done.get(partition, RangeSet()).prefix_end(0) for partition in range(4)}


def _every_id_once(fleet, sent, raw):
    ids = [row["id"] for row in fleet.rows("select id from events")]
    assert len(ids) == len(set(ids))
    wanted = {one.id for one in sent if one.id}
    lost = wanted - set(ids)
    assert not lost, f"lost: {_addresses(lost, raw)}"
    more = set(ids) - wanted
    assert not more, f"nobody sent them: {_addresses(more, raw)}"


def _addresses(ids, raw):
    """Where the log has events."""
    texts = [f'"{id_}"'.encode() for id_ in sorted(ids)]
    return [
        (partition, record.offset, text.decode())
        for text in texts[:20]
        for partition, found in raw.items()
        for record in found
        if record.value and text in record.value
    ]


def _equal_rows(fleet, theirs):
    """Bit for bit, every column, but for the provenance's number."""
    ours = fleet.query(
        "select e.* exclude (provenance), p.detail from events e"
        " join provenance p on e.provenance = p.id"
    )
    names = ", ".join(theirs.column_names)
    with duckdb.connect() as duck:
        duck.register("ours", ours)
        duck.register("theirs", theirs)
        differ = duck.sql(
            f"(select 'only here' as which, * from (select {names} from ours except all"
            f" select {names} from theirs)) union all (select 'only calm' as which, * from"
            f" (select {names} from theirs except all select {names} from ours))"
            " order by source_partition, source_offset limit 6"
        ).fetchall()
    assert not differ, "\n".join(map(str, differ))
    assert set(ours.column_names) == set(theirs.column_names)


def _dead_complete(fleet, sent, raw, letters):
    """Every event that is no row is dead, with its bytes, at its address, and on the log too."""
    stored = {
        (row["source_partition"], row["source_offset"]): (row["key"], row["value"], row["headers"])
        for row in fleet.rows("select * from dead")
    }
    counted = fleet.rows("select count(*) as n from dead")
    assert counted == [{"n": len(stored)}]
    for (partition, offset), dead in stored.items():
        record = raw[partition][offset]
        headers = [{"name": name, "value": value} for name, value in record.headers]
        assert dead == (record.key, record.value, headers)
    bad = {one.record.value for one in sent if one.id is None}
    assert {value for _, value, _ in stored.values()} == bad
    assert {letter.value for letter in letters[0]} == bad


def _frames_once(fleet):
    """Every row is one frame of the ring."""
    stored = sorted(
        (row["p"], row["o"])
        for row in fleet.rows("select source_partition as p, source_offset as o from events")
    )
    wait_for(lambda: len(fleet.frames()[0]) >= len(stored), "every row to be a frame")
    frames, lost = fleet.frames()
    assert not lost
    assert sorted(frames) == stored


# What a log holds


async def bounds(url, topic):
    """Where each partition ends."""
    async with _Reading(url, topic) as (reader, partitions):
        return {partition: (await reader.bounds(topic, partition))[1] for partition in partitions}


async def records(url, topic):
    """Every record of a topic, by partition."""
    async with _Reading(url, topic) as (reader, partitions):
        found = {}
        for partition in partitions:
            at, end = await reader.bounds(topic, partition)
            found[partition] = []
            while at < end:
                slice_ = await reader.read(topic, partition, at, wait_ms_max=1000)
                found[partition] += slice_.records
                at = slice_.range.next
        return found


async def covered(url):
    """By partition, up to where the enriched topic answers for the source without a hole."""
    ends = {}
    for partition, found in (await records(url, ENRICHED)).items():
        done = RangeSet()
        for record in found:
            cover = cover_of(record)
            done.add(cover.first, cover.next)
        ends[partition] = done.prefix_end(0)
    return ends


async def rows(url):
    """The rows of the enriched topic as the store has them, with source and provenance."""
    tables = []
    for partition, found in (await records(url, ENRICHED)).items():
        for enriched in map(decode, found):
            count = enriched.rows.num_rows
            if count:
                table = pa.Table.from_batches([enriched.rows])
                table = table.append_column("source_topic", pa.array([RAW] * count))
                table = table.append_column(
                    "source_partition", pa.array([partition] * count, pa.int32())
                )
                tables.append(
                    table.append_column("detail", pa.array([enriched.provenance] * count))
                )
    return pa.concat_tables(tables)


async def states(url):
    """By partition, what a worker that takes it over would know."""
    async with _Reading(url, ENRICHED) as (reader, partitions):
        found = {}
        for partition in partitions:
            standing = await recover(reader, (RAW, partition), ENRICHED, CONVERSATIONS_MAX)
            lately = standing.repeats.entry(0).value
            found[partition] = standing.next, standing.state.snapshot(), lately
        return found


async def committed_by(group, url):
    """By topic and partition, what a group has acknowledged."""
    admin = open_admin(url)
    await admin.start()
    try:
        return await admin.committed(group)
    finally:
        await admin.stop()


async def lag(url):
    """What worker and store have not acknowledged, in records."""
    behind = 0
    for topic, group in ((RAW, "streamapp-enrich"), (ENRICHED, "streamapp-store")):
        committed = await committed_by(group, url)
        ends = await bounds(url, topic)
        behind += sum(end - committed.get((topic, at), 0) for at, end in ends.items())
    return behind


class _Reading:
    """A started reader, and the topic's partitions."""

    def __init__(self, url, topic):
        self._reader, self._admin, self._topic = open_reader(url), open_admin(url), topic

    async def __aenter__(self):
        await self._admin.start()
        try:
            partitions = (await self._admin.topics())[self._topic].partitions
        finally:
            await self._admin.stop()
        await self._reader.start()
        return self._reader, range(partitions)

    async def __aexit__(self, *_):
        await self._reader.stop()
