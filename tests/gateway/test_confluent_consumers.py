"""Confluent's consumer by HTTP, on the embedded log."""

import asyncio
from base64 import b64encode

import pytest
from rest_consumers import EARLIEST, V2, create, fill

from streamapp.transport.clients import Outgoing


@pytest.mark.parametrize("name", ["strimzi", "confluent"])
async def test_commits_are_answered_in_the_words_of_who_asked(rest, name):
    words = {"strimzi": {"enable.auto.commit": False}, "confluent": {"auto.commit.enable": "false"}}
    await fill(rest, "plain", 0, 1, 2)
    consumer = await create(rest, {**EARLIEST, **words[name]})
    await consumer.subscribe("plain")
    records = await consumer.read(3)
    assert ("timestamp" in records[0]) == (name == "strimzi")
    done = {"offsets": [{"topic": "plain", "partition": 0, "offset": 1}]}
    status, answer = await consumer.call("POST", "/offsets", done)
    assert (status, answer) == ((204, None) if name == "strimzi" else (200, []))
    assert await consumer.committed("plain") == (1 if name == "strimzi" else 2)


@pytest.mark.parametrize(
    ("format_", "key", "value"),
    [
        ("binary", b64encode(b"k\xff").decode(), b64encode(b'{"a":1}').decode()),
        ("text", "k\ufffd", '{"a":1}'),
        ("json", None, {"a": 1}),
    ],
)
async def test_every_format(rest, format_, key, value):
    raw = b"k\xff" if key else None
    await rest.producer.send("plain", [Outgoing(b'{"a":1}', raw), Outgoing(None, raw)])
    consumer = await create(rest, {**EARLIEST, "format": format_})
    await consumer.subscribe("plain")
    records = await consumer.read(2, format_)
    assert sorted([r["key"], r["value"]] for r in records if r["value"]) == [[key, value]]
    assert [r["value"] for r in records].count(None) == 1


async def test_another_format_than_the_instances_is_406(rest):
    consumer = await create(rest)
    for accept in ("application/vnd.kafka.binary.v2+json", "application/vnd.kafka.avro.v2+json"):
        status, answer = await consumer.call("GET", "/records", Accept=accept)
        assert (status, answer["error_code"]) == (406, 40601)


async def test_what_is_no_json_is_said_with_its_place_and_can_be_passed(rest):
    await rest.producer.send("plain", [Outgoing(v, partition=0) for v in (b"1", b"\xff", b"2")])
    consumer = await create(rest)
    await consumer.subscribe("plain")
    assert [r["value"] for r in await consumer.read(1)] == [1]
    status, answer = await consumer.call("GET", "/records?timeout=1000")
    assert (status, answer["error_code"]) == (422, 42203)
    assert "plain-0 offset 1" in answer["message"]
    assert "a record's value" in answer["message"]
    past = {"offsets": [{"topic": "plain", "partition": 0, "offset": 2}]}
    await consumer.call("POST", "/positions", past, 204)
    assert [r["value"] for r in await consumer.read(1)] == [2]


async def test_what_is_taken_as_json_is_given_as_json(rest):
    """Numbers have no limits in JSON; what was taken must not be in the way of what follows."""
    numbers = [b"1e999", b"-1E-999", b"9" * 5000]
    kind = "application/vnd.kafka.json.v2+json"
    body = b",".join(b'{"partition":0,"value":%b}' % number for number in numbers)
    records = b'{"records":[%b]}' % body
    status, _ = await rest.call("POST", "/topics/plain", records, Content_Type=kind)
    assert status == 200
    consumer = await create(rest)
    await consumer.subscribe("plain")
    async with asyncio.timeout(60):
        text = b"[]"
        while text == b"[]":
            async with rest.http.get(consumer.uri + "/records") as answer:
                text = await answer.read()
                assert answer.status == 200, text
    assert all(b'"value":' + number + b"," in text for number in numbers)


async def test_an_answer_is_bounded_and_none_is_lost_between_two(rest):
    values = [b"x" * 1000] * 50
    await rest.producer.send("plain", [Outgoing(v, partition=n % 2) for n, v in enumerate(values)])
    consumer = await create(rest, {**EARLIEST, "format": "text"})
    await consumer.subscribe("plain")
    found, answers = [], 0
    while len(found) < 50:
        got = await consumer.call("GET", "/records?max_bytes=5000&timeout=2000", status=200)
        assert len(got) <= 6
        answers += bool(got)
        found += [(r["partition"], r["offset"]) for r in got]
    assert sorted(found) == [(p, o) for p in (0, 1) for o in range(25)]
    assert answers >= 9


async def test_a_wait_ends_when_a_record_comes_or_the_instance_is_deleted(rest):
    consumer = await create(rest)
    await consumer.subscribe("plain")
    assert await consumer.call("GET", "/records?timeout=0", status=200) == []
    waits = asyncio.create_task(consumer.call("GET", "/records?timeout=50000", status=200))
    await fill(rest, "plain", 7)
    assert [r["value"] for r in await waits] == [7]
    waits = asyncio.create_task(consumer.call("GET", "/records?timeout=50000", status=200))
    await asyncio.sleep(0.05)
    await consumer.call("DELETE", status=204)
    assert await waits == []


async def test_a_look_takes_nothing_away(rest):
    await fill(rest, "plain", 1)
    consumer = await create(rest)
    await consumer.subscribe("plain")
    assert (await consumer.call("HEAD", "/records"))[0] == 405
    assert [r["value"] for r in await consumer.read(1)] == [1]


