import json

import pytest

from streamapp.core.errors import Reject, Retry

LINES = {"Content-Type": "application/x-ndjson"}


async def test_an_array_keeps_each_elements_own_bytes(gate):
    status, answer = await gate.post("/v1/events", b'[ {"message": "a"} ,\n{"text":"b",  "n":1.0}]')
    assert status == 200
    assert (answer["accepted"], answer["rejected"]) == (2, 0)
    assert gate.producer.values == [b'{"message": "a"}', b'{"text":"b",  "n":1.0}']
    first = answer["events"][0]
    identity = first.pop("id")
    assert first == {"line": 1, "status": "received", "partition": 0, "offset": 0}
    assert gate.producer.headers(0)["ce_id"] == identity
    assert gate.producer.headers(0)["ce_source"] == "/v1/events"


async def test_lines_are_counted_as_in_the_file_and_blank_ones_are_skipped(gate):
    body = b'\n{"message":"a"}\r\n   \n\n  {"message":"b"}\n'
    status, answer = await gate.post("/v1/events", body, headers=LINES)
    assert (status, [event["line"] for event in answer["events"]]) == (200, [2, 5])
    assert gate.producer.values == [b'{"message":"a"}', b'{"message":"b"}']


async def test_one_object_is_one_event(gate):
    status, answer = await gate.post("/v1/events", b'{\n"message":"a"\n}')
    assert (status, answer["accepted"]) == (200, 1)


async def test_bad_lines_never_cost_good_ones(gate):
    body = b'{"message":"a"}\ngarbage\n{"message":"\xff"}\n[]\n{"message":"b"}'
    status, answer = await gate.post("/v1/events", body, headers=LINES)
    assert status == 207
    assert (answer["accepted"], answer["rejected"]) == (2, 3)
    codes = [event.get("code", event["status"]) for event in answer["events"]]
    assert codes == ["received", "event.json", "event.utf8", "event.shape", "received"]
    assert all("error" in e and "fix" in e for e in answer["events"] if e["status"] == "rejected")
    assert gate.producer.values == [b'{"message":"a"}', b'{"message":"b"}']


async def test_bad_elements_never_cost_good_ones(gate):
    body = b'[{"message":"a"},1,{"message":"\xff"},null,{"message":"b","message":"c"}]'
    status, answer = await gate.post("/v1/events", body)
    assert (status, answer["accepted"], answer["rejected"]) == (207, 1, 4)


async def test_when_none_is_good_the_answer_is_400_with_every_reason(gate):
    status, answer = await gate.post("/v1/events", b"x\ny", headers=LINES)
    assert (status, answer["accepted"], answer["rejected"]) == (400, 0, 2)


async def test_a_record_too_large_for_the_log_costs_only_itself(gate):
    gate.producer.record_bytes_max = 100
    events = [{"message": "x" * (200 if n in {3, 8} else 1), "id": str(n)} for n in range(10)]
    status, answer = await gate.post("/v1/events", events)
    assert status == 207
    refused = [event["line"] for event in answer["events"] if event["status"] == "rejected"]
    assert refused == [4, 9]
    sent = [json.loads(value)["id"] for value in gate.producer.values]
    assert sent == ["0", "1", "2", "4", "5", "6", "7", "9"]
    addresses = {e["id"]: e["offset"] for e in answer["events"] if e["status"] == "received"}
    assert addresses == {identity: offset for offset, identity in enumerate(sent)}


