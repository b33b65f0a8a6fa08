"""What Confluent's v3 routes take and answer, as types, for OpenAPI.

The shapes are those of kafka-rest 8 (docs.confluent.io/platform/current/kafka-rest/api.html).
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from streamapp.gateway.confluent.wire import Base64, Number, Partition


class HeaderV3(msgspec.Struct):
    """A record's header."""

    name: str
    value: Base64 | None = None


class JsonData(msgspec.Struct, tag="JSON", tag_field="type"):
    """A key or value of any JSON."""

    data: Any = None


class BinaryData(msgspec.Struct, tag="BINARY", tag_field="type"):
    """A key or value of any bytes, as base64."""

    data: Base64 | None = None


class StringData(msgspec.Struct, tag="STRING", tag_field="type"):
    """A key or value of text."""

    data: str | None = None


class RecordV3(msgspec.Struct):
    """A record; a key or value without data is null."""

    partition_id: Partition | None = None
    headers: list[HeaderV3] | None = None
    key: JsonData | BinaryData | StringData | None = None
    value: JsonData | BinaryData | StringData | None = None
    timestamp: Annotated[str, Meta(extra_json_schema={"format": "date-time"})] | None = None


class EntryV3(RecordV3, kw_only=True):
    """A record of a batch."""

    id: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,80}$")]


class BatchV3(msgspec.Struct):
    """A few records with distinct ids."""

    entries: Annotated[list[EntryV3], Meta(min_length=1, max_length=10)]


class Size(msgspec.Struct):
    """The type and bytes of a key or value."""

    type: str | None
    size: Number


class Place(msgspec.Struct):
    """Where a v3 record is."""

    cluster_id: str
    topic_name: str
    partition_id: Partition
    offset: Number
    timestamp: str
    key: Size | UnsetType = UNSET
    value: Size | UnsetType = UNSET


class Success(Place, kw_only=True):
    """Where a record of a batch is."""

    id: str


class Failure(msgspec.Struct):
    """Why a record of a batch is nowhere."""

    id: str
    error_code: int
    message: str
    error: str


class Batched(msgspec.Struct):
    """The outcome of every record of a batch."""

    successes: list[Success]
    failures: list[Failure]


class Report(Place, kw_only=True):
    """Where a record of a stream is."""

    error_code: Literal[200]


class Metadata(msgspec.Struct):
    """What a v3 object is called."""

    self: str
    resource_name: str


class ListMetadata(msgspec.Struct):
    """Where a v3 list goes on: nowhere, it is whole."""

    self: str
    next: None


class Related(msgspec.Struct):
    """The URL of something else."""

    related: str


class Cluster3(msgspec.Struct):
    """A cluster."""

    kind: Literal["KafkaCluster"]
    metadata: Metadata
    cluster_id: str
    controller: Related
    acls: Related
    brokers: Related
    broker_configs: Related
    consumer_groups: Related
    topics: Related
    partition_reassignments: Related


class Topic3(msgspec.Struct):
    """A topic."""

    kind: Literal["KafkaTopic"]
    metadata: Metadata
    cluster_id: str
    topic_name: str
    is_internal: bool
    replication_factor: Number
    partitions_count: Number
    partitions: Related
    configs: Related
    partition_reassignments: Related
    authorized_operations: list[str]


class Partition3(msgspec.Struct):
    """A partition."""

    kind: Literal["KafkaPartition"]
    metadata: Metadata
    cluster_id: str
    topic_name: str
    partition_id: Partition
    leader: Related
    replicas: Related
    reassignment: Related


class Clusters3(msgspec.Struct):
    """All clusters: one."""

    kind: Literal["KafkaClusterList"]
    metadata: ListMetadata
    data: list[Cluster3]


class Topics3(msgspec.Struct):
    """All topics."""

    kind: Literal["KafkaTopicList"]
    metadata: ListMetadata
    data: list[Topic3]


class Partitions3(msgspec.Struct):
    """All partitions of a topic."""

    kind: Literal["KafkaPartitionList"]
    metadata: ListMetadata
    data: list[Partition3]
