"""Members of Kafka's consumer groups (see :mod:`streamapp.transport.clients`).

aiokafka's group coordinator without its fetcher: it joins, beats and assigns ("range", as Java's
consumers do by default, so that a group can be shared with them); records are read by a Reader.
Each member has connections of its own: a broker answers one connection's requests in turn, and a
join waits for the other members.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from streamapp.core.errors import Refuse
from streamapp.transport.clients import Held, OnRevoke, moved
from streamapp.transport.kafka.address import hosts_of
from streamapp.transport.kafka.connection import PATIENCE_S_MAX, Connection
from streamapp.transport.kafka.errors import is_final
from streamapp.transport.security import Security

SESSION_MS = 10_000
_BEAT_MS = 1_000
#: Who does not read for long is put out by whoever owns the member, not by aiokafka.
_NEVER_IDLE_MS = 1 << 31
_NO_GENERATION, _AS_BROKERS_ARE_SET = -1, -1
_NOT_A_MEMBER = (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError)
_log = logging.getLogger("streamapp.transport.kafka")


class KafkaMembers:
    """Makes members; ``url`` and ``security`` as of the admin."""

    def __init__(self, url: str, security: Security | None = None) -> None:
        hosts_of(url)
        self._url, self._security = url, security

    async def start(self) -> None:
        """Nothing: members connect."""

    async def stop(self) -> None:
        """Nothing: members have stopped before."""

    def member(self, group: str, on_revoke: OnRevoke) -> "KafkaMember":
        return KafkaMember(Connection(self._url, self._security), group, on_revoke)


class KafkaMember:
    """One member, on a connection of its own."""

    def __init__(self, connection: Connection, group: str, on_revoke: OnRevoke) -> None:
        self._connection = connection
        self._group = group
        self._on_revoke = on_revoke
        self._subscription = SubscriptionState()
        self._subscription.register_fetch_waiters(set())  # a fetcher would; else no error is told
        self._coordinator: Any = None
        self._held: Held | None = None
        self._settled = asyncio.Event()

    async def start(self) -> None:
        await self._connection.start()

    async def stop(self) -> None:
        await self._leave()
        await self._connection.stop()

    async def subscribe(self, topics: Collection[str]) -> None:
        if not topics:
            await self._leave()
            return
        self._lose()
        self._subscription.subscribe(set(topics), listener=_Listener(self))
        client = self._connection.client
        client.set_topics(topics)
        if self._coordinator is None:
            self._coordinator = GroupCoordinator(
                client,
                self._subscription,
                group_id=self._group,
                session_timeout_ms=SESSION_MS,
                heartbeat_interval_ms=_BEAT_MS,
                enable_auto_commit=False,
                assignors=(RangePartitionAssignor,),
                max_poll_interval_ms=_NEVER_IDLE_MS,
            )

    async def held(self, wait_s_max: float = 0) -> Held | None:
        if self._coordinator is None:
            return None
        if wait_s_max > 0 and not self._settled.is_set():
            try:
                async with asyncio.timeout(wait_s_max):
                    await self._settled.wait()
            except TimeoutError:
                self._check()
        else:
            self._check()
        return self._held

    async def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        if not offsets:
            return
        what = f"a commit of group {self._group[:120]!r}"
        if self._coordinator is None:
            await self._connection.persist(lambda: self._commit_alone(offsets), what)
            return
        subscription = self._subscription.subscription
        if self._held is None or subscription is None or subscription.assignment is None:
            raise moved(self._group)
        found = {TopicPartition(*at): OffsetAndMetadata(next_, "") for at, next_ in offsets.items()}
        try:
            async with asyncio.timeout(PATIENCE_S_MAX):
                await self._coordinator.commit_offsets(subscription.assignment, found)
        except CommitFailedError:
            raise moved(self._group) from None
        except (KafkaError, TimeoutError) as error:
            raise self._connection.error(error, what) from error

    def take(self, partitions: Collection[TopicPartition]) -> None:
        """The group has given these to this member."""
        found = frozenset((at.topic, at.partition) for at in partitions)
        self._held = Held(self._coordinator.generation, found)
        self._settled.set()

    async def give_back(self) -> None:
        """The group distributes its partitions anew."""
        if self._held is not None:
            await self._on_revoke(self._held)
        self._lose()

    def _lose(self) -> None:
        self._held = None
        self._settled.clear()

    async def _leave(self) -> None:
        coordinator, self._coordinator = self._coordinator, None
        self._lose()
        if coordinator is not None:
            await coordinator.close()
            self._subscription.unsubscribe()

    def _check(self) -> None:
        """Raise what the coordinator waits to tell; errors that pass it tries again after that."""
        try:
            self._coordinator.check_errors()
        except InconsistentGroupProtocolError:
            raise Refuse(
                "group.kind",
                f"group {self._group[:120]!r} is that of another kind of consumer",
                "use a group of your own",
            ) from None
        except KafkaError as error:
            if is_final(error):
                what = f"group {self._group[:120]!r}"
                raise self._connection.error(error, what) from error
            _log.warning("group %r: %s", self._group, error)

    async def _commit_alone(self, offsets: Mapping[tuple[str, int], int]) -> None:
        by_topic: dict[str, list[tuple[int, int, str]]] = {}
        for (topic, partition), next_ in offsets.items():
            by_topic.setdefault(topic, []).append((partition, next_, ""))
        request = OffsetCommitRequest(
            self._group, _NO_GENERATION, "", _AS_BROKERS_ARE_SET, list(by_topic.items())
        )
        answer = await self._connection.ask_coordinator(self._group, request)
        for topic, partitions in answer.topics:
            for _, code in partitions:
                error = for_code(code)
                if error in _NOT_A_MEMBER:
                    raise Refuse(
                        "group.busy", f"group {self._group[:120]!r} has members", "commit as one"
                    )
                if error.errno:
                    raise error(topic)


class _Listener(ConsumerRebalanceListener):
    """aiokafka's calls; it takes no other class."""

    def __init__(self, member: KafkaMember) -> None:
        self._member = member

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:  # noqa: ARG002
        await self._member.give_back()

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._member.take(assigned)
