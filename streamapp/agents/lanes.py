"""A member of a consumer group, and a lane for each partition that the group gives it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from streamapp.core.errors import Retry
from streamapp.transport.clients import Admin, Held, Members, Producer, Reader

_HELD_S = 0.5
#: What a lane may take to end before the group's partitions go to others.
_REVOKE_S = 5.0
logger = logging.getLogger("streamapp")


@dataclass(frozen=True, slots=True)
class Log:
    """The clients, all started."""

    reader: Reader
    producer: Producer
    admin: Admin
    members: Members


class Lane(Protocol):
    """One partition's work."""

    def stop(self) -> None:
        """Take nothing more, finish what is under way, and end."""
        ...

    async def run(self) -> None:
        """Until stopped or cancelled."""
        ...


class Lanes:
    """Lanes over one topic.

    Args:
        log: its clients.
        group: whose member this is.
        topic: what the group reads.
        lane: makes the one of a partition.
        told: who it is, for the log.
        idle: awaited while nothing changes, for so many seconds at most.
    """

    def __init__(
        self,
        log: Log,
        group: str,
        topic: str,
        lane: Callable[[int], Lane],
        told: str,
        idle: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._log, self._group, self._topic = log, group, topic
        self._lane, self._told, self._idle = lane, told, idle
        self._member = log.members.member(group, self._revoked)
        self._lanes: dict[int, tuple[Lane, asyncio.Task[None]]] = {}
        self._generation: int | None = None
        self._stopping = False

    @property
    def holds(self) -> bool:
        """Whether the group has told what is ours."""
        return self._generation is not None

    async def run(self) -> None:
        """Until stopped or cancelled, or a lane ends with an error of ours.

        Raises:
            StreamappError: Halt or Refuse of a lane.
        """
        await self._member.start()
        await self._member.subscribe([self._topic])
        while not self._stopping:
            held = await self._held()
            for _, task in self._lanes.values():
                if task.done():
                    task.result()  # an error of ours ends the process
            if held is None:
                if self.holds:
                    await self._end()
                await asyncio.sleep(0.05)
            elif held.generation != self._generation:
                await self._end()
                self._begin(held)
            else:
                await self._idle(_HELD_S)

    async def finish(self) -> None:
        """End the lanes after what is under way."""
        self._stopping = True
        for lane, _ in self._lanes.values():
            lane.stop()
        await asyncio.gather(*(task for _, task in self._lanes.values()), return_exceptions=True)

    async def leave(self) -> None:
        """Leave the group."""
        await self._member.stop()

    async def committed(self, partition: int) -> int | None:
        """The group's offset of a partition; None: it never committed one."""
        return (await self._log.admin.committed(self._group)).get((self._topic, partition))

    async def commit(self, partition: int, offset: int) -> None:
        """As a member; what the group moved meanwhile is its next owner's to commit."""
        try:
            await self._member.commit({(self._topic, partition): offset})
        except Retry as error:
            if error.code != "group.moved":
                raise

    async def _held(self) -> Held | None:
        try:
            return await self._member.held(_HELD_S)
        except Retry as error:
            logger.warning("%s: %s", self._told, error)
            return None

    def _begin(self, held: Held) -> None:
        if self._stopping:
            return
        self._generation = held.generation
        for _, partition in sorted(held.partitions):
            lane = self._lane(partition)
            self._lanes[partition] = lane, asyncio.create_task(lane.run())

    async def _revoked(self, _held: Held) -> None:
        await self._end()

    async def _end(self) -> None:
        lanes, self._lanes, self._generation = self._lanes, {}, None
        for lane, _ in lanes.values():
            lane.stop()
        tasks = [task for _, task in lanes.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_REVOKE_S)
            for task in late:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    raise outcome


async def stop_within(wait_s_max: float, *finishing: Awaitable[object]) -> None:
    """Await what finishes, not longer than that."""
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s_max):
            await asyncio.gather(*finishing, return_exceptions=True)
