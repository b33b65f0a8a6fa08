"""A topic's JSON Schema at every door: refused, dead-lettered, or let through and told."""

import asyncio
import hashlib
import hmac
import json
import shutil
from unittest.mock import Mock

import pyarrow as pa
import pytest

from streamapp.core.config import Settings
from streamapp.core.errors import Refuse, Reject
from streamapp.core.metrics import Metrics
from streamapp.gateway.batches import Batches
from streamapp.gateway.schemas import Rules
from streamapp.gateway.sources import declared_sources
from streamapp.gateway.stamp import stamp
from streamapp.topics import catalogue
from streamapp.topics.dead import Letter, Source, read
from streamapp.transport import open_producer

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["total"],
    "properties": {
        "total": {"$ref": "money.v1.json"},
        "items": {"items": {"properties": {"sku": {"pattern": "^[A-Z]+$"}}}},
        "token": {"maxLength": 3},
    },
}
BAD = {"total": -1, "items": [{"sku": "A"}, {"sku": "no"}], "token": "hunter22"}
AT = "at /items/1/sku"
RULE = "event.orders.v1.json#/properties/items/items/properties/sku/pattern"


@pytest.fixture
def topics(tmp_path):
    """A catalogue with the topic ``orders``, which validates."""
    folder = shutil.copytree(catalogue.defaults("topics"), tmp_path / "topics")
    (folder / "schemas" / "event.orders.v1.json").write_text(json.dumps(SCHEMA))
    (folder / "schemas" / "money.v1.json").write_text('{"type": "number", "minimum": 0}')

    def make(policy, schema="event.orders.v1.json"):
        (folder / "orders.toml").write_text(
            'name = "orders"\nabout = ""\npartitions = 1\nrecord_bytes_max = 100_000\n'
            f'schema = "{schema}"\nvalidate = "{policy}"\ndead_letter = "events.dead"\n'
        )
        return catalogue.load(folder)

    return make


def on_raw(topics, policy):
    """The same schema for ``events.raw``, where ``/ingest`` and webhooks go."""
    path = topics(policy).folder / "events.raw.toml"
    text = catalogue.defaults("topics").joinpath("events.raw.toml").read_text()
    text = text.replace("event.v1.json", "event.orders.v1.json")
    path.write_text(f'{text}validate = "{policy}"\n')
    return catalogue.load(path.parent)


def post(gate, event, **options):
    return gate.post("/v1/events/orders", event, **options)


async def test_a_bad_event_is_refused_by_its_path_and_the_rule(start, topics):
    gate = await start(declared=topics("reject"))
    status, answer = await post(gate, [{"total": 3}, BAD, {"total": 4}])
    assert (status, answer["accepted"], answer["rejected"]) == (207, 2, 1)
    told = answer["events"][1]
    assert (told["line"], told["code"], told["status"]) == (2, "event.schema", "rejected")
    assert AT in told["error"]
    assert RULE in told["error"]
    assert (
        "/total: the value is less than the minimum of 0 (rule money.v1.json#/minimum)"
        in (told["error"])
    )
    assert "hunter22" not in str(answer)
    assert "event.orders.v1.json" in told["fix"]
    assert [json.loads(value) for value in gate.producer.values] == [{"total": 3}, {"total": 4}]


async def test_no_more_than_three_reasons_are_told(start, topics):
    gate = await start(declared=topics("reject"))
    many = {"total": 1, "items": [{"sku": "b"}] * 50}
    _, answer = await post(gate, many)
    error = answer["events"][0]["error"]
    assert error.count("(rule ") == 3
    assert error.endswith(", and more")
    assert len(error) < 1_500


async def test_the_ancestors_topic_is_not_checked(start, topics):
    gate = await start(declared=topics("reject"))
    assert (await gate.post("/ingest", BAD))[0] == 200
    assert gate.gateway.targets["events.raw"].rules is None


async def test_dead_letters_are_kept_and_said(start, topics):
    gate = await start(declared=topics("dead-letter"))
    status, answer = await post(gate, [BAD, {"total": 3, "id": "good"}])
    assert (status, answer["accepted"], answer["dead_lettered"], answer["rejected"]) == (
        207, 1, 1, 0,
    )  # fmt: skip
    told = answer["events"][0]
    assert (told["status"], told["topic"], told["offset"]) == ("dead-lettered", "events.dead", 0)
    assert told["code"] == "event.schema"
    assert AT in told["error"]
    where = {address.topic: record for address, record in gate.producer.records}
    assert set(where) == {"orders", "events.dead"}
    assert where["events.dead"].value == json.dumps(BAD).encode()
    assert (
        gate.metrics.registry.get_sample_value(
            "streamapp_ingest_events_total", {"result": "dead-lettered"}
        )
        == 1
    )


async def test_an_event_without_room_to_report_it_is_kept_all_the_same(start, topics):
    gate = await start(declared=topics("dead-letter"))
    status, answer = await post(gate, [BAD, {"total": 1}], params={"wait": "accepted"})
    assert (status, answer["accepted"], answer["dead_lettered"]) == (207, 1, 1)
    assert answer["events"][0]["status"] == "dead-lettered"
    await gate.gateway.delivery.flush()
    assert {address.topic for address, _ in gate.producer.records} == {"orders", "events.dead"}


