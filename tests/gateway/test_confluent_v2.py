"""Confluent REST v2 produce and metadata, on the embedded log."""

import json
import re
from base64 import b64encode
from pathlib import Path

import pytest

from streamapp.core.errors import Retry
from streamapp.gateway.confluent import errors

PRODUCE = "application/vnd.kafka.json.v2+json"
V2 = "application/vnd.kafka.v2+json"


def b64(data: bytes) -> str:
    return b64encode(data).decode()


async def test_offsets_come_in_the_order_of_the_records(rest):
    sent = [{"key": f"k{n}", "value": {"n": n}, "partition": n % 2} for n in range(6)]
    status, answer = await rest.v2("/topics/plain", sent)
    assert status == 200
    assert rest.last["Content-Type"] == V2
    assert "X-Streamapp-Partial" not in rest.last
    places = [(o["partition"], o["offset"]) for o in answer["offsets"]]
    assert places == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
    assert answer["offsets"][0] | {"error_code": None, "error": None} == answer["offsets"][0]
    assert (answer["key_schema_id"], answer["value_schema_id"]) == (None, None)
    records = await rest.records("plain", 1)
    assert [(r.key, r.value) for r in records] == [
        (b'"k1"', b'{"n":1}'), (b'"k3"', b'{"n":3}'), (b'"k5"', b'{"n":5}'),
    ]  # fmt: skip


FORMATS = [
    (PRODUCE, [1, "x", None], b'[1,"x",null]'),
    ("application/vnd.kafka.json.v1+json", "t", b'"t"'),
    ("application/vnd.kafka.binary.v2+json", b64(b"\0\xff"), b"\0\xff"),
    ("application/vnd.kafka.binary.v1+json", b64(b"b1"), b"b1"),
    ("application/vnd.kafka.v1+json", b64(b"v1"), b"v1"),
    ("application/vnd.kafka.text.v2+json", "grüß \u0000", "grüß \u0000".encode()),
    (V2, {"a": 1}, b'{"a":1}'),
    ("application/json; charset=utf-8", 3.0, b"3.0"),
]


async def test_every_format_and_its_older_names(rest):
    for kind, value, stored in FORMATS:
        body = {"records": [{"value": value, "partition": 0}]}
        status, _ = await rest.call("POST", "/topics/plain", body, Content_Type=kind)
        assert status == 200
        assert (await rest.records("plain"))[-1].value == stored


async def test_a_null_value_is_a_tombstone_and_strimzis_fields_are_kept(rest):
    record = {
        "key": "k", "value": None, "timestamp": 1_700_000_000_000,
        "headers": [{"key": "h", "value": b64(b"\x01")}, {"key": "h", "value": b64(b"2")}],
    }  # fmt: skip
    status, _ = await rest.v2("/topics/plain/partitions/1", [record], "text")
    assert status == 200
    (stored,) = await rest.records("plain", 1)
    assert (stored.key, stored.value, stored.timestamp) == (b"k", None, 1_700_000_000_000)
    assert list(stored.headers) == [("h", b"\x01"), ("h", b"2")]


async def test_a_partial_failure_is_a_200_that_says_so(rest):
    large = "x" * 200_000
    sent = [
        {"value": 1, "partition": 0},
        {"value": large, "partition": 0},
        {"value": 2, "partition": 9},
    ]
    status, answer = await rest.v2("/topics/plain", sent)
    assert (status, rest.last["X-Streamapp-Partial"]) == (200, "2")
    first, second, third = answer["offsets"]
    assert (first["partition"], first["offset"], first["error_code"]) == (0, 0, None)
    assert (second["error_code"], third["error_code"]) == (50002, 40402)
    assert second["partition"] is None
    assert second["error"] == second["message"] != ""
    assert [r.value for r in await rest.records("plain")] == [b"1"]


WRONG = [
        ("/topics/nowhere", {"records": [{"value": 1}]}, 404, 40401),
        ("/topics/..%2F..%2Fetc", {"records": [{"value": 1}]}, 404, 40401),
        ("/topics/plain/partitions/2", {"records": [{"value": 1}]}, 404, 40402),
        ("/topics/plain/partitions/-1", {"records": [{"value": 1}]}, 404, 40402),
        ("/topics/plain/partitions/x", {"records": [{"value": 1}]}, 404, 40402),
        ("/topics/plain", {}, 422, 422),
        ("/topics/plain", {"records": []}, 422, 422),
        ("/topics/plain", {"records": None}, 422, 422),
        ("/topics/plain", {"records": [1]}, 422, 422),
        ("/topics/plain", {"records": [{"valeu": 1}]}, 422, 422),
        ("/topics/plain", {"records": [{"value": 1, "partition": "0"}]}, 422, 422),
        ("/topics/plain", {"records": [{"value": 1, "timestamp": -1}]}, 422, 422),
        ("/topics/plain", {"records": [{"value": 1, "timestamp": 1 << 62}]}, 422, 422),
        ("/topics/plain/partitions/0", {"records": [{"value": 1, "partition": 0}]}, 422, 422),
        ("/topics/plain", {"records": [{"value": 1, "headers": [{"key": "h", "value": "%"}]}]}, 422, 42206),
        ("/topics/plain", b'{"records":[{"value":1}', 400, 400),
        ("/topics/plain", b'{"records":[{"value":"\xff"}]}', 400, 400),
        ("/topics/plain", b'{"records":' + b"[" * 100_000, 400, 400),
        ("/topics/plain", b'{"records":[' + b",".join([b"{}"] * 10_001) + b"]}", 413, 413),
        ("/topics/plain", b'{"records":[' + b",".join([b"1"] * 1_100_000) + b"]}", 413, 413),
        ("/topics/events.enriched", {"records": [{"value": 1}]}, 403, 40301),
    ]  # fmt: skip


