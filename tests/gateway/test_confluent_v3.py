"""Confluent REST v3, on the embedded log; answers are held against the shapes of its OpenAPI.

These are those of api/v3/openapi.yaml in github.com/confluentinc/kafka-rest (at 0290ff8).
"""

import asyncio
import json
import re
from base64 import b64encode

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.gateway.confluent.objects import BrokenStreamError, Objects

RECORDS = "/v3/clusters/any/topics/plain/records"
JSON = "application/json"


def related(*names):
    url = {"type": "object", "required": ["related"], "properties": {"related": {"format": "uri"}}}
    return dict.fromkeys(names, url)


def shape(kind, fields, *links):
    metadata = {
        "type": "object", "required": ["self"],
        "properties": {"self": {"type": "string"}, "resource_name": {"type": "string"}},
    }  # fmt: skip
    properties = {"kind": {"const": kind}, "metadata": metadata} | fields | related(*links)
    return {"type": "object", "required": list(properties), "properties": properties}


def listed(kind, item):
    fields = {"data": {"type": "array", "items": item, "minItems": 1}}
    shown = shape(kind, fields)
    shown["properties"]["metadata"] = {
        "type": "object", "required": ["self", "next"],
        "properties": {"self": {"type": "string"}, "next": {"type": ["string", "null"]}},
    }  # fmt: skip
    return shown


TEXT, WHOLE = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}
CLUSTER = shape(
    "KafkaCluster", {"cluster_id": TEXT}, "controller", "acls", "brokers", "broker_configs",
    "consumer_groups", "topics", "partition_reassignments",
)  # fmt: skip
TOPIC = shape(
    "KafkaTopic",
    {
        "cluster_id": TEXT, "topic_name": TEXT, "is_internal": {"type": "boolean"},
        "replication_factor": {"type": "integer", "minimum": 1},
        "partitions_count": {"type": "integer", "minimum": 1},
        "authorized_operations": {"type": "array"},
    },
    "partitions", "configs", "partition_reassignments",
)  # fmt: skip
PARTITION = shape(
    "KafkaPartition", {"cluster_id": TEXT, "topic_name": TEXT, "partition_id": WHOLE},
    "leader", "replicas", "reassignment",
)  # fmt: skip
DATA = {
    "type": "object", "required": ["type", "size"], "additionalProperties": False,
    "properties": {"type": {"enum": ["BINARY", "JSON", "STRING"]}, "size": WHOLE},
}  # fmt: skip
PLACED = {
    "cluster_id": TEXT, "topic_name": TEXT, "partition_id": WHOLE, "offset": WHOLE,
    "timestamp": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"},
}  # fmt: skip
REPORT = {
    "type": "object", "required": ["error_code", *PLACED], "additionalProperties": False,
    "properties": {"error_code": {"const": 200}, **PLACED, "key": DATA, "value": DATA},
}  # fmt: skip
ERROR = {
    "type": "object", "required": ["error_code", "message"],
    "properties": {"error_code": {"type": "integer"}, "message": TEXT},
}  # fmt: skip
FAILURE = {"type": "object", "required": ["id", "error_code", "message"]}
SUCCESS = {"type": "object", "required": ["id", *PLACED], "properties": {"id": TEXT, **PLACED}}
BATCH = {
    "type": "object", "required": ["successes", "failures"], "additionalProperties": False,
    "properties": {
        "successes": {"type": "array", "items": SUCCESS},
        "failures": {"type": "array", "items": FAILURE},
    },
}  # fmt: skip


def value(data, kind="JSON", **more):
    return {"value": {"type": kind, "data": data}, **more}


async def stream(rest, *records):
    """Reports of a request whose body is these records (or bytes)."""
    body = b" ".join(r if isinstance(r, bytes) else json.dumps(r).encode() for r in records)
    async with rest.http.post(rest.url + RECORDS, data=body, headers={"Content-Type": JSON}) as got:
        text = await got.text()
        return got.status, [json.loads(line) for line in text.splitlines()]


