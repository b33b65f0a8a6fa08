import asyncio

import pytest

from streamapp.core.errors import Halt, Refuse, Reject, Retry
from streamapp.core.slice import Record
from streamapp.topics.wire import decode_record


async def test_an_event_is_answered_with_its_address_and_kept_as_written(gate):
    body = b'{ "message":"hi",  "type":"Greeting", "conversation_id":"c1","extra":[1, 2.50] }'
    status, answer = await gate.post("/ingest", body)
    assert status == 200
    identity = answer.pop("id")
    assert answer == {
        "status": "received",
        "event_type": "Greeting",
        "partition": 0,
        "offset": 0,
    }
    ((_, record),) = gate.producer.records
    assert record.value == body
    assert record.key == b"c1"
    headers = gate.producer.headers()
    assert headers.pop("ce_time").endswith("Z")
    assert headers == {
        "ce_specversion": "1.0",
        "ce_id": identity,
        "ce_source": "/ingest",
        "ce_type": "Greeting",
        "content-type": "application/json",
    }


async def test_what_was_sent_decodes_to_the_event_that_was_meant(gate):
    body = {
        "id": "e1",
        "text": "hi",
        "source": "chat",
        "actor": "ana",
        "time": 1_000,
        "duration_ms": 5,
        "n": 1,
    }
    await gate.post("/ingest", body)
    ((_, record),) = gate.producer.records
    assert record.key == b"e1"
    event = decode_record(
        Record(0, 0, record.key, record.value, record.headers), event_bytes_max=1 << 20
    )
    assert (event.id, event.type, event.source, event.text) == ("e1", "event", "chat", "hi")
    assert (event.actor, event.time_us, event.duration_ms) == ("ana", 1_000_000, 5.0)
    assert event.payload == '{"n":1}'
    assert gate.producer.headers()["ce_time"] == "1970-01-01T00:00:01.000000Z"


@pytest.mark.parametrize("key", ["retry-1", '"retry-1"'])
async def test_a_retry_with_an_idempotency_key_has_the_same_id_and_key(gate, key):
    for _ in range(2):
        _, answer = await gate.post("/ingest", {"message": "x"}, headers={"Idempotency-Key": key})
        assert answer["id"] == "retry-1"
    assert {record.key for _, record in gate.producer.records} == {b"retry-1"}


async def test_the_body_id_wins_over_the_idempotency_key(gate):
    headers = {"Idempotency-Key": "k"}
    _, answer = await gate.post("/ingest", {"message": "x", "id": "mine"}, headers=headers)
    assert answer["id"] == "mine"


async def test_without_an_id_each_event_gets_its_own(gate):
    ids = {(await gate.post("/ingest", {"message": "x"}))[1]["id"] for _ in range(3)}
    assert len(ids) == 3


async def test_cloudevents_headers_win_over_the_body_and_are_kept(gate):
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "a%20b",
        "ce-source": "/s",
        "ce-type": "T",
        "ce-time": "2026-11-22T09:30:00Z",
        "ce-subject": "Euro%20%E2%82%AC",
    }
    status, answer = await gate.post("/ingest", {"message": "x", "id": "body"}, headers=headers)
    assert (status, answer["id"], answer["event_type"]) == (200, "a b", "T")
    kept = gate.producer.headers()
    assert kept["ce_subject"] == "Euro €"
    assert (kept["ce_id"], kept["ce_source"]) == ("a b", "/s")
    assert kept["ce_time"] == "2026-11-22T09:30:00.000000Z"


async def test_a_missing_content_type_counts_as_json(gate):
    body = b'{"message":"x"}'
    request = b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
    answer = await gate.raw(request % (len(body), body), until=b"received")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Server: streamapp\r\n" in answer


