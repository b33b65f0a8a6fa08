"""Admin of a Kafka cluster (see :mod:`streamapp.transport.clients`)."""

from collections.abc import Collection, Mapping
from functools import partial

from aiokafka.errors import (
    LeaderNotAvailableError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.admin import CreateTopicsRequest, DeleteRecordsRequest, ListGroupsRequest
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.metadata import MetadataRequest

from streamapp.transport.clients import Cluster, Copies, TopicSpec
from streamapp.transport.kafka.connection import REQUEST_MS_MAX, Connection
from streamapp.transport.kafka.topics import Topics, describe, settings_of
from streamapp.transport.routing import check_deletable, checked_spec, no_offset
from streamapp.transport.security import Security

_AS_BROKERS_ARE_SET = -1


class KafkaAdmin:
    """Topics and groups.

    Args:
        url: ``kafka+batch://host:port[,host:port...]``.
        security: how to connect; in the clear without it.
        replication: copies of each partition of a topic that is created; None: as many as the
        brokers are set to keep.
    """

    def __init__(
        self, url: str, security: Security | None = None, *, replication: int | None = None
    ) -> None:
        self._connection = Connection(url, security)
        self._replication = _AS_BROKERS_ARE_SET if replication is None else replication

    async def start(self) -> None:
        await self._connection.start()

    async def stop(self) -> None:
        await self._connection.stop()

    async def topics(self) -> Mapping[str, TopicSpec]:
        """All but Kafka's own."""
        return await self._connection.persist(lambda: describe(self._connection), "its topics")

    async def create(self, spec: TopicSpec) -> bool:
        made = await self._connection.persist(
            lambda: self._create(spec), f"a new topic {spec.name[:300]!r}"
        )
        existing = await self._connection.persist(
            lambda: self._existing(spec.name), f"topic {spec.name!r}"
        )
        checked_spec(existing, spec)
        return made

    async def committed(self, group: str) -> Mapping[tuple[str, int], int]:
        return await self._connection.persist(lambda: self._committed(group), f"group {group!r}")

    async def groups(self) -> list[str]:
        """Every consumer group, by name."""
        return await self._connection.persist(self._groups, "its consumer groups")

    async def bytes_kept(self, topic: str) -> int | None:  # noqa: ARG002  # other logs know
        """None: aiokafka has no request for it."""
        return None

    async def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        topics = Topics(self._connection)
        for partition, offset in before.items():
            spec = await topics.require(topic, partition)
            check_deletable(spec)
            await self._connection.persist(
                partial(self._delete, spec, partition, offset),
                f"deleting records of {topic!r} [{partition}]",
            )

    async def cluster(self) -> Cluster:
        return await self._connection.persist(self._cluster, "its brokers")

    async def copies(self, topics: Collection[str]) -> Mapping[str, list[Copies]]:
        names = list(topics)
        if not names:
            return {}
        return await self._connection.persist(lambda: self._copies(names), "its partitions")

    async def _delete(self, spec: TopicSpec, partition: int, offset: int) -> None:
        if offset < 0:  # Kafka's -1 stands for all there is by then
            raise no_offset(spec, partition, offset)
        request = DeleteRecordsRequest([(spec.name, [(partition, offset)])], REQUEST_MS_MAX)
        answer = await self._connection.ask_leader(spec.name, partition, request)
        error = for_code(answer.topics[0][1][0][2])
        if error is OffsetOutOfRangeError:
            raise no_offset(spec, partition, offset)
        if error.errno:
            raise error(spec.name)

    async def _cluster(self) -> Cluster:
        request = MetadataRequest([], allow_auto_topic_creation=False)
        answer = (await self._connection.ask(request)).to_object()
        brokers = tuple(sorted(broker["node_id"] for broker in answer["brokers"]))
        return Cluster(answer.get("cluster_id") or "", brokers, answer["controller_id"])

    async def _copies(self, topics: list[str]) -> dict[str, list[Copies]]:
        request = MetadataRequest(topics, allow_auto_topic_creation=False)
        copies: dict[str, list[Copies]] = {}
        for found in (await self._connection.ask(request)).to_object()["topics"]:
            error = for_code(found["error_code"])
            if error is UnknownTopicOrPartitionError:
                continue
            if error.errno:
                raise error(found["topic"])
            copies[found["topic"]] = sorted(
                Copies(p["partition"], p["leader"], tuple(p["replicas"]), tuple(p["isr"]))
                for p in found["partitions"]
            )
        return copies

    async def _create(self, spec: TopicSpec) -> bool:
        if spec.name in await describe(self._connection, [spec.name]):
            return False  # it may be that we may not create, and need not
        request = CreateTopicsRequest(
            [(spec.name, spec.partitions, self._replication, [], settings_of(spec))],
            REQUEST_MS_MAX,
            validate_only=False,
        )
        for _, code, message in (await self._connection.ask(request)).topic_errors:
            error = for_code(code)
            if error is TopicAlreadyExistsError:
                return False
            if error.errno:
                raise error(message or spec.name)
        return True

    async def _existing(self, name: str) -> TopicSpec:
        found = await describe(self._connection, [name])
        if name not in found:
            raise LeaderNotAvailableError(name)  # the broker that was asked has not heard of it
        return found[name]

    async def _committed(self, group: str) -> dict[tuple[str, int], int]:
        request = OffsetFetchRequest(group, None)
        answer = await self._connection.ask_coordinator(group, request)
        if error := getattr(answer, "error_code", 0):
            raise for_code(error)(group)
        return {
            (topic, partition): offset
            for topic, partitions in answer.topics
            for partition, offset, _, code in partitions
            if not code and offset >= 0
        }

    async def _groups(self) -> list[str]:
        found: set[str] = set()
        for broker in self._connection.client.cluster.brokers():
            answer = await self._connection.ask(ListGroupsRequest(), broker.nodeId)
            if answer.error_code:
                raise for_code(answer.error_code)("list of groups")
            found.update(name for name, *_ in answer.groups)
        return sorted(found)
