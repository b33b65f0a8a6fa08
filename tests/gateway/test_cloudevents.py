import json
from urllib.parse import quote

import pytest
from cloudevents.core.bindings import http, kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from streamapp.core.slice import Record
from streamapp.gateway.cloudevents import binary_attributes
from streamapp.topics.wire import decode_record

CE = {"ce-specversion": "1.0", "ce-id": "a1", "ce-source": "/shop", "ce-type": "Order"}
STRUCTURED = {"Content-Type": "application/cloudevents+json"}
BATCH = {"Content-Type": "application/cloudevents-batch+json"}
ENVELOPE = {"specversion": "1.0", "id": "a1", "source": "/shop", "type": "Order"}
PATHS = ("/events", "/v1/events", "/v1/events/events.raw")


def event(**more):
    attributes = {
        "id": "a1",
        "source": "/shop",
        "type": "Order",
        "subject": 'é 50% "x"',
        "vip": "yes",
    }
    return CloudEvent(attributes | more, {"message": "hello", "n": 1.5})


def as_stored(gate, index=-1):
    """The last record as a Kafka consumer of the official SDK reads it."""
    record = gate.producer.records[index][1]
    message = kafka.KafkaMessage(dict(record.headers), record.key, record.value)
    return kafka.from_kafka(message, JSONFormat(), CloudEvent)


def row(gate, index=-1):
    """The last record as our store reads it."""
    record = gate.producer.records[index][1]
    return decode_record(Record(0, 0, *record[1::-1], record.headers), event_bytes_max=1 << 20)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("write", [http.to_binary, http.to_structured])
async def test_the_sdk_s_event_is_the_same_event_on_the_topic(gate, path, write):
    sent = event()
    message = write(sent, JSONFormat())
    status, answer = await gate.post(path, bytes(message.body), headers=dict(message.headers))
    assert (status, answer["accepted"], answer["events"][0]["id"]) == (200, 1, "a1")
    stored = as_stored(gate)
    assert stored.get_data() == sent.get_data()
    assert (stored.get_id(), stored.get_source(), stored.get_type()) == ("a1", "/shop", "Order")
    assert (stored.get_subject(), stored.get_extension("vip")) == (sent.get_subject(), "yes")
    assert row(gate).text == "hello"


async def test_structured_becomes_what_binary_becomes(gate):
    data = b'{"message": "hi",  "n":1.0}'
    envelope = {**ENVELOPE, "time": "2026-11-22T09:30:00Z", "vip": True, "n": 7, "none": None}
    value = json.dumps(envelope)[:-1].encode() + b', "data": ' + data + b"}"
    headers = {f"ce-{k}": v for k, v in envelope.items() if isinstance(v, str)}
    headers |= {"ce-vip": "true", "ce-n": "7"}
    assert (await gate.post("/events", value, headers=STRUCTURED))[0] == 200
    assert (await gate.post("/events", data, headers=headers))[0] == 200
    (_, structured), (_, binary) = gate.producer.records
    assert structured.value == binary.value == data
    assert dict(structured.headers) == dict(binary.headers)
    assert structured.key == binary.key


async def test_a_batch_reports_every_event_and_bad_ones_cost_only_themselves(gate):
    batch = [
        {**ENVELOPE, "data": {"message": "a"}},
        {**ENVELOPE, "id": ""},
        {**ENVELOPE, "id": "a2", "data_base64": "eyJtZXNzYWdlIjoiYiJ9"},
        {**ENVELOPE, "data": {}, "data_base64": "e30="},
        {**ENVELOPE, "data_base64": "e3"},
        {**ENVELOPE, "datacontenttype": "text/plain", "data": "x"},
        {**ENVELOPE, "datacontenttype": "application/cloudevents+json", "data": ENVELOPE},
        {**ENVELOPE, "vip": {"a": 1}},
        {**ENVELOPE, "VIP": "x"},
        {**ENVELOPE, "specversion": "0.3"},
        {**ENVELOPE, "subject": "a\tb"},
        {**ENVELOPE, "data": [1]},
        {**ENVELOPE, "id": 5},
        [],
        {**ENVELOPE, "id": "a3"},
    ]
    status, answer = await gate.post("/v1/events", batch, headers=BATCH)
    assert status == 207
    codes = [one.get("code", one["status"]) for one in answer["events"]]
    assert codes == [
        "received", "event.attribute", "received", "event.field", "event.field",
        "event.datacontenttype", "event.datacontenttype", "event.attribute", "event.attribute",
        "event.specversion", "event.attribute", "event.shape", "event.attribute", "event.shape",
        "received",
    ]  # fmt: skip
    assert gate.producer.values == [
        b'{"message":"a"}'.replace(b":", b": "),
        b'{"message":"b"}',
        b"{}",
    ]
    assert all("error" in one and "fix" in one for one in answer["events"] if "code" in one)