SHAPES = [
    ("", listed("KafkaClusterList", CLUSTER)),
    ("/c", CLUSTER),
    ("/c/topics", listed("KafkaTopicList", TOPIC)),
    ("/c/topics/plain", TOPIC),
    ("/c/topics/plain/partitions", listed("KafkaPartitionList", PARTITION)),
    ("/c/topics/plain/partitions/1", PARTITION),
]


async def test_metadata_has_confluents_shape(rest):
    for path, schema in SHAPES:
        status, answer = await rest.call("GET", "/v3/clusters" + path)
        assert (status, rest.last["Content-Type"]) == (200, JSON)
        jsonschema.validate(answer, schema)


async def test_the_cluster_id_is_learnt_and_stays_and_tells_no_path(rest, serve_rest, log_url):
    _, listed_ = await rest.call("GET", "/v3/clusters")
    found = listed_["data"][0]
    assert re.fullmatch("[A-Za-z0-9_-]{22}", found["cluster_id"])
    other = await serve_rest(log_url)
    assert (await other.call("GET", "/v3/clusters/x"))[1]["cluster_id"] == found["cluster_id"]
    own = found["metadata"]["self"].removeprefix(rest.url)
    assert (await rest.call("GET", own))[1] == found


async def test_concatenated_records_have_their_reports_in_order(rest):
    at = "2026-01-02T03:04:05.678+01:00"
    sent = [
        value({"a": [1, "}"]}, partition_id=1, timestamp=at,
              headers=[{"name": "h", "value": b64encode(b"\xff").decode()}]),
        value(b64encode(b"\0\1").decode(), "BINARY", key={"type": "STRING", "data": "k"}, partition_id=1),
        {"partition_id": 1, "key": {"type": "JSON", "data": {"k": 1}}, "value": {"type": "JSON", "data": None}},
        value("text", "STRING", partition_id=0),
        {},
    ]  # fmt: skip
    status, reports = await stream(rest, *sent)
    assert status == 200
    for report in reports:
        jsonschema.validate(report, REPORT)
    assert [(r["partition_id"], r["offset"]) for r in reports[:4]] == [
        (1, 0),
        (1, 1),
        (1, 2),
        (0, 0),
    ]
    assert reports[0]["timestamp"] == "2026-01-02T02:04:05.678000Z"
    assert reports[1]["key"] == {"type": "STRING", "size": 1}
    assert reports[1]["value"] == {"type": "BINARY", "size": 2}
    assert "value" not in reports[2]
    first, second, third = await rest.records("plain", 1)
    assert (first.value, list(first.headers)) == (b'{"a": [1, "}"]}', [("h", b"\xff")])
    assert first.timestamp == 1_767_319_445_678
    assert (second.key, second.value) == (b"k", b"\0\1")
    assert (third.key, third.value) == (b'{"k": 1}', None)


BAD = [
        (value("1", "BINARY"), 400, "data=1 is not a base64 string."),
        (value(1, "BINARY"), 400, "data=1 is not a string"),
        (value(1, "AVRO"), 42206, "AVRO"),
        ({"value": {"data": 1}}, 42206, "type"),
        (value(1, timestamp="yesterday"), 400, "RFC 3339"),
        (value(1, timestamp="2026-01-01T00:00:00"), 400, "RFC 3339"),
        (value(1, timestamp="1969-01-01T00:00:00Z"), 400, "RFC 3339"),
        (value(1, partition_id="x"), 400, "partition_id"),
        (value(1, partition_id=9), 40403, "topic-partition"),
        (value(1, partition_id=-1), 40403, "topic-partition"),
        (value(1, headers=[{"name": "h", "value": "?"}]), 400, "base64"),
        (value("x" * 150_000), 50002, "record.too_large"),
        (b'{"value": {"type": "JSON", "data": 1x}}', 400, "Bad Request"),
        (b'{"value": {"type": "STRING", "data": "\xff"}}', 400, "UTF-8"),
    ]  # fmt: skip


