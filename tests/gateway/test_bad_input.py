"""What comes in from broken, hostile and odd clients, at every door."""

import asyncio
import io
import json

import pyarrow as pa
import pyarrow.ipc
import pytest

from streamapp.core.errors import Refuse
from streamapp.core.project import read_secret
from streamapp.gateway.life import Life

EVENT = b'{"message":"hi"}'
CE = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "T"}
V3 = "/v3/clusters/any/topics/plain/records"
#: path, Content-Type, how a body begins.
DOORS = [
    ("/ingest", "application/json", b'{"mess'),
    ("/v1/events", "application/x-ndjson", EVENT + b"\n{"),
    ("/events", "application/cloudevents+json", b'{"specversion":'),
    ("/topics/plain", "application/vnd.kafka.json.v2+json", b'{"records":[{"value":1'),
    (V3, "application/json", b'{"value":{"type":"JSON","da'),
    (V3 + ":batch", "application/json", b'{"entries":['),
    ("/consumers/group", "application/vnd.kafka.v2+json", b'{"format":'),
]


def head(path, kind, more=b""):
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n".encode() + more


async def send(gate, request, until=b""):
    """Bytes to the port of either kind of gateway; what came back."""
    host, _, port = gate.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        got = b""
        while chunk := await reader.read(65_536):
            got += chunk
            if until and until in got:
                break
        return got
    finally:
        writer.close()


@pytest.mark.parametrize(("path", "kind", "begun"), DOORS)
async def test_a_chunked_body_that_stalls_is_told(serve_rest, log_url, path, kind, begun):
    rest = await serve_rest(log_url, body_s_max=0.1)
    chunk = b"%x\r\n%b\r\n" % (len(begun), begun)
    request = head(path, kind, b"Transfer-Encoding: chunked\r\n\r\n") + chunk
    answer = await send(rest, request, until=b"408")
    assert b"408" in answer
    assert b"Traceback" not in answer
    assert rest.gateway.budget.bytes == 0


@pytest.mark.parametrize(("path", "kind", "begun"), DOORS)
async def test_a_body_on_its_way_does_not_keep_a_stopping_gateway(
    serve_rest, log_url, monkeypatch, path, kind, begun
):
    monkeypatch.setattr("streamapp.gateway.life.STOPPING_BODY_S", 0.05)
    rest = await serve_rest(log_url)
    request = head(path, kind, b"Content-Length: 1000\r\n\r\n") + begun
    sending = asyncio.create_task(send(rest, request, until=b"503"))
    while not rest.gateway.life.requests:
        await asyncio.sleep(0.01)
    rest.gateway.life.stop()
    async with asyncio.timeout(20):
        assert b"503" in await sending
        await rest.gateway.life.idle()


async def test_a_body_that_ends_soon_is_still_taken_by_a_stopping_gateway():
    life = Life()
    async with life.body(60.0):
        life.stop()
    async with life.body(60.0):
        await asyncio.sleep(0)


async def test_ten_thousand_headers_are_refused_and_cost_nothing(rest):
    many = b"".join(b"X-%d: x\r\n" % n for n in range(10_000))
    for path, kind, _ in DOORS:
        answer = await send(rest, head(path, kind, many + b"Content-Length: 2\r\n\r\n{}"))
        assert answer.split()[1] in {b"400", b"431"}
        assert b".py" not in answer
    assert await rest.records("plain") == await rest.records("plain", 1) == []
    assert (await rest.v2("/topics/plain", [{"value": 1}]))[0] == 200


@pytest.mark.parametrize("path", ["/ingest", "/v1/events", "/events"])
async def test_a_null_is_no_event(gate, path):
    status, problem = await gate.post(path, b"null")
    (said,) = problem.get("events", [problem])
    assert (status, said["code"]) == (400, "event.shape")
    lines = await gate.post(
        "/v1/events", b"null\n" + EVENT, headers={"Content-Type": "application/x-ndjson"}
    )
    assert (lines[0], lines[1]["accepted"]) == (207, 1)
    assert gate.producer.values == [EVENT]


async def test_a_tombstone_is_for_topics_of_any_bytes_only(rest):
    status, answer = await rest.v2("/topics/events.raw", [{"key": "k", "value": None}])
    assert (status, answer["error_code"]) == (422, 42206)
    assert (await rest.v2("/topics/plain", [{"key": "k", "value": None}]))[0] == 200
    kept = await rest.records("plain") + await rest.records("plain", 1)
    assert [(record.key, record.value) for record in kept] == [(b'"k"', None)]


