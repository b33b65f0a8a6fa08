"""What Confluent's v2 routes take and answer, as types, for OpenAPI.

The shapes are those of kafka-rest 8 (docs.confluent.io/platform/current/kafka-rest/api.html).
"""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from streamapp.gateway.confluent.consumers import PARTITIONS_MAX, TOPICS_MAX
from streamapp.gateway.confluent.patterns import CHARS_MAX
from streamapp.gateway.confluent.produce import TIMESTAMP_MS_MAX

Number = Annotated[int, Meta(ge=0)]
Partition = Annotated[int, Meta(ge=0, le=2_147_483_647)]
Base64 = Annotated[
    str,
    Meta(
        pattern="^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
        extra_json_schema={"contentEncoding": "base64"},
    ),
]
Timestamp = Annotated[int, Meta(ge=0, lt=TIMESTAMP_MS_MAX)]


class ConfluentProblem(msgspec.Struct):
    """An error; the first three digits of ``error_code`` are the HTTP status."""

    error_code: Annotated[int, Meta(ge=400)]
    message: str
    error: str


class HeaderV2(msgspec.Struct, forbid_unknown_fields=True):
    """A record's header, as Strimzi's bridge takes it."""

    key: str
    value: Base64 | None = None


class RecordV2(msgspec.Struct, forbid_unknown_fields=True):
    """What records of all formats may have; ``timestamp`` in Unix milliseconds."""

    partition: Partition | None = None
    timestamp: Timestamp | None = None
    headers: list[HeaderV2] | None = None


class JsonRecord(RecordV2, kw_only=True):
    """A record of any JSON; a null value is a tombstone."""

    key: Any = None
    value: Any = None


class BinaryRecord(RecordV2, kw_only=True):
    """A record of any bytes, as base64."""

    key: Base64 | None = None
    value: Base64 | None = None


class TextRecord(RecordV2, kw_only=True):
    """A record of text."""

    key: str | None = None
    value: str | None = None


class _Schemas(msgspec.Struct, forbid_unknown_fields=True):
    """What clients may send, and the formats that we speak have no use for."""

    key_schema: Any = None
    key_schema_id: Any = None
    value_schema: Any = None
    value_schema_id: Any = None


class JsonRecords(_Schemas, kw_only=True, forbid_unknown_fields=True):
    """Records of JSON."""

    records: Annotated[list[JsonRecord], Meta(min_length=1)]


class BinaryRecords(_Schemas, kw_only=True, forbid_unknown_fields=True):
    """Records of bytes."""

    records: Annotated[list[BinaryRecord], Meta(min_length=1)]


class TextRecords(_Schemas, kw_only=True, forbid_unknown_fields=True):
    """Records of text."""

    records: Annotated[list[TextRecord], Meta(min_length=1)]


class Produced(msgspec.Struct):
    """Where a record of a v2 request is, or why it is nowhere."""

    partition: Partition | None
    offset: Number | None
    error_code: int | None
    error: str | None
    message: str | UnsetType = UNSET


class ProducedAll(msgspec.Struct):
    """The outcome of every record, in the request's order."""

    offsets: list[Produced]
    key_schema_id: None = None
    value_schema_id: None = None


class Replica(msgspec.Struct):
    """A broker that has a partition."""

    broker: int
    leader: bool
    in_sync: bool


class PartitionOf(msgspec.Struct):
    """A partition and its replicas."""

    partition: Partition
    leader: int
    replicas: list[Replica]


class TopicOf(msgspec.Struct):
    """A topic, its settings in Kafka's words, and its partitions."""

    name: str
    configs: dict[str, str]
    partitions: list[PartitionOf]


class Bounds(msgspec.Struct):
    """The first offset still kept, and one past the last."""

    beginning_offset: Number
    end_offset: Number


class Brokers(msgspec.Struct):
    """Ids of the brokers."""

    brokers: list[int]


class Created(msgspec.Struct):
    """A consumer instance and the URL under which it is used."""

    instance_id: str
    base_uri: str


class Subscription(msgspec.Struct):
    """Topics that are read."""

    topics: list[str]


class TopicPartition(msgspec.Struct):
    """A partition of a topic."""

    topic: str
    partition: Partition


class Partitions(msgspec.Struct):
    """Partitions of topics."""

    partitions: Annotated[list[TopicPartition], Meta(max_length=PARTITIONS_MAX)]


class Position(msgspec.Struct):
    """An offset in a partition."""

    topic: str
    partition: Partition
    offset: Annotated[int, Meta(ge=0, lt=1 << 62)]


class Positions(msgspec.Struct):
    """Offsets of partitions."""

    offsets: Annotated[list[Position], Meta(max_length=PARTITIONS_MAX)]


class Committed(msgspec.Struct):
    """What a group committed for a partition."""

    topic: str
    partition: Partition
    offset: Number
    metadata: str


class CommittedAll(msgspec.Struct):
    """What a group committed."""

    offsets: list[Committed]


class HeaderRead(msgspec.Struct):
    """A header of a record that was read."""

    key: str
    value: Base64 | None


class RecordRead(msgspec.Struct):
    """A record that was read; ``timestamp`` and ``headers`` as Strimzi's bridge has them."""

    topic: str
    key: Any
    value: Any
    partition: Partition
    offset: Number
    timestamp: int | UnsetType = UNSET
    headers: list[HeaderRead] | UnsetType = UNSET


class TopicNames(msgspec.Struct):
    """Topics to subscribe to."""

    topics: Annotated[list[str], Meta(min_length=1, max_length=TOPICS_MAX)]


class TopicPattern(msgspec.Struct):
    r"""A pattern of topics to subscribe to: names, ``\.`` and ``.*``."""

    topic_pattern: Annotated[
        str, Meta(max_length=CHARS_MAX, pattern=r"^(?:[A-Za-z0-9_-]|\\.|\.\*)+$")
    ]
