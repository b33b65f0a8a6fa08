"""Consumer instances: what a client of the REST consumer has between its requests.

An instance is a member of its group of its own, so Kafka (or the embedded log's groups) says which
partitions are its; its records are read by the gateway's Reader from positions kept here.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from streamapp.core.clock import Clock
from streamapp.core.errors import Refuse, Retry
from streamapp.core.slice import RecordLike
from streamapp.gateway.budget import Lease
from streamapp.gateway.confluent.errors import (
    ALREADY_SUBSCRIBED,
    ILLEGAL_STATE,
    ConfluentError,
)
from streamapp.transport.clients import Admin, Held, Member, Members, Reader

Place = tuple[str, int]
#: Read of one partition at a time, so that a request's memory is counted as it grows.
_STEP_BYTES = 1 << 20
_STEP_RECORDS = 1000
#: A wait for records looks this often whether the group has moved.
_LOOK_S = 0.5
_PAUSE_S = 0.02
_TO_JOIN_S = 0.2
#: Read by hand beside the group's members, or by a member before the group moved on.
_OTHERS_TO_COMMIT = frozenset({"group.busy", "group.kind", "group.moved"})


class Log(NamedTuple):
    """The clients that instances need."""

    reader: Reader
    admin: Admin
    members: Members


@dataclass(frozen=True, slots=True)
class Options:
    """What a client asked of its instance.

    ``strimzi``: it was created in the words of Strimzi's bridge, and is answered in them.
    """

    format: str = "binary"
    reset: str = "latest"
    auto_commit: bool = False
    timeout_s: float = 300.0
    wait_ms: int = 1000
    strimzi: bool = False


@dataclass(slots=True)
class Found:
    """Records of one answer, and the positions behind them."""

    records: list[tuple[str, int, RecordLike]] = field(default_factory=list)
    generation: int | None = None

    def positions(self) -> dict[Place, int]:
        """One past the last record of each partition."""
        return {(topic, part): record.offset + 1 for topic, part, record in self.records}


class Instance:
    """One instance.  Its owner holds ``lock`` round every call."""

    def __init__(self, group: str, options: Options, log: Log, clock: Clock) -> None:
        self.options = options
        self.lock = asyncio.Lock()
        self.topics: frozenset[str] = frozenset()
        self.closing = asyncio.Event()
        self._group = group
        self._log = log
        self._clock = clock
        self._member: Member = log.members.member(group, self._revoked)
        self._manual: frozenset[Place] = frozenset()
        self._generation: int | None = None
        self._positions: dict[Place, int] = {}
        self._begun: dict[Place, int] = {}
        self._delivered: dict[Place, int] = {}
        self._turn = 0
        self._used_s = clock.monotonic_s()

    async def start(self) -> None:
        """Connect."""
        await self._member.start()

    def touch(self) -> None:
        """It was used now."""
        self._used_s = self._clock.monotonic_s()

    @property
    def expired(self) -> bool:
        """Whether nobody used it for longer than its timeout."""
        idle_s = self._clock.monotonic_s() - self._used_s
        return not self.lock.locked() and idle_s > self.options.timeout_s

    @property
    def reads(self) -> frozenset[str]:
        """The topics that it is subscribed to, or has partitions of."""
        return self.topics or frozenset(topic for topic, _ in self._manual)

    async def close(self, *, commit: bool) -> None:
        """Leave the group; ``commit`` what was delivered if it commits by itself."""
        try:
            if commit:
                with suppress(Retry):  # it comes again, to another instance
                    await self._auto_commit()
        finally:
            await self._member.stop()

    # -- what it reads

    async def subscribe(self, topics: Collection[str]) -> None:
        """Take part in the group's reading of these topics."""
        if self._manual:
            raise ConfluentError(
                ILLEGAL_STATE,
                "Illegal state: Subscription to topics, partitions and pattern are mutually"
                " exclusive",
            )
        if frozenset(topics) == self.topics:
            return
        await self._auto_commit()
        await self._member.subscribe(topics)
        self.topics = frozenset(topics)
        self._forget()

    async def unsubscribe(self) -> None:
        """Leave the group, and drop what was assigned by hand."""
        await self._auto_commit()
        await self._member.subscribe(())
        self.topics = frozenset()
        self._manual = frozenset()
        self._forget()

    async def subscribe_once(self, topic: str) -> None:
        """v1: reading a topic subscribes to it, once for all.

        Raises:
            ConfluentError: 40901 another was read before.
        """
        if self.topics and self.topics != {topic}:
            raise ConfluentError(
                ALREADY_SUBSCRIBED,
                "Consumer cannot subscribe the the specified target because it has already"
                " subscribed to other topics.",
            )
        await self.subscribe([topic])

    async def assign(self, partitions: Collection[Place]) -> None:
        """Read these, whatever others of the group read."""
        if self.topics:
            raise ConfluentError(
                ILLEGAL_STATE,
                "Illegal state: Subscription to topics, partitions and pattern are mutually"
                " exclusive",
            )
        await self._auto_commit()
        self._manual = frozenset(partitions)
        self._forget()

    async def assignment(self) -> frozenset[Place]:
        """What it reads now."""
        return await self._places(_TO_JOIN_S)

    # -- records

    async def read(self, bytes_max: int, wait_ms: int, lease: Lease, cut: asyncio.Event) -> Found:
        """The next records; none when none came in time, or ``cut`` is set.

        What is found is held by ``lease`` and counts only once :meth:`delivered` was called.

        Raises:
            ConfluentError: 40903 it is not subscribed.
            ProblemError: 429.
        """
        if not self.topics and not self._manual:
            raise ConfluentError(
                ILLEGAL_STATE,
                "Illegal state: Consumer is not subscribed to any topics or assigned any"
                " partitions",
            )
        with suppress(Retry):  # a commit that failed: what was delivered may come again
            await self._auto_commit()
        until_s = self._clock.monotonic_s() + wait_ms / 1000
        while True:
            left_s = until_s - self._clock.monotonic_s()
            places = await self._places(max(min(left_s, _LOOK_S), 0))
            found = await self._sweep(sorted(places), bytes_max, lease)
            moved = await self._places(0) != places or found.generation != self._generation
            if found.records and not moved:
                return found
            left_s = until_s - self._clock.monotonic_s()
            if left_s <= 0 or cut.is_set() or self.closing.is_set():
                return Found(generation=self._generation)
            if places and not moved:
                await self._news(places, min(left_s, _LOOK_S), cut)
            else:  # the group distributes its partitions: others must have a turn for that
                await asyncio.sleep(_PAUSE_S)

    def delivered(self, found: Found, count: int) -> None:
        """The first ``count`` records were sent to the client."""
        if found.generation == self._generation:
            sent = Found(found.records[:count]).positions()
            self._positions |= sent
            self._delivered |= sent

    # -- positions and commits

    async def commit(self, offsets: Mapping[Place, int] | None) -> None:
        """Commit these (each one past the last record done), or what was delivered.

        Raises:
            Retry: ``group.moved`` the group took back what was delivered, or no answer.
            Refuse: ``group.busy`` read by hand, beside members.
        """
        if offsets is None and self._delivered and self.topics:
            held = await self._member.held()
            if held is None or held.generation != self._generation:
                raise Retry(
                    "group.moved",
                    "the group distributes its partitions anew",
                    "read again: what was not committed comes again",
                )
        done = dict(self._delivered if offsets is None else offsets)
        await self._member.commit(done)
        for place, next_ in done.items():
            if self._delivered.get(place, -1) <= next_:
                self._delivered.pop(place, None)

    async def committed(self) -> Mapping[Place, int]:
        """What the group committed."""
        return await self._log.admin.committed(self._group)

    async def seek(self, offsets: Mapping[Place, int]) -> None:
        """Go on from these offsets.

        Raises:
            ConfluentError: 40903 a partition that this instance does not have.
        """
        await self._own(offsets)
        self._positions |= offsets

    async def seek_to(self, places: Collection[Place], *, end: bool) -> None:
        """Go on from the first record that is kept, or behind the last."""
        await self._own(places)
        for place in places:
            self._positions[place] = (await self._log.reader.bounds(*place))[end]

    # -- inside

    async def _own(self, places: Collection[Place]) -> None:
        held = await self._places(_TO_JOIN_S)
        for topic, partition in places:
            if (topic, partition) not in held:
                raise ConfluentError(
                    ILLEGAL_STATE,
                    f"Illegal state: No current assignment for partition {topic[:120]}-{partition}",
                )

    async def _places(self, wait_s_max: float) -> frozenset[Place]:
        if not self.topics:
            return self._manual
        held = await self._member.held(wait_s_max)
        if held is None:
            return frozenset()
        if held.generation != self._generation:
            self._forget()
            self._generation = held.generation
        return held.partitions

    def _forget(self) -> None:
        self._positions.clear()
        self._delivered.clear()
        self._generation = None

    async def _revoked(self, held: Held) -> None:
        """The group takes what this one holds; what it delivered is committed before."""
        if held.generation == self._generation:
            with suppress(Retry):
                await self._auto_commit()

    async def _auto_commit(self) -> None:
        if not self.options.auto_commit or not self._delivered:
            return
        try:
            await self.commit(None)
        except (Refuse, Retry) as error:
            if error.code not in _OTHERS_TO_COMMIT:
                raise

    async def _sweep(self, places: list[Place], bytes_max: int, lease: Lease) -> Found:
        """What there is now, of one partition after the other, another one first each time."""
        await self._position(places)
        found = Found(generation=self._generation)
        self._turn += 1
        first = self._turn % max(len(places), 1)
        left = bytes_max
        for place in places[first:] + places[:first]:
            at = self._positions.get(place)
            while at is not None and left > 0:
                slice_ = await self._log.reader.read(
                    *place, at, records_max=_STEP_RECORDS, bytes_max=min(left, _STEP_BYTES)
                )
                if not slice_.records:
                    if at == self._positions.get(place):  # only what the log skips
                        self._positions[place] = slice_.range.next
                    break
                size = sum(len(r.value or b"") + len(r.key or b"") for r in slice_.records)
                lease.take(nbytes=size)
                left -= size
                found.records += [(*place, record) for record in slice_.records]
                at = slice_.range.next
        return found

    async def _position(self, places: Collection[Place]) -> None:
        """Where to begin: where the group committed, or as ``auto.offset.reset`` says.

        That is said once and kept: the end is elsewhere when the group has moved a partition.
        """
        fresh = [place for place in places if place not in self._positions]
        if not fresh:
            return
        committed = await self.committed()
        for place in fresh:
            begin, end = await self._log.reader.bounds(*place)
            at = committed.get(place, -1)
            if not begin <= at <= end:
                reset = begin if self.options.reset == "earliest" else end
                at = min(max(self._begun.setdefault(place, reset), begin), end)
                self._delivered[place] = at
            self._positions[place] = at
        with suppress(Retry):
            await self._auto_commit()

    async def _news(self, places: Collection[Place], wait_s_max: float, cut: asyncio.Event) -> None:
        """Wait until there is a record to read, or ``cut`` or ``closing`` is set."""
        tasks: list[asyncio.Task[object]] = [
            asyncio.create_task(cut.wait()),
            asyncio.create_task(self.closing.wait()),
            *self._reads(places, int(wait_s_max * 1000)),
        ]
        try:
            await asyncio.wait(tasks, timeout=wait_s_max, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _reads(self, places: Collection[Place], wait_ms: int) -> Iterator[asyncio.Task[object]]:
        for place in places:
            read = self._log.reader.read(
                *place, self._positions[place], records_max=1, bytes_max=1, wait_ms_max=wait_ms
            )
            yield asyncio.create_task(read)