async def test_a_letter_of_the_edge_is_a_dead_letter_as_others(start, topics):
    gate = await start(declared=topics("dead-letter"))
    await post(gate, {**BAD, "id": "o-1"})
    [(address, record)] = gate.producer.records
    made = type("Record", (), {**record._asdict(), "offset": 0, "timestamp": 5})
    letter = read(address.partition, made)
    assert isinstance(letter, Letter)
    assert letter.source == Source("orders", -1, -1)
    assert str(letter.source) == "orders"
    assert (letter.stage, letter.code) == ("gateway", "event.schema")
    assert AT in letter.reason
    assert dict(letter.headers)["ce_id"] == b"o-1"


async def test_observed_events_pass_with_a_note(start, topics):
    gate = await start(declared=topics("observe"))
    status, answer = await post(gate, [BAD, {"total": 3}])
    assert (status, answer["accepted"]) == (200, 2)
    first, second = answer["events"]
    assert first["violation"]["path"] in {"/total", "/items/1/sku"}
    assert "violation" not in second
    assert gate.producer.headers(0)["streamapp.schema"].startswith("/")
    assert "streamapp.schema" not in gate.producer.headers(1)
    assert (
        gate.metrics.registry.get_sample_value(
            "streamapp_schema_violations_total", {"topic": "orders", "did": "observe"}
        )
        == 1
    )


async def test_one_event_that_is_set_aside_need_not_be_sent_again(start, topics):
    gate = await start(declared=on_raw(topics, "dead-letter"))
    status, answer = await gate.post("/ingest", {**BAD, "id": "o-1", "type": "Order"})
    assert status == 202
    assert (answer["status"], answer["id"], answer["event_type"]) == (
        "dead-lettered",
        "o-1",
        "Order",
    )
    assert (answer["topic"], answer["partition"], answer["offset"]) == ("events.dead", 0, 0)
    assert (answer["code"], AT in answer["error"]) == ("event.schema", True)
    gate = await start(declared=on_raw(topics, "reject"))
    status, problem = await gate.post("/ingest", BAD)
    assert (status, problem["code"], AT in problem["detail"]) == (400, "event.schema", True)
    gate = await start(declared=on_raw(topics, "observe"))
    status, answer = await gate.post("/ingest", BAD)
    assert (status, answer["status"]) == (200, "received")
    assert set(answer["violation"]) == {"path", "rule", "error"}


async def test_webhooks_are_checked(start, topics):
    secret = "It's a Secret to Everybody"
    table = {"repo": {"kind": "github", "secrets": ["PLAIN"]}}
    sources = declared_sources(table, lambda _: secret)
    gate = await start(declared=on_raw(topics, "dead-letter"), webhooks=sources)
    body = json.dumps(BAD).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "X-GitHub-Event": "push", "X-GitHub-Delivery": "d-1",
        "X-Hub-Signature-256": f"sha256={signature}",
    }  # fmt: skip
    status, answer = await gate.post("/webhooks/repo", body, headers=headers)
    assert (status, answer["status"], answer["id"]) == (202, "dead-lettered", "d-1")
    [(address, _)] = gate.producer.records
    assert address.topic == "events.dead"


async def test_what_became_of_them_is_told(start, topics):
    for policy, status in (
        ("reject", "rejected"), ("dead-letter", "dead-lettered"), ("observe", "received")
    ):  # fmt: skip
        gate = await start(declared=topics(policy))
        await post(gate, [{**BAD, "id": "bad"}, {"total": 1, "id": "good"}])
        _, answer = await gate.get("/api/events")
        told = {one["id"]: one for one in answer["events"]}
        assert told["bad"]["status"] == status
        assert "/items/1/sku" in told["bad"]["note"] or "/total" in told["bad"]["note"]
        assert (told["good"]["status"], "note" in told["good"]) == ("received", False)
        _, learned = await gate.get("/api/schemas")
        count = learned["schemas"][0]["count"]
        assert count == (2 if policy == "observe" else 1)  # what did not pass taught nothing


# ---------------------------------------------------------------- every door


async def test_cloudevents_are_checked_by_their_data(start, topics):
    gate = await start(declared=topics("reject"))
    envelope = {"specversion": "1.0", "id": "1", "source": "/a", "type": "T", "data": BAD}
    status, answer = await post(
        gate,
        json.dumps(envelope).encode(),
        headers={"Content-Type": "application/cloudevents+json"},
    )
    assert (status, answer["events"][0]["code"]) == (400, "event.schema")
    binary = {f"ce-{name}": value for name, value in envelope.items() if name != "data"}
    status, answer = await post(gate, BAD, headers=binary)
    assert (status, answer["events"][0]["code"]) == (400, "event.schema")