async def test_an_envelope_is_measured_before_it_is_read(gate):
    body = b'{"data":{"a":[' + b"[]," * 700_000
    kind = {"Content-Type": "application/cloudevents+json"}
    status, answer = await gate.post("/events", body, headers=kind)
    assert (status, answer["events"][0]["code"]) == (400, "event.too_large")


async def test_an_empty_batch_is_a_batch(gate):
    assert await gate.post("/events", b"[]", headers=BATCH) == (
        200,
        {"accepted": 0, "rejected": 0, "events": []},
    )


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_an_event_without_data_is_an_event_and_no_tombstone(gate, mode):
    if mode == "binary":
        status, _ = await gate.post("/events", b"", headers=CE)
    else:
        status, _ = await gate.post("/events", ENVELOPE, headers=STRUCTURED)
    assert (status, gate.producer.values) == (200, [b"{}"])
    assert row(gate).type == "Order"


async def test_the_partition_key_is_the_record_s_key_and_stays_an_attribute(gate):
    for body, headers in [
        (b'{"conversation_id":"c"}', CE | {"ce-partitionkey": "p%2F1"}),
        (json.dumps({**ENVELOPE, "partitionkey": "p/1"}).encode(), STRUCTURED),
    ]:
        assert (await gate.post("/events", body, headers=headers))[0] == 200
        assert gate.producer.records[-1][1].key == b"p/1"
        assert gate.producer.headers()["ce_partitionkey"] == "p/1"
    status, answer = await gate.post("/events", b"{}", headers=CE | {"ce-partitionkey": "p" * 513})
    assert (status, answer["events"][0]["code"]) == (400, "event.field")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a%20b", "a b"),
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ('"a \\"quoted\\" \\\\ one%21"', 'a "quoted" \\ one!'),
        ('"', '"'),
        ("%2520", "%20"),
        ("50%", "50%"),
        ("%zz", "%zz"),
        ("plain", "plain"),
    ],
)
async def test_a_header_is_unquoted_and_decoded_once(gate, sent, kept):
    assert (await gate.post("/events", b"{}", headers=CE | {"ce-subject": sent}))[0] == 200
    assert gate.producer.headers()["ce_subject"] == kept


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"]), min_size=1), max_size=4)
)
def test_any_text_comes_through_a_header(texts):
    wanted = {f"x{n}": text for n, text in enumerate(texts)}
    headers = CE | {f"CE-X{n}": quote(text, safe="") for n, text in enumerate(texts)}
    got = binary_attributes(CIMultiDictProxy(CIMultiDict(headers)), whole=True)
    assert {name: text for name, text in got.items() if name.startswith("x")} == wanted


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"ce-subject": "%C0%A0"}, "event.header"),
        ({"ce-subject": "%ED%A0%80"}, "event.header"),
        ({"ce-subject": "a%0Ab"}, "event.attribute"),
        ({"ce-datacontenttype": "application/json"}, "event.header"),
        ({"ce-data": "x"}, "event.attribute"),
        ({"ce-a_b": "x"}, "event.attribute"),
        ({"ce-specversion": "2.0"}, "event.specversion"),
        ({"ce-time": "noon"}, "event.time"),
        ({"ce-id": ""}, "event.attribute"),
        ({"ce-id": "x" * 513}, "event.field"),
    ],
)
async def test_a_bad_attribute_is_told(gate, headers, code):
    status, answer = await gate.post("/events", b"{}", headers=CE | headers)
    assert (status, answer["rejected"], answer["events"][0]["code"]) == (400, 1, code)
    assert gate.producer.records == []


@pytest.mark.parametrize("missing", CE)
async def test_a_required_attribute_that_is_missing_is_named(gate, missing):
    headers = {name: value for name, value in CE.items() if name != missing}
    status, answer = await gate.post("/events", b"{}", headers=headers)
    assert (status, answer["events"][0]["code"]) == (400, "event.attribute")
    assert missing.removeprefix("ce-") in answer["events"][0]["error"]


async def test_bytes_that_are_no_text_and_headers_that_come_twice_are_told(gate):
    start = (
        b"POST /events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n"
    )
    known = "".join(f"{name}: {value}\r\n" for name, value in CE.items()).encode()
    for bad in (b"ce-subject: \xff\xfe", b"ce-subject: a\r\nce-subject: b", b"ce-id: again"):
        answer = await gate.raw(start + known + bad + b"\r\n\r\n{}")
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"event.header" in answer
    answer = await gate.raw(start + known + b"Content-Type: application/json; a=\xff\r\n\r\n{}")
    assert answer.startswith(b"HTTP/1.1 415")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": "application/cloudevents+xml"}, 415, "request.content_type"),
        ({"Content-Type": "application/cloudevents-batch+avro"}, 415, "request.content_type"),
        (CE | {"Content-Type": "text/plain"}, 415, "request.content_type"),
        (CE | {"Content-Type": "application/json; charset=latin1"}, 415, "request.charset"),
        (BATCH, 400, "event.json"),
    ],
)
async def test_another_format_is_not_taken(gate, headers, status, code):
    got, problem = await gate.post("/events", b"{}", headers=headers)
    assert (got, problem["code"]) == (status, code)


