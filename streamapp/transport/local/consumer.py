"""Faust's consumer on the local log: a member of its group."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from faust.types import TP
from mode import Service

from streamapp.core.errors import Halt, Retry
from streamapp.core.slice import Slice
from streamapp.transport.acks import partitions_of
from streamapp.transport.fetching import BatchingConsumer, Room
from streamapp.transport.gather import Fetched
from streamapp.transport.local.assign import assign, metadata, take
from streamapp.transport.local.engine import Wanted
from streamapp.transport.local.membership import Membership
from streamapp.transport.local.wake import GROUPS, LOOK_EVERY_S, heard_within
from streamapp.transport.routing import partition_of

#: Records of one fetch from a topic that is not coalesced, when the app does not say.
RECORDS_MAX = 500

#: Pause before reading again after the log did not answer.
RETRY_S = 1.0


class Consumer(BatchingConsumer):
    """Reads the partitions that its group assigned to it."""

    consumer_stopped_errors: ClassVar[tuple[type[BaseException], ...]] = ()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._log = self.transport.log
        self._membership: Membership | None = None
        self._open = False
        self._topics: frozenset[str] = frozenset()
        self._stirred = asyncio.Event()
        self._subscribed = False
        self._resubscribed = False
        #: The generation whose partitions are ours; 0 while we have given back what we had.
        self._holds = 0
        self._between = False
        self._assigned: set[TP] = set()
        self._positions: dict[TP, int] = {}
        self._ends: dict[TP, int] = {}
        self._news = asyncio.Event()

    # -- life

    async def on_start(self) -> None:
        await self.transport.open_log()
        self._open = True
        if not self.app.client_only:
            conf, loop = self.app.conf, asyncio.get_running_loop()
            self._membership = Membership(
                self._log.folder,
                conf.id,
                conf.broker_rebalance_timeout,
                lambda: loop.call_soon_threadsafe(self._stirred.set),
            )
        await super().on_start()

    async def on_shutdown(self) -> None:
        await super().on_shutdown()
        if self._membership is not None:
            try:
                await self._membership.leave()
            except Retry as error:  # the lease has ended, so the others notice all the same
                self.log.warning("%s", error)
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
            self._subscribed = self._resubscribed = True
            self._stirred.set()

    def is_current(self) -> bool:
        """False from the moment on when another member may have taken over what this one had.

        Cheap enough to be asked before every publication: no wait, no system call but one.
        """
        return self._membership is None or self._membership.is_current()

    # -- the group

    @Service.task
    async def _follower(self) -> None:
        # Faust waits in the assignment callback until subscribe() has returned, hence a task.
        if self._membership is None:
            return
        with self._log.listening([GROUPS]) as self._stirred:
            while not self.should_stop:
                self._stirred.clear()
                try:
                    moved = self._subscribed and await self._follow(self._membership)
                except Retry as error:
                    self.log.warning("%s", error)
                    moved = False
                if not moved:
                    await heard_within(self._stirred, LOOK_EVERY_S)

    async def _follow(self, membership: Membership) -> bool:
        """Do the next thing the group asks of this member; False when that is nothing."""
        if self.app.should_stop:  # it holds what it has until it has finished, then it leaves
            return False
        if not membership.is_current():
            await self._join(membership)
            return True
        standing = await membership.look()
        for pid in standing.put_out:
            self.log.warning("put process %d out of the group: ended, stopped or too slow", pid)
        if not standing.present:
            await self._join(membership)
        elif self._resubscribed:
            self._resubscribed = False
            await membership.restart()
        elif not self._between and standing.generation != self._holds:
            await self._give_back(standing.generation)
        elif not standing.ready:
            await membership.ready(standing.generation, metadata(self.app, self._topics))
        elif standing.turn is not None:
            plan = assign(self.app, standing.turn, self.topic_partitions)
            await membership.assign(standing.generation, plan)
        elif self._between and standing.assignment is not None:
            await self._take(membership, standing.generation, standing.assignment)
        else:
            return False
        return True

    async def _join(self, membership: Membership) -> None:
        """Become a member, or another one when this one was put out, with empty hands."""
        if self._holds:
            self.log.warning("this process was stopped or too slow: others have its partitions")
            # Nothing of before counts any more: it is not waited for, published or committed.
            self._unacked_messages.clear()
            await self._give_back(self._holds + 1)
        self._resubscribed = False
        await membership.join()

    async def _give_back(self, generation: int) -> None:
        """Finish what is in work, commit it, and hold nothing, for a generation to come."""
        self._between = True
        if not self.is_current():
            self.app.consumer_generation_id = generation
        self.app.on_rebalance_start()
        await self.on_partitions_revoked(set(self._assigned))
        self.app.consumer_generation_id = generation  # what is still in work now is nobody's
        self._assigned = set()
        self._positions.clear()
        self._holds = 0

    async def _take(self, membership: Membership, generation: int, assignment: bytes) -> None:
        if not await membership.take(generation):
            return
        self._between = False
        self._holds = self.app.consumer_generation_id = generation
        self._assigned = take(self.app, assignment)
        await self.on_partitions_assigned(set(self._assigned), generation)

    def _clean_unacked_messages(self) -> None:
        # Called while messages in work are waited for: for one that was put out there is no use.
        super()._clean_unacked_messages()
        if not self.is_current():
            self._unacked_messages.clear()

    async def _assign_client(self) -> None:
        """A client has no group: it reads what it subscribed to and commits nothing."""
        self._assigned = {
            TP(topic, partition)
            for topic in self._topics
            for partition in range(self._log.require(topic).partitions)
        }
        fresh = self._assigned - self._positions.keys()
        self._positions |= await self._reset_positions(fresh)
        self._news.set()

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
        if self._membership is None or not self._holds:
            return False
        try:
            done = await self._membership.commit(
                self._holds, {(tp.topic, tp.partition): next_ for tp, next_ in offsets.items()}
            )
        except Retry as error:  # the next commit says it again
            self.log.warning("%s", error)
            return False
        if not done:  # put out: the look that follows says so
            self._stirred.set()
        return done

    # -- fetching

    async def _getmany(
        self,
        active_partitions: set[TP] | None,
        timeout: float,  # noqa: ASYNC109  # Faust's name
    ) -> dict[TP, list[Slice]] | None:
        slices = await super()._getmany(active_partitions, timeout)
        return slices if self.is_current() else None

    async def _fetch(self, wanted: Mapping[TP, Room], wait_s: float) -> Mapping[TP, Fetched]:
        with self._log.listening(self._topics) as self._news:
            fetched = await self._read(wanted)
            if not fetched and wait_s > 0 and await heard_within(self._news, wait_s):
                fetched = await self._read(wanted)
        return fetched

    def _nudge(self) -> None:
        self.loop.call_soon_threadsafe(self._news.set)

    async def _read(self, wanted: Mapping[TP, Room]) -> dict[TP, Fetched]:
        asked = [
            Wanted(
                tp.topic,
                tp.partition,
                self._positions[tp],
                room.records_max or RECORDS_MAX,
                room.bytes_max or self.app.conf.consumer_max_fetch_size,
            )
            for tp, room in sorted(wanted.items())
            if tp in self._positions
        ]
        try:
            pieces, ends = await self._log.fetch(asked)
        except Retry as error:
            self.log.warning("%s", error)
            await self.sleep(RETRY_S)
            return {}
        self._ends.update((TP(*key), end) for key, end in ends.items())
        fetched = {}
        for key, piece in pieces.items():
            tp = TP(*key)
            if self._positions.get(tp) == piece.position:  # nobody has moved it meanwhile
                self._positions[tp] = piece.next
                fetched[tp] = piece
        return fetched

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
