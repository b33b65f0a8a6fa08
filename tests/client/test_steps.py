"""What the client says again, when, and when it stops: no socket, no clock, no waiting."""

import json
from dataclasses import replace

import pytest

from streamapp.client import Patience, Received, Refuse, Rejected, Retry
from streamapp.client.steps import NO_HTTP, Answer, Silence, Steps
from streamapp.core.steps import Pause, retry_after_s

PATIENCE = Patience(retry_s=60, first_s=5, backoff_s=1, backoff_s_max=8)


def taken(ids):
    events = [{"line": n, "status": "received", "id": i} for n, i in enumerate(ids, 1)]
    return Answer(200, json.dumps({"accepted": len(ids), "events": events}).encode())


def problem(status, code="", **more):
    return Answer(status, json.dumps({"code": code, "detail": "why", **more}).encode())


class World:
    """Answers calls from a list, and moves its clock by the pauses."""

    def __init__(self, *answers, patience=PATIENCE):
        self.now_s = 0.0
        self.calls, self.pauses, self.answers = [], [], list(answers)
        self.steps = Steps("http://here/", patience=patience, now_s=lambda: self.now_s)

    def run(self, lines, key="k", **options):
        steps = self.steps.batch(lines, key=key, **{"topic": None, "wait": "ack"} | options)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.now_s += step.seconds
                    step = next(steps)
                else:
                    self.calls.append(step)
                    answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                    step = steps.send(answer(step) if callable(answer) else answer)
        except StopIteration as end:
            return end.value


def echo(call):
    """Takes all of a call."""
    return taken([line.decode() for line in call.body.split(b"\n")])


def test_one_request_has_a_line_for_each_event():
    world = World(echo)
    assert world.run([b"a", b"b"]) == [Received(1, "a"), Received(2, "b")]
    [call] = world.calls
    assert (call.path, call.body) == ("/v1/events", b"a\nb")
    assert call.headers["Idempotency-Key"] == '"k"'
    assert call.headers["Content-Type"] == "application/x-ndjson"


def test_what_is_no_event_is_not_sent_and_keeps_its_place():
    bad = Rejected(2, "event.json", "no")
    world = World(echo)
    assert world.run([b"a", bad, b"c"]) == [Received(1, "a"), bad, Received(3, "c")]
    assert world.calls[0].body == b"a\nc"


def test_nothing_but_bad_events_asks_nobody():
    bad = Rejected(1, "event.json", "no")
    world = World(echo)
    assert world.run([bad]) == [bad]
    assert world.calls == []


@pytest.mark.parametrize("status", [408, 425, 429, 502, 503, 504])
def test_busy_is_asked_again_with_the_same_key_and_body(status):
    world = World(problem(status), Silence("reset"), echo)
    assert world.run([b"a"]) == [Received(1, "a")]
    assert len(set(map(str, world.calls))) == 1
    assert len(world.calls) == 3
    assert world.steps.retries == 2


def test_pauses_double_up_to_a_limit_and_are_shortened_by_chance():
    world = World(*[problem(503)] * 7, echo)
    world.run([b"a"])
    for pause_s, most_s in zip(world.pauses, [1, 2, 4, 8, 8, 8, 8], strict=True):
        assert most_s / 2 <= pause_s <= most_s
    assert len(set(world.pauses)) == 7


def test_retry_after_is_obeyed_also_when_it_is_longer_than_any_pause():
    world = World(replace_header(problem(429), "20"), echo)
    world.run([b"a"])
    assert world.pauses == [20]


def replace_header(answer, value):
    return answer._replace(retry_after=value)


def test_retry_after_beyond_the_patience_ends_it_at_once():
    world = World(replace_header(problem(429), "3600"))
    with pytest.raises(Retry) as told:
        world.run([b"a"])
    assert (told.value.code, world.pauses) == ("client.gave_up", [])


def test_a_gateway_that_stops_is_given_up_in_time():
    world = World(problem(503))
    with pytest.raises(Retry) as told:
        world.run([b"a"])
    assert told.value.code == "client.gave_up"
    assert "HTTP 503: why" in str(told.value)
    assert 40 < world.now_s <= 60