async def test_latest_begins_at_the_end(rest):
    await fill(rest, "plain", 1)
    consumer = await create(rest, {"format": "json"})
    await consumer.subscribe("plain")
    async with asyncio.timeout(60):
        while not (await consumer.call("GET", "/assignments", status=200))["partitions"]:
            pass
    assert await consumer.call("GET", "/records?timeout=0", status=200) == []
    await fill(rest, "plain", 2)
    assert [r["value"] for r in await consumer.read(1)] == [2]


async def test_instances_are_bounded_in_number_and_names_are_unique(serve_rest, log_url):
    rest = await serve_rest(log_url, consumer_instances_max=2)
    named = await create(rest, {"name": "me"}, group="g")
    assert named.uri == f"{rest.url}/consumers/g/instances/me"
    status, answer = await rest.call("POST", "/consumers/g", {"name": "me"}, Content_Type=V2)
    assert (status, answer["error_code"]) == (409, 40902)
    await create(rest, {"name": "me"}, group="other")
    status, answer = await rest.call("POST", "/consumers/g", {}, Content_Type=V2)
    assert (status, answer["error_code"], rest.last["Retry-After"]) == (429, 42901, "1")
    await named.call("DELETE", status=204)
    odd = await create(rest, {"id": "a/b ?ü"}, group="g")
    await odd.subscribe("plain")
    await odd.call("DELETE", status=204)


NO_CONFIG = [
    ({"format": "avro"}, 42204),
    ({"auto.offset.reset": "none"}, 42204),
    ({"auto.offset.reset": ["latest"]}, 42204),
    *(({"name": name}, 42204) for name in (".", "..", "{x}")),
    (b'{"a":[' + b"[]," * 700_000 + b"[]]}", 413),
    ({"auto.commit.enable": "maybe"}, 42204),
    ({"group.id": "x"}, 42204),
    ({"isolation.level": "read_committed"}, 42204),
    ({"consumer.request.timeout.ms": "soon"}, 42204),
    ({"consumer.instance.timeout.ms": 0}, 42204),
    ({"name": 7}, 42204),
    ([], 422),
    (b"{", 400),
]


async def test_a_config_that_is_none(rest):
    for config, code in NO_CONFIG:
        status, answer = await rest.call("POST", "/consumers/g", config, Content_Type=V2)
        assert (status, answer["error_code"]) == (code if code < 1000 else code // 100, code)


@pytest.mark.parametrize("host", ["", "localhost:99999"])
async def test_a_host_that_is_none_costs_no_instance(rest, host):
    answers = [
        await rest.call("POST", "/consumers/g", {"name": "me"}, Content_Type=V2, Host=said)
        for said in (host, "localhost:1")
    ]
    (status, _), (good, created) = answers
    assert (status, good) == (400, 200)
    assert created["base_uri"] == "http://localhost:1/consumers/g/instances/me"


WRONGLY = [
        ("GET", "/records", None, 40903),
        ("GET", "/records?timeout=soon", None, 400),
        ("POST", "/subscription", {}, 422),
        ("POST", "/subscription", {"topics": []}, 422),
        ("POST", "/subscription", {"topics": ["plain"], "topic_pattern": "p.*"}, 422),
        ("POST", "/subscription", {"topic_pattern": "(a*)*"}, 422),
        ("POST", "/subscription", {"topic_pattern": "nothing.*"}, 422),
        ("POST", "/subscription", {"topics": ["nowhere"]}, 40401),
        ("POST", "/subscription", {"topics": ["plain"] * 101}, 422),
        ("POST", "/assignments", None, 40402),
        ("POST", "/assignments", {"partitions": [{"topic": "plain", "partition": 2}]}, 40402),
        ("POST", "/assignments", {"partitions": [{"topic": "plain"}]}, 422),
        ("GET", "/offsets", None, 40402),
        ("POST", "/offsets", {"offsets": [{"topic": "plain", "partition": 0, "offset": -1}]}, 422),
        ("POST", "/positions", {"offsets": [{"topic": "plain", "partition": 0, "offset": 0}]}, 40903),
        ("POST", "/positions/end", {"partitions": [{"topic": "plain", "partition": 0}]}, 40903),
    ]  # fmt: skip


async def test_what_an_instance_is_asked_wrongly(rest):
    consumer = await create(rest)
    for method, path, body, code in WRONGLY:
        status, answer = await consumer.call(method, path, body)
        assert (status, answer["error_code"]) == (code if code < 1000 else code // 100, code)


async def test_a_pattern_names_the_topics_there_are(rest):
    consumer = await create(rest)
    await consumer.call("POST", "/subscription", {"topic_pattern": r"^events\..*a.*"}, 204)
    topics = (await consumer.call("GET", "/subscription", status=200))["topics"]
    assert topics == ["events.dead", "events.raw"]


async def test_v1_reads_a_topic_without_subscribing(rest):
    await fill(rest, "plain", 1)
    consumer = await create(rest, {"auto.offset.reset": "earliest", "id": "v1"})
    accept = {"Accept": "application/vnd.kafka.binary.v1+json"}
    found = []
    while not found:
        found = await consumer.call("GET", "/topics/plain", status=200, **accept)
    assert (found[0]["value"], found[0]["offset"]) == (b64encode(b"1").decode(), 0)
    assert rest.last["Content-Type"] == accept["Accept"]
    status, answer = await consumer.call("GET", "/topics/events.raw", **accept)
    assert (status, answer["error_code"]) == (409, 40901)