async def test_arrow_rows_are_checked(start, topics):
    gate = await start(declared=topics("reject"))
    table = pa.table({"total": [1.0, -1.0], "id": ["a", "b"]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    media = {"Content-Type": "application/vnd.apache.arrow.stream"}
    status, answer = await post(gate, sink.getvalue().to_pybytes(), headers=media)
    assert (status, [one["status"] for one in answer["events"]]) == (207, ["received", "rejected"])


async def test_confluent_records_are_checked(serve_rest, log_url, topics):
    rest = await serve_rest(log_url, declared=topics("reject"))
    status, answer = await rest.v2("/topics/orders", [{"value": BAD}, {"value": {"total": 1}}])
    bad, good = answer["offsets"]
    assert (status, bad["error_code"], good["error_code"]) == (200, 42206, None)
    assert AT in bad["message"]
    path = "/v3/clusters/any/topics/orders/records"
    record = {"value": {"type": "JSON", "data": BAD}}
    _, answer = await rest.call("POST", path, record, Content_Type="application/json")
    assert answer["error_code"] == 42206
    assert len(await rest.records("orders")) == 1


async def test_confluent_clients_are_told_of_dead_letters(serve_rest, log_url, topics):
    rest = await serve_rest(log_url, declared=topics("dead-letter"))
    records = [{"value": BAD, "partition": 0}, {"value": {"total": 1}}]
    status, answer = await rest.v2("/topics/orders", records)
    bad, good = answer["offsets"]
    assert (status, bad["error_code"], good["offset"]) == (200, 42206, 0)
    assert "events.dead has it at 0:0" in bad["message"]
    [dead] = await rest.records("events.dead")
    assert json.loads(dead.value) == BAD


@pytest.mark.parametrize("policy", ["reject", "dead-letter"])
async def test_flight_batches_are_checked(log_url, topics, policy, serve_rest):
    await serve_rest(log_url, declared=topics(policy))  # makes the topics
    sender = open_producer(log_url)
    await sender.start()
    try:
        batches = Batches.of(Settings(), sender, topics(policy), Metrics())
        batch = pa.record_batch({"total": [1.0, -1.0], "id": ["a", "b"]})
        outcomes = await asyncio.to_thread(batches.take, "orders", batch, whole=False)
        assert outcomes[0] == "a"
        assert isinstance(outcomes[1], Reject)
        assert ("has it at" in outcomes[1].fix) == (policy == "dead-letter")
        whole = await asyncio.to_thread(batches.take, "orders", batch, whole=True)
        assert isinstance(whole[1], Reject)
        assert "has it at" not in whole[1].fix  # nothing of it was appended
    finally:
        await sender.stop()


# ---------------------------------------------------------------- declarations


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is no JSON object"),
        ('{"properties": {"a": {"type": "nope"}}}', "at /properties/a/type: "),
        ('{"$ref": "https://example.com/a.json"}', "Retrieval is disabled"),
        ('{"$ref": "elsewhere.json"}', "elsewhere.json"),
        ('{"pattern": "(?=a)b"}', "regex"),
        ('{"$schema": "https://json-schema.org/draft/2099/schema"}', "2099"),
    ],
)
async def test_a_schema_that_is_none_refuses_the_start(start, topics, schema, message):
    declared = topics("reject", "event.bad.v1.json")
    path = declared.folder / "schemas" / "event.bad.v1.json"
    path.write_text(schema)
    with pytest.raises(Refuse) as caught:
        await start(declared=declared)
    assert caught.value.code == "topic.schema"
    assert message in caught.value.message
    assert "event.bad.v1.json" in caught.value.message


async def test_a_schema_that_is_not_there_names_those_that_are(start, topics):
    with pytest.raises(Refuse) as caught:
        await start(declared=topics("reject", "event.none.v1.json"))
    assert "event.none.v1.json" in caught.value.message
    assert "event.orders.v1.json" in caught.value.fix


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ('{"properties": {"a": {"items": {"type": "object"}}}}', "at /a/0: the value is not of"),
        (
            '{"properties": {"a": {"items": {"anyOf": [{"type": "object"}, {"type": "null"}]}}}}',
            "at the top: it is too large to say where it is wrong (rule event.large.v1.json)",
        ),
    ],
)
def test_a_large_event_is_not_told_all_that_is_wrong(topics, schema, told):
    """Which would take seconds: the reasons are half a million."""
    declared = topics("reject", "event.large.v1.json")
    folder = declared.folder / "schemas"
    (folder / "event.large.v1.json").write_text(schema)
    checked = Rules(declared["orders"], folder, Metrics())
    asked = Mock(wraps=checked._validator)
    checked._validator = asked
    body = b'{"a":[' + b"1," * 100_000 + b"1]}"
    with pytest.raises(Reject) as caught:
        checked.judged(stamp(body, source="/", received_us=0, bytes_max=1 << 20))
    assert caught.value.message.startswith(told)
    assert not asked.iter_errors.called


async def test_a_pattern_that_would_run_for_ever_does_not(start, topics):
    declared = topics("reject", "event.slow.v1.json")
    path = declared.folder / "schemas" / "event.slow.v1.json"
    path.write_text('{"properties": {"text": {"pattern": "^(a+)+$"}}}')
    gate = await start(declared=declared)
    status, answer = await post(gate, {"text": "a" * 50_000 + "!"})
    assert (status, answer["events"][0]["code"]) == (400, "event.schema")
