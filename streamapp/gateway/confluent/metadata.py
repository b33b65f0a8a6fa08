"""v2's metadata: topics, partitions, brokers."""

from typing import Any

from aiohttp import web

from streamapp.core.errors import Refuse
from streamapp.gateway.confluent.directory import Directory
from streamapp.gateway.confluent.media import accepted, answer
from streamapp.gateway.gateway import Gateway
from streamapp.transport.clients import Copies, Reader, TopicSpec


def routes(gateway: Gateway, directory: Directory) -> list[web.RouteDef]:
    """The protocol's routes that only look."""
    metadata = Metadata(gateway, directory)
    partition = "/topics/{topic}/partitions/{partition}"
    return [
        web.get("/topics", metadata.topics),
        web.get("/topics/{topic}", metadata.topic),
        web.get("/topics/{topic}/partitions", metadata.partitions),
        web.get(partition, metadata.partition),
        web.get(partition + "/offsets", metadata.offsets),
        web.get("/brokers", metadata.brokers),
    ]


def reader_of(gateway: Gateway) -> Reader:
    """The log's reader.

    Raises:
        Refuse: this gateway has none.
    """
    if gateway.reader is None:
        raise Refuse("gateway.reader", "this gateway has no reader", "give it one")
    return gateway.reader


class Metadata:
    """The handlers."""

    def __init__(self, gateway: Gateway, directory: Directory) -> None:
        self._gateway = gateway
        self._directory = directory

    async def topics(self, request: web.Request) -> web.Response:
        """Names of all topics."""
        accepted(request)
        return answer(sorted(await self._directory.topics()), request)

    async def topic(self, request: web.Request) -> web.Response:
        """One topic with its settings and partitions."""
        accepted(request)
        spec = await self._directory.topic(request.match_info["topic"])
        partitions = [_partition(found) for found in await self._directory.copies(spec.name)]
        body = {"name": spec.name, "configs": _configs(spec), "partitions": partitions}
        return answer(body, request)

    async def partitions(self, request: web.Request) -> web.Response:
        """A topic's partitions."""
        accepted(request)
        found = await self._directory.copies(request.match_info["topic"])
        return answer([_partition(copies) for copies in found], request)

    async def partition(self, request: web.Request) -> web.Response:
        """One partition."""
        accepted(request)
        topic = request.match_info["topic"]
        number = await self._directory.partition(topic, request.match_info["partition"])
        found = await self._directory.copies(topic)
        return answer(_partition(found[number]), request)

    async def offsets(self, request: web.Request) -> web.Response:
        """First offset still kept, and one past the last."""
        accepted(request)
        topic = request.match_info["topic"]
        number = await self._directory.partition(topic, request.match_info["partition"])
        begin, end = await reader_of(self._gateway).bounds(topic, number)
        return answer({"beginning_offset": begin, "end_offset": end}, request)

    async def brokers(self, request: web.Request) -> web.Response:
        """Ids of the brokers; the embedded log is one, of id 0."""
        accepted(request)
        return answer({"brokers": list((await self._directory.cluster()).brokers)}, request)


def _partition(copies: Copies) -> dict[str, Any]:
    replicas = [
        {"broker": broker, "leader": broker == copies.leader, "in_sync": broker in copies.in_sync}
        for broker in copies.replicas
    ]
    return {"partition": copies.partition, "leader": copies.leader, "replicas": replicas}


def _configs(spec: TopicSpec) -> dict[str, str]:
    """What we know of a topic's settings, in Kafka's words; -1 is without limit."""
    kept = spec.retention_ms is not None or spec.retention_bytes is not None
    policies = [*(["compact"] if spec.compacted else []), *(["delete"] if kept else [])]
    return {
        "cleanup.policy": ",".join(policies) or "delete",
        "max.message.bytes": str(spec.record_bytes_max),
        "retention.ms": str(-1 if spec.retention_ms is None else spec.retention_ms),
        "retention.bytes": str(-1 if spec.retention_bytes is None else spec.retention_bytes),
    }