def test_a_gateway_that_never_answered_is_given_up_sooner():
    world = World(Silence("refused"))
    with pytest.raises(Retry) as told:
        world.run([b"a"])
    assert told.value.code == "client.unreachable"
    assert "refused" in str(told.value)
    assert world.now_s <= 5


def test_one_that_answered_once_gets_the_long_patience():
    world = World(echo, Silence("reset"))
    world.run([b"a"])
    with pytest.raises(Retry) as told:
        world.run([b"b"])
    assert told.value.code == "client.gave_up"
    assert world.now_s > 5


def test_no_patience_is_one_attempt():
    world = World(problem(503), patience=replace(PATIENCE, retry_s=0))
    with pytest.raises(Retry):
        world.run([b"a"])
    assert len(world.calls) == 1


@pytest.mark.parametrize(
    "answer",
    [
        problem(401, "request.token"),
        problem(403, "request.scope"),
        problem(404, "topic.unknown"),
        problem(422, "request.idempotency_key"),
        problem(500, "gateway.internal"),
        problem(400, "request.empty"),
    ],
)
def test_what_no_repeat_mends_is_refused_in_the_gateways_words(answer):
    world = World(answer)
    with pytest.raises(Refuse) as told:
        world.run([b"a"])
    assert told.value.code == json.loads(answer.content)["code"]
    assert "why" in str(told.value)
    assert len(world.calls) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b""),
        Answer(200, b"<html>"),
        Answer(302, b""),
        Answer(200, b'{"events": []}'),
        Answer(200, b'{"events": [{}]}'),
        Answer(418, b"\xff\x00"),
    ],
)
def test_a_stranger_s_answer_is_refused(answer):
    with pytest.raises(Refuse) as told:
        World(answer).run([b"a"])
    assert told.value.code == f"http.{answer.status}"


def test_no_http_is_refused_at_once():
    world = World(Silence("bad line", NO_HTTP))
    with pytest.raises(Refuse) as told:
        world.run([b"a"])
    assert told.value.code == NO_HTTP


def test_too_large_is_halved_until_it_fits_with_keys_of_their_own():
    world = World(lambda call: echo(call) if call.body.count(b"\n") < 2 else problem(413))
    outcomes = world.run([b"a", b"b", b"c", b"d", b"e"], first=11)
    assert outcomes == [Received(11 + n, name) for n, name in enumerate("abcde")]
    taken_ = [call for call in world.calls if call.body.count(b"\n") < 2]
    assert [call.headers["Idempotency-Key"] for call in taken_] == ['"k.1"', '"k.2.1"', '"k.2.2"']
    again = World(*world.answers)
    again.run([b"a", b"b", b"c", b"d", b"e"], first=11)
    assert again.calls == world.calls, "a repeat of the call has the same keys"


def test_one_event_that_is_too_large_costs_only_itself():
    world = World(
        lambda call: problem(413, "request.too_large") if b"b" in call.body else echo(call)
    )
    outcomes = world.run([b"a", b"b", b"c"])
    assert outcomes == [
        Received(1, "a"),
        Rejected(2, "request.too_large", "why"),
        Received(3, "c"),
    ]


@pytest.mark.parametrize("status", ["rejected", "dead-lettered", "something new"])
def test_what_the_topic_does_not_have_is_not_received(status):
    line = {"line": 1, "status": status, "code": "c", "error": "e", "fix": "f"}
    world = World(Answer(400, json.dumps({"events": [line]}).encode()))
    assert world.run([b"a"]) == [Rejected(1, "c", "e", "f")]


def test_a_topic_and_what_the_answer_waits_for_are_in_the_url():
    world = World(echo)
    world.run([b"a"], topic="a/b?c", wait="accepted")
    assert world.calls[0].path == "/v1/events/a%2Fb%3Fc?wait=accepted"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        *(("3", 3), ("", 0), ("-1", 0), ("soon", 0), ("³", 0)),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
        ("Sat, 01 Jan 2000 00:01:00 GMT", 60),
    ],
)
def test_retry_after(header, seconds, monkeypatch):
    monkeypatch.setattr("streamapp.core.steps.now_us", lambda: 946_684_800_000_000)
    assert retry_after_s(header) == seconds
