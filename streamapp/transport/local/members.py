"""Plain members of the embedded log's consumer groups (see :mod:`streamapp.transport.clients`).

Partitions are given out as Kafka's range assignor does: topic by topic, in the order of members.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping

import msgspec

from streamapp.core.errors import Refuse, Retry, StreamappError
from streamapp.transport.clients import Held, OnRevoke, moved
from streamapp.transport.local.clients import LocalClient
from streamapp.transport.local.engine import LocalLog
from streamapp.transport.local.groups import PLAIN
from streamapp.transport.local.membership import Membership
from streamapp.transport.local.wake import GROUPS, LOOK_EVERY_S, heard_within

#: How long a distribution waits for one member to give back what it holds.
PATIENCE_S = 10.0
_log = logging.getLogger("streamapp.transport.local")
_topics = msgspec.json.Decoder(list[str])
_partitions = msgspec.json.Decoder(list[tuple[str, int]])


class LocalMembers(LocalClient):
    """Makes members; they share one open log."""

    def member(self, group: str, on_revoke: OnRevoke) -> "LocalMember":
        return LocalMember(self._log, group, on_revoke)


class LocalMember:
    """One member; a task of its own follows the group."""

    def __init__(self, log: LocalLog, group: str, on_revoke: OnRevoke) -> None:
        self._log = log
        self._group = group
        self._on_revoke = on_revoke
        self._topics: frozenset[str] = frozenset()
        self._asks_anew = False
        self._held: Held | None = None
        self._fault: StreamappError | None = None
        self._stirred = asyncio.Event()
        self._settled = asyncio.Event()
        self._membership: Membership | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Nothing: there is no connection to make."""

    async def stop(self) -> None:
        task, self._task = self._task, None
        membership, self._membership = self._membership, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._held = self._fault = None
        self._settled.clear()
        if membership is not None:
            await membership.leave()

    async def subscribe(self, topics: Collection[str]) -> None:
        for topic in topics:
            self._log.require(topic)
        self._topics = frozenset(topics)
        if not topics or self._fault is not None:
            await self.stop()
        if not topics:
            return
        if self._task is not None:
            self._asks_anew = True
            self._settled.clear()
            self._stirred.set()
            return
        loop = asyncio.get_running_loop()
        self._membership = Membership(
            self._log.folder,
            self._group,
            PATIENCE_S,
            lambda: loop.call_soon_threadsafe(self._stirred.set),
        )
        self._task = asyncio.create_task(self._follow_all(self._membership))

    async def held(self, wait_s_max: float = 0) -> Held | None:
        if wait_s_max > 0 and self._task is not None:
            await heard_within(self._settled, wait_s_max)
        if self._fault is not None:
            raise self._fault
        if self._task is not None and self._task.done():
            self._task.result()  # what nobody expected
        current = self._membership is not None and self._membership.is_current()
        return self._held if current and not self._asks_anew else None

    async def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        if not offsets:
            return
        if self._membership is None:
            if not await self._log.commit_alone(self._group, offsets):
                raise Refuse(
                    "group.busy", f"group {self._group[:120]!r} has members", "commit as one"
                )
            return
        held = self._held
        if held is None or not await self._membership.commit(held.generation, offsets):
            raise moved(self._group)

    async def _follow_all(self, membership: Membership) -> None:
        with self._log.listening([GROUPS]) as self._stirred:
            while True:
                self._stirred.clear()
                try:
                    went_on = await self._follow(membership)
                except Retry as error:
                    _log.warning("%s", error)
                    went_on = False
                except StreamappError as error:
                    self._fault = error
                    self._settled.set()
                    return
                if not went_on:
                    await heard_within(self._stirred, LOOK_EVERY_S)

    async def _follow(self, membership: Membership) -> bool:
        """Do the next thing the group asks of this member; False when that is nothing."""
        metadata = PLAIN + msgspec.json.encode(sorted(self._topics))
        standing = await membership.look() if membership.is_current() else None
        if standing is None or not standing.present:
            self._give_up()
            self._asks_anew = False
            await membership.join(metadata)
        elif self._asks_anew:
            await self._give_back()
            self._asks_anew = False
            await membership.restart()
        elif self._held is not None and self._held.generation != standing.generation:
            await self._give_back()
        elif not standing.ready:
            await membership.ready(standing.generation, metadata)
        elif standing.turn is not None:
            await membership.assign(standing.generation, self._distributed(standing.turn))
        elif self._held is None and standing.assignment is not None:
            if await membership.take(standing.generation):
                partitions = frozenset(_partitions.decode(standing.assignment))
                self._held = Held(standing.generation, partitions)
                self._settled.set()
        else:
            return False
        return True

    def _give_up(self) -> None:
        self._held = None
        self._settled.clear()

    async def _give_back(self) -> None:
        if self._held is not None:
            await self._on_revoke(self._held)
        self._give_up()

    def _distributed(self, turn: Mapping[str, bytes]) -> dict[str, bytes]:
        """Each member's partitions, as JSON."""
        wants = {name: _topics.decode(data.removeprefix(PLAIN)) for name, data in turn.items()}
        shares: dict[str, list[tuple[str, int]]] = {name: [] for name in wants}
        for topic in sorted({topic for topics in wants.values() for topic in topics}):
            takers = sorted(name for name, topics in wants.items() if topic in topics)
            spec = self._log.spec(topic)
            count = spec.partitions if spec is not None else 0  # deleted meanwhile
            for partition in range(count):
                shares[takers[partition * len(takers) // count]].append((topic, partition))
        return {name: msgspec.json.encode(share) for name, share in shares.items()}