async def test_the_media_type_counts_before_the_headers(gate):
    headers = CE | STRUCTURED | {"ce-id": "header"}
    _, answer = await gate.post("/events", {**ENVELOPE, "id": "body"}, headers=headers)
    assert answer["events"][0]["id"] == "body"


async def test_the_data_s_own_json_type_goes_with_it(gate):
    headers = CE | {"Content-Type": "application/vnd.acme+json; v=1"}
    assert (await gate.post("/events", b'{"a":1}', headers=headers))[0] == 200
    assert gate.producer.headers()["content-type"] == "application/vnd.acme+json; v=1"


@pytest.mark.parametrize("path", PATHS)
async def test_the_delivery_handshake_is_granted_without_a_token(start, path):
    gate = await start(token="s3cret")
    asked = {
        "WebHook-Request-Origin": "events.example.com",
        "WebHook-Request-Rate": "120",
        "WebHook-Request-Callback": "https://events.example.com/confirm?id=1",
    }
    async with gate.http.options(gate.url + path, headers=asked) as answer:
        assert answer.status == 200
        assert answer.headers["WebHook-Allowed-Origin"] == "events.example.com"
        assert answer.headers["WebHook-Allowed-Rate"] == "*"
        assert answer.headers["Allow"] == "OPTIONS, POST"
    async with gate.http.options(gate.url + path) as answer:
        assert answer.status == 200
        assert not [name for name in answer.headers if name.lower().startswith("webhook")]
    bad = {"WebHook-Request-Origin": "<script>"}
    async with gate.http.options(gate.url + path, headers=bad) as answer:
        assert answer.status == 400
    assert (await gate.post(path, b"{}", headers=CE))[0] == 401


async def test_a_trace_goes_with_every_record(gate):
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    trace = {"traceparent": parent, "tracestate": "a=1,b=2"}
    assert (await gate.post("/events", b"{}", headers=CE | trace | {"ce-traceparent": "own"}))[
        0
    ] == 200
    assert (await gate.post("/ingest", {"message": "x"}, headers=trace))[0] == 200
    assert (await gate.post("/v1/events", [{"a": 1}, {"a": 2}], headers=trace))[0] == 200
    assert [gate.producer.headers(n)["traceparent"] for n in range(4)] == [parent] * 4
    assert gate.producer.headers(3)["tracestate"] == "a=1,b=2"
    assert gate.producer.headers(0)["ce_traceparent"] == "own"
    for bad in (
        "",
        "00-0-0-0",
        parent.upper(),
        "ff" + parent[2:],
        parent + "-x",
        "00-" + "0" * 32 + parent[35:],
    ):
        assert (await gate.post("/ingest", {"message": "x"}, headers=trace | {"traceparent": bad}))[
            0
        ] == 200
        assert "traceparent" not in gate.producer.headers()
        assert "tracestate" not in gate.producer.headers()
    later = "01" + parent[2:] + "-more"
    await gate.post("/ingest", {"message": "x"}, headers={"traceparent": later})
    assert gate.producer.headers()["traceparent"] == later


NODE = """
const {CloudEvent, HTTP, httpTransport, emitterFor, Mode} = require("cloudevents");
(async () => {
  const url = process.argv[2];
  // Its binary mode does not encode what is beyond ASCII, which no HTTP client sends.
  const make = (id) => new CloudEvent({id, type: "Order", source: "/shop",
                                       subject: id === "n2" ? "é €" : "e",
                                       vip: "yes", data: {message: "hello " + id}});
  for (const [id, mode] of [["n1", Mode.BINARY], ["n2", Mode.STRUCTURED]]) {
    const {headers, body} = mode === Mode.BINARY ? HTTP.binary(make(id)) : HTTP.structured(make(id));
    const answer = await fetch(url, {method: "POST", headers, body});
    if (answer.status !== 200) throw new Error(id + ": " + await answer.text());
  }
  await emitterFor(httpTransport(url))(make("n3"));
})().catch((error) => { console.error(error); process.exit(1); });
"""


async def test_npm_cloudevents(gate, node):
    await node(NODE, gate.url + "/events")
    assert [gate.producer.headers(n)["ce_id"] for n in range(3)] == ["n1", "n2", "n3"]
    assert [json.loads(value)["message"] for value in gate.producer.values] == [
        "hello n1",
        "hello n2",
        "hello n3",
    ]
    assert {gate.producer.headers(n)["ce_vip"] for n in range(3)} == {"yes"}
    assert gate.producer.headers(1)["ce_subject"] == "é €"