async def test_what_is_wrong_has_confluents_number_and_costs_nothing(rest):
    for path, body, status, code in WRONG:
        got, answer = await rest.call("POST", path, body, Content_Type=PRODUCE)
        assert (got, answer["error_code"]) == (status, code)
        assert answer["message"] == answer["error"] != ""
        assert await rest.records("plain") == []


NO_BASE64 = ["%%%", "a", "YQ", "YQ== ", 3, {"a": 1}]


async def test_wrong_base64_refuses_the_request_before_anything_is_sent(rest):
    for value in NO_BASE64:
        good = {"value": b64(b"x"), "partition": 0}
        status, answer = await rest.v2("/topics/plain", [good, {"value": value}], "binary")
        assert (status, answer["error_code"]) == (422, 42206)
        assert "records[1].value" in answer["message"]
        assert await rest.records("plain") == []


ACCEPTS = [
        ("*/*", 200, V2),
        ("application/json", 200, "application/json"),
        ("application/vnd.kafka.v1+json, application/vnd.kafka+json; q=0.9, application/json; q=0.8",
         200, "application/vnd.kafka.v1+json"),
        ("application/json;q=0.1, application/vnd.kafka.v2+json;q=0.5", 200, V2),
        ("text/html, application/vnd.kafka.v2+json;q=0", 406, "application/json"),
        ("application/vnd.kafka.avro.v2+json", 406, "application/json"),
    ]  # fmt: skip


async def test_accept_is_negotiated_before_anything_is_sent(rest):
    for accept, status, kind in ACCEPTS:
        body = {"records": [{"value": 1, "partition": 0}]}
        got, answer = await rest.call(
            "POST", "/topics/plain", body, Content_Type=PRODUCE, Accept=accept
        )
        assert (got, rest.last["Content-Type"]) == (status, kind)
        assert status == 200 or answer["error_code"] == 406
    assert len(await rest.records("plain")) == sum(case[1] == 200 for case in ACCEPTS)


WITH_REGISTRY = ["avro", "jsonschema", "protobuf"]


async def test_formats_of_a_schema_registry_are_refused(rest):
    for format_ in WITH_REGISTRY:
        status, answer = await rest.v2("/topics/plain", [{"value": 1}], format_)
        assert (status, answer["error_code"]) == (415, 415)


async def test_events_are_validated_and_stamped_and_keep_what_the_client_chose(rest):
    good = {"key": "c7", "value": {"message": "hi", "id": "e1"}, "partition": 2,
            "headers": [{"key": "trace", "value": b64(b"t")}]}  # fmt: skip
    status, answer = await rest.v2("/topics/events.raw", [good, {"value": [1]}, {"value": None}])
    assert (status, rest.last["X-Streamapp-Partial"]) == (200, "2")
    assert [o["error_code"] for o in answer["offsets"]] == [None, 42206, 42206]
    assert "event.shape" in answer["offsets"][1]["message"]
    (stored,) = await rest.records("events.raw", 2)
    assert (stored.key, stored.value) == (b"c7", b'{"message":"hi","id":"e1"}')
    headers = dict(stored.headers)
    assert (headers["ce_id"], headers["ce_source"]) == (b"e1", b"/topics/events.raw")
    assert headers["trace"] == b"t"


async def test_when_no_event_is_one_the_whole_request_is_refused(rest):
    status, answer = await rest.v2("/topics/events.raw", [{"value": 1}, {"value": "x"}])
    assert (status, answer["error_code"]) == (422, 42206)


async def test_ce_headers_of_a_record_are_its_attributes(rest):
    headers = [("ce_id", b"from-header"), ("ce_type", b"greeting"), ("ce_specversion", b"1.0")]
    record = {
        "value": '{"message":"hi","id":"from-body"}', "partition": 0,
        "headers": [{"key": name, "value": b64(value)} for name, value in headers],
    }  # fmt: skip
    assert (await rest.v2("/topics/events.raw", [record], "text"))[0] == 200
    (stored,) = await rest.records("events.raw")
    assert [name for name, _ in stored.headers].count("ce_id") == 1
    assert dict(stored.headers) | {"ce_id": b"from-header", "ce_type": b"greeting"} == dict(
        stored.headers
    )


