"""Confluent's routes, described."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from streamapp.gateway.confluent import wire, wire3
from streamapp.gateway.confluent.clusters import CLUSTER
from streamapp.gateway.confluent.configs import NAME_CHARS_MAX, NO_PATH
from streamapp.gateway.confluent.media import V2
from streamapp.gateway.confluent.v2 import PARTIAL
from streamapp.gateway.openapi.model import (
    JSON,
    Content,
    Operation,
    Parameter,
    Reply,
    Schema,
    Shape,
    reference,
)

V2_TAG, CONSUMERS, V3_TAG = "Confluent v2", "Confluent v2 consumers", "Confluent v3"
PROBLEM = Content(JSON, wire.ConfluentProblem)
_OF_BODIES = (400, 408, 413, 415, 417, 422, 429)
_GUARDED = (401, 403, 429, 503)
_INSTANCE = "/consumers/{group}/instances/{instance}"
_FORMATS: Mapping[str, type[msgspec.Struct]] = {
    "json": wire.JsonRecords,
    "binary": wire.BinaryRecords,
    "text": wire.TextRecords,
}
_RECORD = {"key": "c1", "value": {"total": 3}}


def operations() -> list[Operation]:
    """What ``confluent.routes`` has."""
    return [*_v2(), *_consumers(), *_v3()]


def _v2() -> list[Operation]:
    partition = "/topics/{topic}/partitions/{partition}"
    looks: list[tuple[str, str, Shape, Sequence[int]]] = [
        ("/topics", "Names of all topics", list[str], ()),
        ("/topics/{topic}", "A topic", wire.TopicOf, (404,)),
        ("/topics/{topic}/partitions", "A topic's partitions", list[wire.PartitionOf], (404,)),
        (partition, "A partition", wire.PartitionOf, (404,)),
        (f"{partition}/offsets", "What a partition holds", wire.Bounds, (404,)),
        ("/brokers", "Ids of the brokers", wire.Brokers, ()),
    ]
    return [
        *(_produce(path) for path in ("/topics/{topic}", partition)),
        *(
            Operation(
                "GET",
                path,
                V2_TAG,
                summary,
                {200: Reply("It is there.", _either(shape))},
                errors=(*errors, 406, *_GUARDED),
                problem=PROBLEM,
            )
            for path, summary, shape, errors in looks
        ),
    ]


def _produce(path: str) -> Operation:
    bodies = [
        Content(
            f"application/vnd.kafka.{name}.v2+json",
            _of_one_partition(shape) if "{partition}" in path else shape,
        )
        for name, shape in _FORMATS.items()
    ]
    first, *rest = bodies
    return Operation(
        "POST",
        path,
        V2_TAG,
        "Produce records" + (" to one partition" if "{partition}" in path else ""),
        {
            200: Reply(
                "Each record's place, or why it has none.",
                _either(wire.ProducedAll),
                {PARTIAL: "How many records have none, if any."},
            )
        },
        about="A topic with an event schema takes events only (42206). When all records fail by "
        "the client's fault the status is theirs.",
        errors=(*_OF_BODIES, 404, 406, *_GUARDED),
        problem=PROBLEM,
        bodies=(Content(first.media, first.shape, {"records": [_RECORD]}), *rest),
    )


def _consumers() -> list[Operation]:
    offsets = Content(V2, wire.Positions)
    commits = Content(
        V2, (wire.Positions, {"type": "null"}, {"type": "object", "maxProperties": 0})
    )
    partitions = Content(V2, wire.Partitions)
    topics = Content(V2, (wire.TopicNames, wire.TopicPattern))
    nothing: Mapping[int, Reply] = {204: Reply("Done.")}
    committed = {
        200: Reply("Done.", _either({"type": "array", "maxItems": 0})),
        204: Reply("Done, for an instance of Strimzi's."),
    }
    writes: list[tuple[str, str, Content, Mapping[int, Reply]]] = [
        ("/subscription", "Subscribe to topics", topics, nothing),
        ("/assignments", "Read given partitions", partitions, nothing),
        ("/offsets", "Commit offsets, or what was delivered", commits, committed),
        ("/positions", "Go on from given offsets", offsets, nothing),
        ("/positions/beginning", "Go on from the beginning", partitions, nothing),
        ("/positions/end", "Go on behind the end", partitions, nothing),
    ]
    reads: list[tuple[str, str, Shape]] = [
        ("/subscription", "The topics it is subscribed to", wire.Subscription),
        ("/assignments", "The partitions it reads", wire.Partitions),
    ]
    looked = [
        _consumer("GET", path, summary, {200: Reply("These.", _either(shape))}, (406,))
        for path, summary, shape in reads
    ]
    written = [
        _consumer(
            "POST",
            path,
            summary,
            replies,
            (*_OF_BODIES, 406),
            bodies=(content,),
            body_required=path != "/offsets",
        )
        for path, summary, content, replies in writes
    ]
    return [
        _create(),
        _consumer("DELETE", "", "End the instance", nothing),
        _consumer("DELETE", "/subscription", "Leave the group's reading", nothing),
        *looked,
        *written,
        _committed(),
        *(_records(path) for path in ("/records", "/topics/{topic}")),
    ]


def _consumer(
    method: str,
    path: str,
    summary: str,
    replies: Mapping[int, Reply],
    errors: Sequence[int] = (),
    **more: Any,
) -> Operation:
    return Operation(
        method,
        _INSTANCE + path,
        CONSUMERS,
        summary,
        replies,
        errors=(*errors, 404, 409, *_GUARDED),
        problem=PROBLEM,
        **more,
    )


def _create() -> Operation:
    return Operation(
        "POST",
        "/consumers/{group}",
        CONSUMERS,
        "Create a consumer instance",
        {200: Reply("Its id and URL.", _either(wire.Created))},
        errors=(*_OF_BODIES, 406, 409, *_GUARDED),
        problem=PROBLEM,
        bodies=(
            Content(
                V2,
                _CONFIG,
                {"name": "c1", "format": "json", "auto.offset.reset": "earliest"},
            ),
        ),
        body_required=False,
    )


def _committed() -> Operation:
    return _consumer(
        "GET",
        "/offsets",
        "What the group committed",
        {200: Reply("For these partitions.", _either(wire.CommittedAll))},
        (*_OF_BODIES, 406),
        about="The partitions are named in a body, as Confluent's proxy asks for it.",
    )


def _records(path: str) -> Operation:
    parameters = tuple(
        Parameter(name, about, {"type": "integer", "minimum": 0})
        for name, about in (
            ("timeout", "Longest wait for records, in milliseconds."),
            ("max_bytes", "Of keys and values in the answer, at most."),
        )
    )
    media = ["application/vnd.kafka.binary.v2+json", V2, JSON]
    found = tuple(Content(name, list[wire.RecordRead]) for name in media)
    return _consumer(
        "GET",
        path,
        "The next records" + (" of a topic, as v1 asks for it" if "{topic}" in path else ""),
        {200: Reply("In the instance's format.", found)},
        (400, 406, 422, 429),
        parameters=parameters,
    )


def _v3() -> list[Operation]:
    topic = f"{CLUSTER}/topics/{{topic}}"
    looks: list[tuple[str, str, Shape]] = [
        ("/v3/clusters", "All clusters: one", wire3.Clusters3),
        (CLUSTER, "The cluster", wire3.Cluster3),
        (f"{CLUSTER}/topics", "All topics", wire3.Topics3),
        (topic, "A topic", wire3.Topic3),
        (f"{topic}/partitions", "A topic's partitions", wire3.Partitions3),
        (f"{topic}/partitions/{{partition}}", "A partition", wire3.Partition3),
    ]
    looked = [
        Operation(
            "GET",
            path,
            V3_TAG,
            summary,
            {200: Reply("It is there.", (Content(JSON, shape),))},
            errors=(*((404,) if "{topic}" in path else ()), 406, *_GUARDED),
            problem=PROBLEM,
        )
        for path, summary, shape in looks
    ]
    record = Content(
        JSON, wire3.RecordV3, {"value": {"type": "JSON", "data": {"message": "hello"}}}
    )
    reports = Content(JSON, (wire3.Report, wire.ConfluentProblem))
    errors = (400, 408, 404, 406, 415, 417, 422, 429, *_GUARDED)
    stream = Operation(
        "POST",
        f"{topic}/records",
        V3_TAG,
        "Produce a stream of records",
        {200: Reply("A report for each record, one after the other.", (reports,))},
        about="JSON objects one after the other, without end if that is wanted. Each is reported "
        "as soon as the log has it; a bad one has a report with another error_code.",
        errors=errors,
        problem=PROBLEM,
        bodies=(record,),
    )
    batch = Operation(
        "POST",
        f"{topic}/records:batch",
        V3_TAG,
        "Produce a few records",
        {207: Reply("What became of each.", (Content(JSON, wire3.Batched),))},
        errors=(*errors, 413),
        problem=PROBLEM,
        bodies=(Content(JSON, wire3.BatchV3),),
    )
    return [*looked, stream, batch]


def _of_one_partition(shape: type[msgspec.Struct]) -> Schema:
    """Records whose partition the path has named already."""
    record = {"properties": {"partition": {"type": "null"}}}
    return {**reference(shape.__name__), "properties": {"records": {"items": record}}}


def _either(shape: Shape) -> tuple[Content, ...]:
    """A v2 answer: in the type that the client takes."""
    return Content(V2, shape), Content(JSON, shape)


def _number(least: int, most: int) -> Schema:
    """A number, which Confluent's clients write as a string."""
    number = {"type": "integer", "minimum": least, "maximum": most}
    text = {"type": "string", "pattern": "^[1-9][0-9]{0,6}$"}
    return {"anyOf": [number, text, {"type": "null"}]}


_NAME = {"type": ["string", "null"], "maxLength": NAME_CHARS_MAX, "pattern": f"^[^{NO_PATH}]*$"}
_TRUTH = {"enum": [True, False, "true", "false"]}
_CONFIG: dict[str, Any] = {
    "type": ["object", "null"],
    "additionalProperties": False,
    "properties": {
        "name": _NAME,
        "id": _NAME,
        "format": {"enum": ["json", "binary", "text", "JSON", "BINARY", "TEXT", None]},
        "auto.offset.reset": {"enum": ["earliest", "latest", None]},
        "auto.commit.enable": _TRUTH,
        "enable.auto.commit": _TRUTH,
        "isolation.level": {"const": "read_uncommitted"},
        "fetch.min.bytes": _number(-1, 10_000_000),
        "consumer.request.timeout.ms": _number(0, 1 << 31),
        "consumer.instance.timeout.ms": _number(1, 1 << 31),
    },
}