async def test_a_bad_record_costs_only_itself(rest):
    for bad, code, told in BAD:
        status, reports = await stream(
            rest, value(1, partition_id=0), bad, value(2, partition_id=0)
        )
        assert status == 200
        assert [report["error_code"] for report in reports] == [200, code, 200]
        jsonschema.validate(reports[1], ERROR)
        assert told in reports[1]["message"]
    assert len(await rest.records("plain")) == 2 * len(BAD)


CUTS = [
    (b'{"value": {"type": "JSON", "da', "ends within a record, 30 bytes into it"),
    (b"[1]", "no JSON object"),
    (b"}", "no JSON object"),
    (b'{"value":' + b"[" * 300, "deeper"),
]


async def test_a_cut_is_reported_after_what_was_whole(rest):
    for end, told in CUTS:
        status, reports = await stream(rest, value(1, partition_id=0), end)
        assert (status, [r["error_code"] for r in reports]) == (200, [200, 400])
        assert told in reports[1]["message"]
    assert len(await rest.records("plain")) == len(CUTS)


async def test_what_cannot_begin_is_no_stream(rest):
    for body in (b"", b"  ", b"{", b"x"):
        status, answer = await rest.call("POST", RECORDS, body, Content_Type=JSON)
        assert (status, answer["error_code"]) == (400, 400)
    nowhere = RECORDS.replace("plain", "nowhere")
    status, answer = await rest.call("POST", nowhere, b"{}", Content_Type=JSON)
    assert (status, answer["error_code"]) == (404, 40403)
    status, answer = await rest.call("POST", RECORDS, b"{}", Content_Type="text/plain")
    assert (status, answer["error_code"]) == (415, 415)
    status, answer = await rest.call(
        "POST", RECORDS, b"{}", Content_Type=JSON, Content_Encoding="gzip"
    )
    assert (status, answer["error_code"]) == (415, 415)
    status, answer = await rest.call("POST", RECORDS, b"{}", Content_Type=JSON, Expect="foo")
    assert (status, answer["error_code"]) == (417, 417)
    status, answer = await rest.call("POST", RECORDS, b"{}", Content_Type=JSON, Accept="text/html")
    assert (status, answer["error_code"]) == (406, 406)


HEAD = (
    f"POST {RECORDS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    "Transfer-Encoding: chunked\r\n\r\n"
).encode()


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