@pytest.mark.parametrize("lacking", ["ce-specversion", "ce-id", "ce-source", "ce-type"])
async def test_half_a_cloudevent_is_none(gate, lacking):
    """Its other headers would be lost, and with them what tells repeats apart."""
    headers = {name: value for name, value in CE.items() if name != lacking}
    status, problem = await gate.post("/events", EVENT, headers=headers)
    assert (status, problem["events"][0]["status"]) == (400, "rejected")
    status, answer = await gate.post("/ingest", EVENT, headers=headers)
    if lacking == "ce-specversion":
        assert (status, answer["code"]) == (400, "event.specversion")
        assert gate.producer.records == []
    else:  # /ingest fills in what an event does not say
        assert status == 200


async def test_ce_headers_that_are_no_utf_8_are_refused_at_both_doors(gate):
    for path in ("/ingest", "/events"):
        for name in (b"ce-id", b"ce-type", b"ce-x"):
            ce = {k.encode(): v.encode() for k, v in CE.items()} | {name: b"\xc0\xa0"}
            lines = b"".join(b"%b: %b\r\n" % pair for pair in ce.items())
            request = head(path, "application/json", lines + b"Content-Length: 16\r\n\r\n" + EVENT)
            answer = await send(gate, request, until=b"event.header")
            assert answer.startswith(b"HTTP/1.1 400")
    assert gate.producer.records == []


@pytest.mark.parametrize("field", ["id", "type", "source"])
@pytest.mark.parametrize("text", ["a\x00", "\n1", "\x7f", "\ufdd0", "\x9f"])
async def test_a_control_character_is_in_no_attribute(gate, field, text):
    status, problem = await gate.post("/ingest", {field: text})
    assert (status, problem["code"]) == (400, "event.field")
    sink = io.BytesIO()
    table = pa.table({field: [text, "fine"]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    arrow = {"Content-Type": "application/vnd.apache.arrow.stream"}
    status, answer = await gate.post("/v1/events", sink.getvalue(), headers=arrow)
    assert (status, [event["status"] for event in answer["events"]]) == (
        207,
        ["rejected", "received"],
    )
    assert (await gate.post("/ingest", {field: "é \u2028 😀"}))[0] == 200
    assert len(gate.producer.records) == 2


@pytest.mark.parametrize(("number", "status"), [(2**31 - 1, 200), (-(2**31), 200), (2**31, 400)])
async def test_an_integer_of_a_cloudevent_has_32_bits(gate, number, status):
    event = {name.removeprefix("ce-"): value for name, value in CE.items()} | {"count": number}
    headers = {"Content-Type": "application/cloudevents+json"}
    got, answer = await gate.post("/events", json.dumps(event).encode(), headers=headers)
    assert got == status
    if status == 400:
        assert answer["events"][0]["code"] == "event.attribute"


async def test_a_map_with_a_key_twice_costs_only_its_row(gate):
    kind = pa.map_(pa.string(), pa.int64())
    maps = pa.array([[("a", 1)], [("a", 1), ("a", 2)], None], kind)
    for more in ({}, {"payload": ['{"b":1}', None, None]}):  # the second is read row by row
        table = pa.table({"m": maps, **more})
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write(table)
        arrow = {"Content-Type": "application/vnd.apache.arrow.stream"}
        status, answer = await gate.post("/v1/events", sink.getvalue(), headers=arrow)
        assert (status, answer["accepted"]) == (207, 2)
        assert answer["events"][1]["code"] == "event.duplicate_key"
    assert [json.loads(value).get("m") for value in gate.producer.values] == [{"a": 1}, None] * 2


@pytest.mark.parametrize("path", ["/v3", "/v3/acls", "/topics/", "/subjects", "/schemas/ids/1"])
async def test_a_path_of_confluents_that_we_lack_is_told_in_its_words(rest, path):
    status, answer = await rest.call("GET", path)
    said = {"error_code": 404, "message": "HTTP 404 Not Found", "error": "HTTP 404 Not Found"}
    assert (status, answer) == (404, said)


@pytest.mark.parametrize(
    "reference", ["env:whsec_c2VjcmV0", "file:whsec_c2VjcmV0", "whsec_c2VjcmV0"]
)
def test_a_secret_in_the_place_of_its_name_is_not_shown(tmp_path, reference):
    with pytest.raises(Refuse) as refused:
        read_secret(reference, tmp_path, environ={})
    assert "c2Vjc" not in str(refused.value)
