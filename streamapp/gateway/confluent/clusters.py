"""v3's metadata: the cluster, topics, partitions."""

from typing import Any

from aiohttp import web
from yarl import URL

from streamapp.gateway.confluent.directory import Directory
from streamapp.gateway.confluent.media import json_accepted
from streamapp.gateway.problem import json_response
from streamapp.transport.clients import Cluster, Copies, TopicSpec

#: What a path says of the cluster is not compared: a gateway has one, and its own id answers.
CLUSTER = "/v3/clusters/{cluster}"


def routes(directory: Directory) -> list[web.RouteDef]:
    """The routes that only look."""
    clusters = Clusters(directory)
    topic = CLUSTER + "/topics/{topic}"
    return [
        web.get("/v3/clusters", clusters.all),
        web.get(CLUSTER, clusters.get),
        web.get(CLUSTER + "/topics", clusters.topics),
        web.get(topic, clusters.topic),
        web.get(topic + "/partitions", clusters.partitions),
        web.get(topic + "/partitions/{partition}", clusters.partition),
    ]


class Clusters:
    """The handlers."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def all(self, request: web.Request) -> web.Response:
        """The one cluster there is, from which clients learn its id."""
        json_accepted(request)
        found = _cluster(request, await self._directory.cluster())
        return json_response(_list("KafkaClusterList", str(_root(request)), [found]))

    async def get(self, request: web.Request) -> web.Response:
        """The cluster."""
        json_accepted(request)
        return json_response(_cluster(request, await self._directory.cluster()))

    async def topics(self, request: web.Request) -> web.Response:
        """All topics."""
        json_accepted(request)
        cluster = await self._directory.cluster()
        specs = await self._directory.topics()
        url = f"{_root(request) / cluster.id}/topics"
        copies = await self._directory.admin.copies(specs)
        found = [
            _topic(request, cluster, specs[name], copies[name])
            for name in sorted(specs)
            if name in copies
        ]
        return json_response(_list("KafkaTopicList", url, found))

    async def topic(self, request: web.Request) -> web.Response:
        """One topic."""
        json_accepted(request)
        spec = await self._directory.topic(request.match_info["topic"])
        copies = await self._directory.copies(spec.name)
        return json_response(_topic(request, await self._directory.cluster(), spec, copies))

    async def partitions(self, request: web.Request) -> web.Response:
        """A topic's partitions."""
        json_accepted(request)
        cluster = await self._directory.cluster()
        topic = request.match_info["topic"]
        copies = await self._directory.copies(topic)
        url = f"{_root(request) / cluster.id}/topics/{topic}/partitions"
        found = [_partition(request, cluster, topic, each) for each in copies]
        return json_response(_list("KafkaPartitionList", url, found))

    async def partition(self, request: web.Request) -> web.Response:
        """One partition."""
        json_accepted(request)
        topic = request.match_info["topic"]
        number = await self._directory.partition(topic, request.match_info["partition"])
        copies = await self._directory.copies(topic)
        cluster = await self._directory.cluster()
        return json_response(_partition(request, cluster, topic, copies[number]))


def _cluster(request: web.Request, cluster: Cluster) -> dict[str, Any]:
    url = str(_root(request) / cluster.id)
    return {
        "kind": "KafkaCluster",
        "metadata": _metadata(url, f"kafka={cluster.id}"),
        "cluster_id": cluster.id,
        "controller": {"related": f"{url}/brokers/{cluster.controller}"},
        "acls": {"related": f"{url}/acls"},
        "brokers": {"related": f"{url}/brokers"},
        "broker_configs": {"related": f"{url}/broker-configs"},
        "consumer_groups": {"related": f"{url}/consumer-groups"},
        "topics": {"related": f"{url}/topics"},
        "partition_reassignments": {"related": f"{url}/topics/-/partitions/-/reassignment"},
    }


def _topic(
    request: web.Request, cluster: Cluster, spec: TopicSpec, copies: list[Copies]
) -> dict[str, Any]:
    url = f"{_root(request) / cluster.id}/topics/{spec.name}"
    return {
        "kind": "KafkaTopic",
        "metadata": _metadata(url, f"kafka={cluster.id}/topic={spec.name}"),
        "cluster_id": cluster.id,
        "topic_name": spec.name,
        "is_internal": False,
        "replication_factor": len(copies[0].replicas) if copies else 0,
        "partitions_count": spec.partitions,
        "partitions": {"related": f"{url}/partitions"},
        "configs": {"related": f"{url}/configs"},
        "partition_reassignments": {"related": f"{url}/partitions/-/reassignment"},
        "authorized_operations": [],
    }


def _partition(
    request: web.Request, cluster: Cluster, topic: str, copies: Copies
) -> dict[str, Any]:
    url = f"{_root(request) / cluster.id}/topics/{topic}/partitions/{copies.partition}"
    name = f"kafka={cluster.id}/topic={topic}/partition={copies.partition}"
    return {
        "kind": "KafkaPartition",
        "metadata": _metadata(url, name),
        "cluster_id": cluster.id,
        "topic_name": topic,
        "partition_id": copies.partition,
        "leader": {"related": f"{url}/replicas/{copies.leader}"},
        "replicas": {"related": f"{url}/replicas"},
        "reassignment": {"related": f"{url}/reassignment"},
    }


def _list(kind: str, url: str, data: list[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"self": url, "next": None}, "data": data}


def _metadata(url: str, name: str) -> dict[str, str]:
    return {"self": url, "resource_name": f"crn:///{name}"}


def _root(request: web.Request) -> URL:
    return request.url.origin() / "v3" / "clusters"
