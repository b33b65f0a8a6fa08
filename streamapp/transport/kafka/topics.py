"""What a cluster knows of its topics, as :class:`TopicSpec`."""

import asyncio
import re
from collections.abc import Iterable, Sequence

from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.errors import LeaderNotAvailableError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest

from streamapp.core.clock import monotonic_s
from streamapp.transport.clients import TopicSpec
from streamapp.transport.kafka.connection import Connection
from streamapp.transport.kafka.errors import unknown_topic
from streamapp.transport.routing import no_partition

#: Kafka limits a batch, we limit key, value and headers: room for what a batch of one record adds.
OVERHEAD_BYTES = 4096
#: Topics whose settings are asked for at a time.
_PAGE = 500
#: How long a topic's settings are believed when a record seems too large for it.
_FRESH_S = 5.0
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_SETTINGS = ["cleanup.policy", "max.message.bytes", "retention.bytes", "retention.ms"]


def settings_of(spec: TopicSpec) -> list[tuple[str, str]]:
    """A topic's settings in Kafka's words.  Kafka counts ``retention.bytes`` per partition."""
    kept = spec.retention_ms is not None or spec.retention_bytes is not None
    policies = [*(["compact"] if spec.compacted else []), *(["delete"] if kept else [])]
    return [
        ("cleanup.policy", ",".join(policies) or "delete"),
        ("max.message.bytes", str(spec.record_bytes_max + OVERHEAD_BYTES)),
        ("retention.ms", _or_unlimited(spec.retention_ms)),
        ("retention.bytes", _or_unlimited(spec.retention_bytes)),
    ]


def spec_of(name: str, partitions: int, settings: dict[str, str]) -> TopicSpec:
    """What :func:`settings_of` said, read back."""
    policies = settings["cleanup.policy"].split(",")
    kept = "delete" in policies
    return TopicSpec(
        name,
        partitions,
        max(int(settings["max.message.bytes"]) - OVERHEAD_BYTES, 0),
        _or_none(settings["retention.ms"]) if kept else None,
        _or_none(settings["retention.bytes"]) if kept else None,
        "compact" in policies,
    )


async def describe(
    connection: Connection, names: Sequence[str] | None = None
) -> dict[str, TopicSpec]:
    """The named topics that exist, or all but Kafka's own; one attempt.

    Raises:
        KafkaError: no answer, or not allowed.
    """
    request = MetadataRequest(names, allow_auto_topic_creation=False)
    found = (await connection.ask(request)).to_object()["topics"]
    partitions: dict[str, int] = {}
    for topic in found:
        name, error = topic["topic"], for_code(topic["error_code"])
        hidden = names is None and (topic["is_internal"] or name.startswith("__"))
        if hidden or error is UnknownTopicOrPartitionError:
            continue
        if error.errno:
            raise error(name)
        if any(part["leader"] < 0 for part in topic["partitions"]):
            raise LeaderNotAvailableError(name)
        partitions[name] = len(topic["partitions"])
    specs: dict[str, TopicSpec] = {}
    for page in _pages(sorted(partitions)):
        for name, settings in (await _settings(connection, page)).items():
            specs[name] = spec_of(name, partitions[name], settings)
    return specs


class Topics:
    """Topics by name, remembered from their first use."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[str, tuple[TopicSpec, float]] = {}
        self._learning = asyncio.Lock()

    async def require(self, topic: str, partition: int = 0) -> TopicSpec:
        """The topic, which has this partition.

        Raises:
            Refuse: it is not there, or not so many partitions, or we may not know.
            Retry: the cluster does not answer.
        """
        if topic not in self._known:
            async with self._learning:  # one asks, in the order of coming the others have it
                if topic not in self._known:
                    await self._learn(topic)
        spec = self._known[topic][0]
        if not 0 <= partition < spec.partitions:
            raise no_partition(spec, partition)
        return spec

    def known(self, topic: str) -> TopicSpec | None:
        """The topic, if it was asked for before."""
        found = self._known.get(topic)
        return None if found is None else found[0]

    async def refreshed(self, topic: str) -> TopicSpec | None:
        """The topic as it is now; None when what is known is of just now."""
        if monotonic_s() - self._known[topic][1] < _FRESH_S:
            return None
        return await self._learn(topic)

    def forget(self, topic: str) -> None:
        """Ask anew at the next use."""
        self._known.pop(topic, None)

    async def _learn(self, topic: str) -> TopicSpec:
        what, connection = f"topic {topic[:300]!r}", self._connection
        if not _NAME.fullmatch(topic):
            raise unknown_topic(what, connection.url)
        found = await connection.persist(lambda: describe(connection, [topic]), what)
        if topic not in found:
            raise unknown_topic(what, connection.url)
        await connection.client.add_topic(topic)  # so that its leaders stay known
        self._known[topic] = found[topic], monotonic_s()
        return found[topic]


async def _settings(connection: Connection, names: Iterable[str]) -> dict[str, dict[str, str]]:
    resources = [(ConfigResourceType.TOPIC, name, _SETTINGS) for name in names]
    answer = await connection.ask(DescribeConfigsRequest(resources, include_synonyms=False))
    found = {}
    for code, message, _, name, entries in answer.resources:
        error = for_code(code)
        if error is UnknownTopicOrPartitionError:  # deleted meanwhile
            continue
        if error.errno:
            raise error(message or name)
        found[name] = {entry[0]: entry[1] for entry in entries}
    return found


def _pages(names: list[str]) -> Iterable[list[str]]:
    return (names[at : at + _PAGE] for at in range(0, len(names), _PAGE))


def _or_unlimited(value: int | None) -> str:
    return "-1" if value is None else str(value)


def _or_none(value: str) -> int | None:
    return None if int(value) < 0 else int(value)