async def test_an_idempotency_key_makes_every_lines_id(gate):
    body = b'{"message":"a"}\n\n{"message":"b","id":"mine"}\n{"message":"c"}'
    for _ in range(2):
        _, answer = await gate.post("/v1/events", body, headers={**LINES, "Idempotency-Key": "k"})
        assert [event["id"] for event in answer["events"]] == ["k-1", "mine", "k-4"]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "code"),
    [
        ("/v1/events/nope", b"[]", {}, 404, "topic.unknown"),
        ("/v1/events/events.enriched", b"[]", {}, 403, "topic.internal"),
        ("/v1/events?wait=maybe", b"[]", {}, 400, "request.wait"),
        ("/v1/events", b"[]", {}, 400, "request.empty"),
        ("/v1/events", b"\n \n", LINES, 400, "request.empty"),
        ("/v1/events", b'[{"a":1},{]', {}, 400, "event.json"),
        ("/v1/events", b"[" * 200_000, {}, 400, "event.depth"),
        ("/v1/events", b"[" + b"1," * 1_000_001 + b"1]", {}, 413, "request.commas"),
        ("/v1/events", b"[" + b"1," * 20_000 + b"1]", {}, 413, "request.events"),
        ("/v1/events", b"1\n" * 20_000, LINES, 413, "request.events"),
        ("/v1/events", b"[]", {"Content-Type": "text/csv"}, 415, "request.content_type"),
    ],
)
async def test_a_bad_request_is_a_problem(gate, path, body, headers, status, code):
    got, problem = await gate.post(path, body, headers=headers)
    assert (got, problem["code"]) == (status, code)
    assert problem["error"]
    assert gate.producer.records == []
    assert gate.gateway.budget.events == 0


async def test_an_unknown_topic_names_those_there_are(gate):
    _, problem = await gate.post("/v1/events/events.rwa", [{"message": "x"}])
    assert "events.rwa" in problem["detail"]
    assert "events.raw" in problem["fix"]


async def test_a_topic_may_be_named(gate):
    assert (await gate.post("/v1/events/events.raw", [{"message": "x"}]))[0] == 200


async def test_a_silent_log_is_503_for_all(gate):
    gate.producer.failures.append(Retry("log.silent", "the log does not answer"))
    status, problem = await gate.post("/v1/events", [{"message": "x"}])
    assert (status, problem["code"]) == (503, "log.silent")
    assert gate.gateway.budget.events == 0


async def test_wait_accepted_answers_before_the_log_and_delivers_through_its_silence(gate):
    gate.producer.open.clear()
    gate.producer.failures.append(Retry("log.silent", "the log does not answer"))
    status, answer = await gate.post("/v1/events?wait=accepted", [{"message": "a"}, 1])
    assert status == 207
    assert [event["status"] for event in answer["events"]] == ["accepted", "rejected"]
    status, _ = await gate.post("/v1/events?wait=accepted", [{"message": "b"}])
    assert status == 202
    assert gate.producer.records == []
    # Each lease still holds what its request brought.
    assert gate.gateway.budget.events == 3
    gate.producer.open.set()
    await gate.gateway.delivery.flush()
    assert sorted(gate.producer.values) == [b'{"message": "a"}', b'{"message": "b"}']
    assert gate.gateway.budget.events == gate.gateway.budget.bytes == 0


async def test_what_was_accepted_counts_against_the_limit(start):
    gate = await start(inflight_events_max=2)
    gate.producer.open.clear()
    assert (await gate.post("/v1/events?wait=accepted", [{"a": 1}, {"a": 2}]))[0] == 202
    assert (await gate.post("/v1/events?wait=accepted", [{"a": 3}]))[0] == 429
    gate.producer.open.set()
    await gate.gateway.delivery.flush()
    assert (await gate.post("/v1/events?wait=accepted", [{"a": 3}]))[0] == 202


async def test_an_accepted_event_that_the_log_refuses_is_counted_and_logged(gate, caplog):
    gate.producer.failures.append(Reject("record.too_large", "too large"))
    await gate.post("/v1/events?wait=accepted", [{"message": "a"}])
    await gate.gateway.delivery.flush()
    assert "an accepted event is lost: too large" in caplog.text
    assert b'ingest_events_total{result="rejected"} 1.0' in gate.metrics.text()


async def test_as_many_events_as_allowed_fit_one_request(gate):
    many = b"\n".join(b'{"message":"%d"}' % n for n in range(10_000))
    status, answer = await gate.post("/v1/events", many, headers=LINES)
    assert (status, answer["accepted"]) == (200, 10_000)
    assert [event["offset"] for event in answer["events"]] == list(range(10_000))
