"""Faust's consumer on the local log: the only member of its group."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from faust.types import TP
from mode import Service

from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Halt, Retry
from streamapp.core.slice import Slice
from streamapp.transport.acks import RangedConsumer, partitions_of, slices_of
from streamapp.transport.local.assign import assign
from streamapp.transport.local.clients import partition_of
from streamapp.transport.local.engine import Wanted
from streamapp.transport.local.groups import Membership
from streamapp.transport.local.wake import heard_within

#: Records of one fetch from a topic that is not coalesced, when the app does not say.
RECORDS_MAX = 500

#: Pause before reading again after the log did not answer.
RETRY_S = 1.0


class Consumer(RangedConsumer):
    """Reads all partitions of the subscribed topics, as its group's only member."""

    consumer_stopped_errors: ClassVar[tuple[type[BaseException], ...]] = ()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._log = self.transport.log
        self._membership: Membership | None = None
        self._open = False
        self._topics: frozenset[str] = frozenset()
        self._subscribed = asyncio.Event()
        self._generation = 0
        self._assigned: set[TP] = set()
        self._positions: dict[TP, int] = {}
        self._ends: dict[TP, int] = {}
        self._news = asyncio.Event()

    # -- life

    async def on_start(self) -> None:
        await self.transport.open_log()
        self._open = True
        if not self.app.client_only:
            self._membership = self._log.join(self.app.conf.id)
        await super().on_start()

    async def on_shutdown(self) -> None:
        await super().on_shutdown()
        if self._membership is not None:
            self._membership.leave()
        if self._open:
            self._open = False
            await self.transport.close_log()

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Take part in these topics; they are created where they do not exist."""
        self._topics = frozenset(topics)
        for topic in self._topics:
            await self.transport.declare(topic)
        if self.app.client_only:
            await self._assign_client()
        else:
            self._subscribed.set()

    @Service.task
    async def _rebalancer(self) -> None:
        # Faust waits in the assignment callback until subscribe() has returned, hence a task.
        while not self.should_stop:
            await self._subscribed.wait()
            self._subscribed.clear()
            await self._rebalance()

    async def _rebalance(self) -> None:
        self.app.on_rebalance_start()
        await self.on_partitions_revoked(set(self._assigned))
        self._positions.clear()
        self._generation += 1
        self.app.consumer_generation_id = self._generation
        self._assigned = assign(self.app, self._partition_counts())
        await self.on_partitions_assigned(set(self._assigned), self._generation)

    async def _assign_client(self) -> None:
        """A client has no group: it reads what it subscribed to and commits nothing."""
        counts = self._partition_counts()
        self._assigned = {TP(topic, p) for topic, number in counts.items() for p in range(number)}
        fresh = self._assigned - self._positions.keys()
        self._positions |= await self._reset_positions(fresh)
        self._news.set()

    def _partition_counts(self) -> dict[str, int]:
        return {topic: self._log.require(topic).partitions for topic in self._topics}

    # -- positions

    async def _committed_positions(self, tps: set[TP]) -> dict[TP, int]:
        committed = await self._log.committed(self.app.conf.id)
        ends = await self._log.ends(partitions_of(tps))
        positions: dict[TP, int] = {}
        for tp in tps:
            if not self.app.topics.acks_enabled_for(tp.topic):
                if tp in self._positions:  # a changelog: Recovery has positioned it
                    positions[tp] = self._positions[tp]
            elif tp in committed:
                if committed[tp] <= ends[tp]:
                    positions[tp] = committed[tp]
                else:
                    self.log.warning(
                        "%s ends at %d but the group committed %d: starting over",
                        tp,
                        ends[tp],
                        committed[tp],
                    )
        return positions | await self._reset_positions(tps - positions.keys())

    async def _reset_positions(self, tps: set[TP]) -> dict[TP, int]:
        which = 1 if self.app.conf.consumer_auto_offset_reset == "latest" else 0
        return {tp: (await self._log.bounds(*tp))[which] for tp in tps}

    async def _check_positions(self, positions: Mapping[TP, int]) -> None:
        ends = await self._log.ends(partitions_of(positions))
        for tp, offset in positions.items():
            if not 0 <= offset <= ends[tp]:
                raise Halt(
                    "position.outside",
                    f"{tp.topic}-{tp.partition} ends at {ends[tp]}, but work is to go on"
                    f" at {offset}: the topic was deleted and made again",
                    f"restore {self._log.folder}, or remove the state that was built from it",
                )

    async def _seek(self, partition: TP, offset: int) -> None:
        self._positions[partition] = offset
        self._news.set()

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Position partitions (Recovery does, for changelogs)."""
        for tp, offset in partitions.items():
            await self._seek(tp, offset)
            self._read_offset[tp] = offset or None

    async def seek_to_beginning(self, *partitions: TP) -> None:
        """Position partitions at their first record."""
        for tp, offset in (await self.earliest_offsets(*partitions)).items():
            await self.seek(tp, offset)

    async def position(self, tp: TP) -> int | None:
        """The next offset to fetch."""
        return self._positions.get(tp)

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """First offset still kept."""
        return {tp: (await self._log.bounds(*tp))[0] for tp in partitions}

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """One past the last offset."""
        ends = await self._log.ends(partitions_of(partitions))
        return {tp: ends[tp] for tp in partitions}

    def highwater(self, tp: TP) -> int:
        """One past the last offset, as of the last fetch."""
        return self._ends.get(tp, 0)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        try:
            await self._log.commit(
                self.app.conf.id, {(tp.topic, tp.partition): o for tp, o in offsets.items()}
            )
        except Retry as error:  # the next commit says it again
            self.log.warning("%s", error)
            return False
        return True

    # -- fetching

    async def _getmany(
        self,
        active_partitions: set[TP] | None,
        timeout: float,  # noqa: ASYNC109  # Faust's name
    ) -> dict[TP, list[Slice]] | None:
        """Slices at the positions of the active partitions, as soon as there are any.

        None, and no position moved, when flow was suspended meanwhile: nothing was delivered, so
        there is no reason to go back to the committed offsets, as Faust otherwise does.
        """
        deadline = monotonic_s() + timeout
        with self._log.listening(self._topics) as self._news:
            while True:
                self._news.clear()
                fetched = await self._fetch(active_partitions)
                if not self.flow_active:
                    return None
                slices = self._advance(fetched)
                left_s = deadline - monotonic_s()
                if slices or left_s <= 0 or self.should_stop:
                    return slices
                await heard_within(self._news, left_s)

    async def _fetch(self, active: set[TP] | None) -> dict[TP, tuple[int, list[Any]]]:
        """What follows the positions, with the position it was read at."""
        options, conf = self.options, self.app.conf
        wanted = []
        for tp in sorted(self._assigned if active is None else self._assigned & active):
            position = self._positions.get(tp)
            if position is None or not self._may_fetch(tp):
                continue
            if tp.topic in options.coalesce:
                limits = options.batch_events_max, options.batch_bytes_max
            else:
                limits = conf.broker_max_poll_records or RECORDS_MAX, conf.consumer_max_fetch_size
            wanted.append(Wanted(tp.topic, tp.partition, position, *limits))
        try:
            fetched = await self._log.fetch(wanted)
        except Retry as error:
            self.log.warning("%s", error)
            await self.sleep(RETRY_S)
            return {}
        self._ends.update((TP(*key), end) for key, end in fetched.ends.items())
        read_at = {(want.topic, want.partition): want.offset for want in wanted}
        return {TP(*key): (read_at[key], records) for key, records in fetched.records.items()}

    def _advance(self, fetched: Mapping[TP, tuple[int, list[Any]]]) -> dict[TP, list[Slice]]:
        slices = {}
        for tp, (position, records) in fetched.items():
            if self._positions.get(tp) == position:  # nobody has moved it meanwhile
                self._positions[tp] = records[-1].offset + 1
                coalesce = tp.topic in self.options.coalesce
                slices[tp] = slices_of(tp, position, records, coalesce=coalesce)
        return slices

    def _room_again(self) -> None:
        self.loop.call_soon_threadsafe(self._news.set)

    # -- what else Faust asks

    def assignment(self) -> set[TP]:
        """The partitions this app reads."""
        return self._assigned

    def topic_partitions(self, topic: str) -> int | None:
        """The topic's number of partitions; None when there is no such topic."""
        spec = self._log.spec(topic)
        return None if spec is None else spec.partitions

    def key_partition(
        self, topic: str, key: bytes | None, partition: int | None = None
    ) -> int | None:
        """The partition of a key's records."""
        if partition is not None or key is None:
            return partition
        return partition_of(key, self._log.require(topic).partitions)

    async def create_topic(
        self,
        topic: str,
        partitions: int,
        replication: int,  # noqa: ARG002  # one copy
        **options: Any,
    ) -> None:
        """Create the topic if there is none."""
        await self.transport.declare(topic, partitions, **options)

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)