DEEP = b'{"a":' * 500 + b"1" + b"}" * 500
BAD = {
    "not JSON": (b"{message: hi}", 400, "event.json"),
    "not UTF-8": (b'{"message":"\xff"}', 400, "event.utf8"),
    "empty": (b"", 400, "event.empty"),
    "blank": (b" \n ", 400, "event.empty"),
    "array": (b"[]", 400, "event.shape"),
    "string": (b'"hi"', 400, "event.shape"),
    "deep": (DEEP, 400, "event.depth"),
    "very deep": (b"[" * 200_000, 400, "event.depth"),
    "NaN": (b'{"message":"x","v":NaN}', 400, "event.json"),
    "duplicate key": (b'{"message":"x","a":1,"a":2}', 400, "event.duplicate_key"),
    "duplicate field": (b'{"message":"x","message":"y"}', 400, "event.duplicate_key"),
    "id too long": (b'{"id":"%b"}' % (b"x" * 513), 400, "event.field"),
    "message is a list": (b'{"message":["x"]}', 400, "event.field"),
    "message is an object": (b'{"message":{}}', 400, "event.field"),
    "time is no time": (b'{"time":"yesterday"}', 400, "event.time"),
    "lone surrogate": (b'{"id":"\\ud800"}', 400, "event.json"),
    "two objects": (b"{} {}", 400, "event.json"),
    "too large": (b'{"message":"%b"}' % (b"x" * (1 << 20)), 413, "event.too_large"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_event_is_a_problem_with_a_reason_and_a_way_out(gate, name):
    body, status, code = BAD[name]
    got, problem = await gate.post("/ingest", body)
    assert (got, problem["status"], problem["code"]) == (status, status, code)
    assert problem["error"] == problem["detail"] != ""
    assert problem["fix"]
    assert problem["title"]
    assert gate.producer.records == []
    assert (await gate.post("/ingest", {"message": "still here"}))[0] == 200


async def test_a_problem_says_so_in_its_content_type(gate):
    async with gate.http.post(gate.url + "/ingest", data=b"x") as answer:
        assert answer.status == 415
        assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": "text/plain"}, 415, "request.content_type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "request.content_type"),
        ({"Content-Type": "application/json; charset=latin-1"}, 415, "request.charset"),
        ({"Content-Encoding": "br"}, 415, "request.encoding"),
        ({"Idempotency-Key": '""'}, 400, "request.idempotency_key"),
        ({"Idempotency-Key": "x" * 513}, 400, "event.field"),
        ({"ce-specversion": "0.3"}, 400, "event.specversion"),
        ({"ce-specversion": "1.0", "ce-id": "%C0%A0"}, 400, "event.header"),
        ({"ce-specversion": "1.0", "ce-time": "noon"}, 400, "event.time"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "request.origin"),
        ({"Expect": "tea"}, 417, "request.expect"),
    ],
)
async def test_a_bad_header_is_a_problem(gate, headers, status, code):
    got, problem = await gate.post("/ingest", {"message": "x"}, headers=headers)
    assert (got, problem["code"]) == (status, code)
    assert gate.producer.records == []


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (Retry("log.silent", "cannot write /secret/path"), 503),
        (Reject("record.too_large", "too large", "send less"), 413),
        (Refuse("topic.unknown", "no topic in /secret/path", "apply"), 503),
        (Halt("log.broken", "/secret/path is damaged"), 500),
        (RuntimeError("/secret/path"), 500),
    ],
)
async def test_what_the_log_says_reaches_the_client_in_http(gate, failure, status, caplog):
    gate.producer.failures.append(failure)
    async with gate.http.post(gate.url + "/ingest", json={"message": "x"}) as answer:
        assert answer.status == status
        assert ("Retry-After" in answer.headers) == (status == 503)
        text = await answer.text()
    assert "Traceback" not in text
    assert "/secret" not in text
    assert ("/secret" in caplog.text) == (status != 413)
    assert gate.gateway.life.stopping.is_set() == isinstance(failure, Halt)


async def test_nothing_is_answered_before_the_log_has_it(gate):
    gate.producer.open.clear()
    asking = asyncio.create_task(gate.post("/ingest", {"message": "x"}))
    await gate.producer.called.wait()
    assert not asking.done()
    assert gate.gateway.budget.events == 1
    gate.producer.open.set()
    assert (await asking)[0] == 200
    assert gate.gateway.budget.events == gate.gateway.budget.bytes == 0


async def test_when_the_log_is_behind_clients_are_told_to_wait(start):
    gate = await start(inflight_events_max=1)
    gate.producer.open.clear()
    first = asyncio.create_task(gate.post("/ingest", {"message": "x"}))
    await gate.producer.called.wait()
    async with gate.http.post(gate.url + "/ingest", json={"message": "y"}) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        assert (await answer.json(content_type=None))["code"] == "gateway.busy"
    gate.producer.open.set()
    assert (await first)[0] == 200
    assert (await gate.post("/ingest", {"message": "y"}))[0] == 200


async def test_bodies_in_flight_are_bounded_together(start):
    gate = await start(inflight_bytes_max=1_000)
    status, problem = await gate.post("/ingest", b'{"message":"%b"}' % (b"x" * 1_000))
    assert (status, problem["code"]) == (429, "gateway.busy")
    assert gate.gateway.budget.bytes == 0


async def test_a_silence_of_the_log_is_one_line_in_ours(gate, caplog):
    gate.producer.failures += [Retry("log.silent", "cannot write the log")] * 3
    for status in (503, 503, 503, 200):
        assert (await gate.post("/ingest", {"message": "x"}))[0] == status
    assert caplog.text.count("cannot write the log") == 1
    assert "takes events again" in caplog.text
