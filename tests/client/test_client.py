"""Both clients against a running gateway: what is sent is on the log, once per event."""

import dataclasses
import json
import time
from collections.abc import Mapping
from itertools import chain

import msgspec
import pytest
from gateway_thread import GatewayThread

from streamapp.client import Received, Refuse, Reject, Rejected


@pytest.fixture(scope="module")
def gateway():
    with GatewayThread() as running:
        yield running


@pytest.fixture
def client(kind, gateway):
    with kind(gateway.url) as opened:
        yield opened


@pytest.fixture
def sent(gateway):
    """Events that came to the topic since the test began, in order of arrival per partition."""
    partitions = range(gateway.log.topics()["events.raw"].partitions)
    begin = [gateway.log.bounds("events.raw", p)[1] for p in partitions]

    def get():
        found = (gateway.log.read("events.raw", p, begin[p]).records for p in partitions)
        return list(chain.from_iterable(found))

    return get


def identity(record):
    return dict(record.headers)["ce_id"].decode()


def test_an_event_is_on_the_log_where_the_answer_says(client, gateway):
    got = client.send({"id": "a1", "message": "hello"})
    assert (got.line, got.id) == (1, "a1")
    record = gateway.log.read("events.raw", got.partition, got.offset).records[0]
    assert json.loads(record.value) == {"id": "a1", "message": "hello"}


class Chat(msgspec.Struct):
    message: str


@dataclasses.dataclass
class Talk:
    message: str


class Odd(Mapping):
    def __getitem__(self, name):
        return {"message": "hi"}[name]

    def __iter__(self):
        return iter(["message"])

    def __len__(self):
        return 1


@pytest.mark.parametrize(
    "event", ["hi", {"message": "hi"}, b'{\n "message": "hi"\n}', Chat("hi"), Talk("hi"), Odd()]
)
def test_what_an_event_may_be(client, sent, event):
    client.send(event)
    assert [json.loads(record.value) for record in sent()] == [{"message": "hi"}]


def test_accepted_says_no_place(client, sent):
    got = client.send("hi", wait="accepted")
    assert (got.partition, got.offset) == (None, None)
    while not sent():
        time.sleep(0.01)
    assert [identity(record) for record in sent()] == [got.id]


def test_a_topic(client, gateway):
    with pytest.raises(Refuse) as told:
        client.send("hi", topic="no/where?")
    assert told.value.code == "topic.unknown"
    assert "'no/where?'" in str(told.value)
    assert client.send("hi", topic="events.raw").id


def test_a_bad_event_is_told(client):
    with pytest.raises(Reject) as told:
        client.send({"message": "hi", "time": "yesterday"})
    assert told.value.code == "event.time"
    assert told.value.fix


def test_many_with_their_outcomes(client, sent):
    bad = {"time": "never"}
    circle = {}
    circle["circle"] = circle
    events = [
        {"id": "e1"},
        bad,
        b"",
        "four",
        b'{"x"',
        {1, 2},
        {"id": "e7"},
        {"f": lambda: 0},
        circle,
    ]
    outcomes = list(client.stream(iter(events)))
    assert [outcome.line for outcome in outcomes] == list(range(1, 10))
    told = [o.code if isinstance(o, Rejected) else "" for o in outcomes]
    assert told == [
        *("", "event.time", "event.empty", "", "event.json"),
        *("event.shape", "", "event.json", "event.json"),
    ]
    assert {"e1", "e7", outcomes[3].id} == {identity(record) for record in sent()}


def test_a_report_of_many(kind, gateway, sent):
    events = chain(({"n": n} for n in range(2500)), [{"time": "x"}] * 150)
    with kind(gateway.url, batch_events=100) as client:
        report = client.send_many(events)
    assert (report.accepted_count, report.rejected_count) == (2500, 150)
    assert len(report.rejected) == 100
    assert report.rejected[0].line == 2501
    assert sorted(json.loads(record.value)["n"] for record in sent()) == list(range(2500))


def test_the_same_call_with_the_same_key_makes_the_same_events(kind, gateway, sent):
    events = [{"n": n} for n in range(25)]
    with kind(gateway.url, batch_events=10) as client:
        client.send_many(events, key="upload")
        ids = {identity(record) for record in sent()}
        client.send_many(events, key="upload")
    assert len(ids) == 25
    assert len(sent()) == 50
    assert {identity(record) for record in sent()} == ids


def test_calls_without_a_key_make_different_events(client, sent):
    for _ in range(2):
        client.send("hi")
        client.send_batch(["hi"])
    assert len({identity(record) for record in sent()}) == 4
    assert client.retries == 0


def test_nothing_is_nothing(client):
    assert client.send_batch([]) == []
    assert client.send_many([]).accepted_count == 0


def test_what_is_too_large_together_is_halved(kind, sent):
    with GatewayThread(body_bytes_max=5000) as small, kind(small.url) as client:
        outcomes = client.send_batch([{"id": f"{n}", "x": "y" * 900} for n in range(16)])
        alone = client.send_batch([{"x": "y" * 6000}])
    assert [outcome.id for outcome in outcomes] == [f"{n}" for n in range(16)]
    assert [outcome.line for outcome in outcomes] == list(range(1, 17))
    assert [(o.line, o.code) for o in alone] == [(1, "request.too_large")]


def test_halves_have_ids_of_their_own(kind):
    with GatewayThread(request_events_max=3) as small, kind(small.url) as client:
        outcomes = client.send_batch(["same"] * 10)
        assert all(isinstance(outcome, Received) for outcome in outcomes)
    assert len({outcome.id for outcome in outcomes}) == 10


def test_a_token(kind):
    with GatewayThread(token="s3cret") as guarded:
        with kind(guarded.url, "s3cret") as client:
            assert client.send("hi").id
        with kind(guarded.url, "wrong") as client, pytest.raises(Refuse) as told:
            client.send("hi")
    assert told.value.code == "request.token"


@pytest.mark.parametrize("token", ["a\r\nX: y", "ключ"])
def test_a_token_that_no_header_holds(kind, token):
    with pytest.raises(Refuse) as told:
        kind("http://127.0.0.1:9", token)
    assert told.value.code == "client.token"


@pytest.mark.parametrize("key", ["a\r\nX: y", "ключ", " \t"])
def test_a_key_that_no_header_holds(client, key):
    with pytest.raises(Refuse):
        client.send("hi", key=key)


def test_a_key_with_quotes(client):
    assert client.send("hi", key='say "\\"').id == 'say "\\"-1'


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:9382", "ftp://a", "http://", "http://a:b@c", "http://[::1"),
        *("http://a:99999", "http://a?b", "http://a b", "http://ä/"),
    ],
)
def test_a_url_that_is_none(kind, url):
    with pytest.raises(Refuse) as told:
        kind(url)
    assert told.value.code == "client.url"
    assert "b@c" not in str(told.value)


def test_a_gateway_behind_a_path_is_asked_there(client, gateway, kind):
    with kind(gateway.url + "/deep/") as deep, pytest.raises(Refuse) as told:
        deep.send("hi")
    assert "/deep/v1/events" in str(told.value)