async def test_a_structured_cloudevent_is_the_record_that_it_is_elsewhere(rest):
    event = {"specversion": "1.0", "id": "e", "source": "/s", "type": "T", "data": {"a": 1}}
    kind = "application/cloudevents+json"
    said = [{"key": "content-type", "value": b64(f"{kind}; charset=UTF-8".encode())}]
    sent = [{"value": event, "headers": said, "partition": 0}]
    assert (await rest.v2("/topics/events.raw", sent))[0] == 200
    status, _ = await rest.call("POST", "/events", event, Content_Type=kind)
    assert status == 200
    (by_v2,) = await rest.records("events.raw")
    found = [record for n in range(4) for record in await rest.records("events.raw", n)]
    (other,) = [record for record in found if record != by_v2]
    assert (by_v2.value, by_v2.key) == (other.value, other.key) == (b'{"a":1}', b"e")
    named = [{k: v for k, v in record.headers if k != "ce_time"} for record in (by_v2, other)]
    assert named[0] == named[1]


@pytest.mark.parametrize(
    "headers",
    [
        [("ce_specversion", b"0.3")],
        [("ce_", b"x")],
        [("ce_Foo Bar", b"x")],
        [("ce_data", b"x")],
        [("ce_id", b"a\x00b")],
        [("ce_id", b"a"), ("ce_id", b"b")],
        [("ce_id", b"\xff")],
    ],
    ids=str,
)
async def test_ce_headers_that_are_no_attributes_are_told(rest, headers):
    said = [{"key": name, "value": b64(value)} for name, value in headers]
    status, answer = await rest.v2("/topics/events.raw", [{"value": {"a": 1}, "headers": said}])
    assert (status, answer["error_code"]) == (422, 42206)


async def test_a_silent_log_is_503_with_a_time_to_come_back(rest, monkeypatch):
    async def silent(*_):
        raise Retry("log.unreachable", "/secret/path does not answer")

    monkeypatch.setattr(rest.producer, "send", silent)
    status, answer = await rest.v2("/topics/plain", [{"value": 1}])
    assert (status, answer["error_code"], rest.last["Retry-After"]) == (503, 50302, "1")
    assert "secret" not in json.dumps(answer)


async def test_too_much_in_flight_is_429(rest):
    rest.gateway.budget.events = rest.gateway.budget.events_max
    status, answer = await rest.v2("/topics/plain", [{"value": 1}])
    assert (status, answer["error_code"], rest.last["Retry-After"]) == (429, 42901, "1")


async def test_a_missing_token_is_told_in_confluents_words(serve_rest, log_url):
    rest = await serve_rest(log_url, token="t")
    status, answer = await rest.call("GET", "/topics")
    assert (status, answer["error_code"]) == (401, 40101)
    assert (await rest.call("GET", "/topics", Authorization="Bearer t"))[0] == 200


async def test_an_unknown_topic_does_not_make_the_gateway_unready(rest):
    assert (await rest.v2("/topics/nowhere", [{"value": 1}]))[0] == 404
    assert (await rest.call("GET", "/readyz"))[0] == 200


async def test_metadata(rest):
    await rest.v2("/topics/plain", [{"value": 1, "partition": 1}] * 3)
    status, topics = await rest.call("GET", "/topics")
    assert (status, "plain" in topics, topics == sorted(topics)) == (200, True, True)
    partition = {
        "partition": 1, "leader": 0, "replicas": [{"broker": 0, "leader": True, "in_sync": True}],
    }  # fmt: skip
    _, topic = await rest.call("GET", "/topics/plain")
    assert (topic["name"], topic["partitions"][1]) == ("plain", partition)
    assert topic["configs"]["max.message.bytes"] == "100000"
    assert (await rest.call("GET", "/topics/plain/partitions"))[1] == topic["partitions"]
    assert (await rest.call("GET", "/topics/plain/partitions/1"))[1] == partition
    offsets = {"beginning_offset": 0, "end_offset": 3}
    assert (await rest.call("GET", "/topics/plain/partitions/1/offsets"))[1] == offsets
    assert (await rest.call("GET", "/brokers"))[1] == {"brokers": [0]}


NOT_THERE = [
    ("/topics/nowhere", 40401),
    ("/topics/nowhere/partitions", 40401),
    ("/topics/plain/partitions/7", 40402),
    ("/topics/plain/partitions/7/offsets", 40402),
    ("/topics/plain/configs", 404),
    ("/consumers/g/instances/i/records", 40403),
]


async def test_what_is_not_there_is_404(rest):
    for path, code in NOT_THERE:
        status, answer = await rest.call("GET", path)
        assert (status, answer["error_code"]) == (404, code)


async def test_a_wrong_method_names_the_right_ones(rest):
    status, answer = await rest.call("PUT", "/topics/plain")
    assert (status, answer["error_code"], rest.last["Allow"]) == (
        405,
        405,
        "GET,HEAD,POST".replace(",", ", "),
    )


def test_the_page_names_every_number_and_no_other():
    page = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()
    section = page[page.index("## Confluent REST") :]
    table = section[section.index("| error_code |") :].split("\n\n")[0]
    ours = {
        value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)
    }
    assert {int(number) for number in re.findall(r"\b4\d{4}\b|\b5\d{4}\b", table)} == {
        number for number in ours if number > 999
    }