class Talk:
    """A chunked request that one end writes while the other reads."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def say(self, data):
        self.writer.write(chunk(data))
        await self.writer.drain()

    async def report(self):
        async with asyncio.timeout(30):
            while not (line := await self.reader.readline()).startswith(b"{"):
                assert line, "closed"
            return json.loads(line)


@pytest.fixture
async def talk(rest):
    host, _, port = rest.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(HEAD)
    yield Talk(reader, writer)
    writer.close()


async def test_reports_come_while_the_request_still_goes_on(rest, talk):
    for n in range(5):
        data = json.dumps(value(n, partition_id=0)).encode()
        await talk.say(data[:7])
        await talk.say(data[7:])
        assert (await talk.report())["offset"] == n
    await talk.say(b'{"value": {"type": "BINARY", "data": "?"}}')
    assert (await talk.report())["error_code"] == 400
    talk.writer.write(b"0\r\n\r\n")
    async with asyncio.timeout(30):
        await talk.reader.readuntil(b"0\r\n\r\n")


async def test_a_stopping_gateway_ends_a_stream_and_says_so(rest, talk):
    await talk.say(json.dumps(value(1, partition_id=0)).encode())
    assert (await talk.report())["error_code"] == 200
    rest.gateway.life.stop()
    assert (await talk.report())["error_code"] == 503


async def test_a_stream_that_stalls_is_ended(serve_rest, log_url):
    rest = await serve_rest(log_url, body_s_max=0.2)

    async def stall():
        yield json.dumps(value(1)).encode() + b"{"
        await asyncio.sleep(30)

    async with rest.http.post(
        rest.url + RECORDS, data=stall(), headers={"Content-Type": JSON}
    ) as got:
        reports = [json.loads(line) for line in (await got.text()).splitlines()]
    assert [report["error_code"] for report in reports] == [200, 408]


async def test_events_by_v3_are_stamped(rest):
    path = RECORDS.replace("plain", "events.raw")
    body = (
        json.dumps(value({"message": "hi", "id": "e"}, partition_id=3)).encode()
        + b'{"value":{"type":"JSON","data":1}}'
    )
    async with rest.http.post(rest.url + path, data=body, headers={"Content-Type": JSON}) as got:
        reports = [json.loads(line) for line in (await got.text()).splitlines()]
    assert [r["error_code"] for r in reports] == [200, 42206]
    (stored,) = await rest.records("events.raw", 3)
    assert dict(stored.headers)["ce_id"] == b"e"


async def test_a_batch_says_of_each_entry_what_became_of_it(rest):
    entries = [
        {"id": "a", **value(1, partition_id=0)},
        {"id": "b", **value("?", "BINARY")},
        {"id": "c", **value(2, partition_id=7)},
        {"id": "d", **value(3, partition_id=0)},
    ]
    status, answer = await rest.call(
        "POST", RECORDS + ":batch", {"entries": entries}, Content_Type=JSON
    )
    assert status == 207
    jsonschema.validate(answer, BATCH)
    assert [s["id"] for s in answer["successes"]] == ["a", "d"]
    assert [(f["id"], f["error_code"]) for f in answer["failures"]] == [("b", 400), ("c", 40403)]
    assert [r.value for r in await rest.records("plain")] == [b"1", b"3"]


NO_BATCH = [
    ({"entries": []}, 422, 42208),
    ({}, 422, 42208),
    ({"entries": [{"id": str(n)} for n in range(11)]}, 422, 42208),
    ({"entries": [{"id": "1"}, {"id": "1"}]}, 422, 42208),
    ({"entries": [{"value": None}]}, 422, 42208),
    ({"entries": [{"id": "a b"}]}, 422, 42208),
    ({"entries": [{"id": 1}]}, 400, 400),
    (b'{"entries":[', 400, 400),
    (b'{"entries":[{"id":"\xff"}]}', 400, 400),
]


async def test_a_batch_that_is_none(rest):
    for body, status, code in NO_BATCH:
        got, answer = await rest.call("POST", RECORDS + ":batch", body, Content_Type=JSON)
        assert (got, answer["error_code"]) == (status, code)
        assert await rest.records("plain") == []


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='{}[]"\\ \n\u00e9a'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('{"\\'), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40)
@given(
    st.lists(st.dictionaries(st.text('a{}"\\'), TREES, max_size=3), max_size=5),
    st.integers(1, 9),
    st.sampled_from(["", " ", "\n\t"]),
)
def test_a_stream_is_split_the_same_however_it_is_cut(objects, step, between):
    whole = between.join(json.dumps(each) for each in objects).encode()
    splitter, found = Objects(1 << 20), []
    for at in range(0, len(whole), step):
        found += splitter.feed(whole[at : at + step])
    assert [json.loads(each) for each in found] == objects
    assert splitter.rest() == 0


def test_one_object_is_bounded():
    splitter = Objects(100)
    assert list(splitter.feed(b'{"a":"' + b"x" * 80)) == []
    with pytest.raises(BrokenStreamError, match="more than 100"):
        list(splitter.feed(b"x" * 80))


async def test_what_comes_of_a_record_counts_before_it_is_whole(serve_rest, log_url):
    rest = await serve_rest(log_url, inflight_bytes_max=2_000)
    part = b'{"value": {"type": "STRING", "data": "' + b"x" * 5_000
    status, answer = await rest.call("POST", RECORDS, part, Content_Type=JSON)
    assert (status, answer["error_code"]) == (429, 42901)
    status, reports = await stream(rest, value(1), part)
    assert (status, reports[0]["error_code"]) in {
        (200, 200),
        (429, 42901),
    }  # as it was cut on its way
    assert rest.gateway.budget.bytes == 0


async def test_a_place_that_is_not_there_has_one_number(rest):
    for path in ("/topics/nowhere", "/topics/nowhere/partitions", "/topics/plain/partitions/2"):
        status, answer = await rest.call("GET", "/v3/clusters/c" + path)
        assert (status, answer["error_code"]) == (404, 40403), path
