"""One attempt, what its answer means, and how long the next one waits."""

import asyncio
from datetime import UTC, datetime

import pytest
from aiohttp import web
from exporting import export_of

from streamapp.agents.exports.body import Message
from streamapp.agents.exports.lane import _READ_RECORDS
from streamapp.agents.exports.post import RETRY_AFTER_S_MAX, Answer, Pace, Poster
from streamapp.core.clock import SYSTEM

MESSAGE = Message("msg_1", "application/json", b"{}")


class Clock:
    """Half past nine, for ever; but for the receiver's own check of the time."""

    def __init__(self):
        self.now = SYSTEM.now_us()

    def now_us(self):
        return self.now

    def monotonic_s(self):
        return 0.0


@pytest.fixture
async def poster():
    poster = Poster(Clock())
    poster.clock = poster._clock
    yield poster
    await poster.close()


def in_seconds(poster, seconds):
    at = datetime.fromtimestamp(poster.clock.now // 1_000_000 + seconds, UTC)
    return at.strftime("%a, %d %b %Y %H:%M:%S GMT")


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (200, "delivered"),
        (202, "delivered"),
        (301, "refused"),
        (307, "refused"),
        (400, "refused"),
        (401, "refused"),
        (410, "gone"),
        (429, "throttled"),
        (500, "refused"),
        (503, "throttled"),
    ],
)
async def test_what_an_answer_means(answer, outcome, receiver, poster):
    receiver.answers.append((answer, {"Location": f"{receiver.url}/elsewhere"}))
    got = await poster.post(export_of(receiver), MESSAGE)
    assert got.outcome == outcome
    assert receiver.paths == ["/hook"]  # no redirect is followed
    if outcome != "delivered":
        assert got.reason == f"{answer} said"


async def test_nobody_there(poster, receiver):
    got = await poster.post(export_of(receiver, webhook_url="http://127.0.0.1:1/"), MESSAGE)
    assert got.outcome == "failed"
    assert "ClientConnectorError" in got.reason


async def test_a_long_answer_is_not_read_to_its_end(poster, receiver):
    async def endless(request):
        answer = web.StreamResponse(status=400)
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b"\x1b[2Jno \n" * 1000)
        except ConnectionError:
            return 400

    receiver.answers.append(endless)
    got = await poster.post(export_of(receiver), MESSAGE)
    assert got.outcome == "refused"
    assert len(got.reason) < 400
    assert got.reason.isprintable()


@pytest.mark.parametrize(
    ("said", "wait_s"),
    [
        ("7", 7),
        ("0", 0),
        ("999999999999", RETRY_AFTER_S_MAX),
        ("soon", 0),
        ("-5", 0),
        ("", 0),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", 0),
    ],
)
async def test_retry_after_in_seconds(said, wait_s, receiver, poster):
    receiver.answers.append((429, {"Retry-After": said}))
    assert (await poster.post(export_of(receiver), MESSAGE)).retry_after_s == wait_s


@pytest.mark.parametrize(("seconds", "wait_s"), [(120, 120), (-9, 0), (86_400, RETRY_AFTER_S_MAX)])
async def test_retry_after_as_a_date(seconds, wait_s, receiver, poster):
    receiver.answers.append((503, {"Retry-After": in_seconds(poster, seconds)}))
    got = (await poster.post(export_of(receiver), MESSAGE)).retry_after_s
    assert abs(got - wait_s) < 1


def test_waits_double_to_a_limit_and_never_fall_below_what_was_asked_for():
    pace = Pace(1.0, 60.0)
    for attempt, most in [(1, 1), (2, 2), (3, 4), (7, 60), (1000, 60)]:
        waits = {pace.wait_s(attempt, Answer("failed")) for _ in range(50)}
        assert all(most / 2 <= wait <= most for wait in waits)
        assert len(waits) > 1
    assert 100 <= pace.wait_s(1, Answer("throttled", "", 100.0)) <= 150


async def test_a_retry_is_not_sooner_than_its_receiver_asked(source, receiver, exporting):
    receiver.answers.append((503, {"Retry-After": "3600"}))
    await exporting(export_of(receiver))
    await source.send("a")
    await receiver.until(lambda: receiver.attempts)
    await source.send("b", partition=1)  # others go on, and wake nobody
    await receiver.until(lambda: receiver.ids() == ["e1-0"])
    assert max(receiver.attempts.values()) == 1


async def test_what_waits_for_a_slow_receiver_is_bounded(source, receiver, exporting):
    let = asyncio.Event()

    async def held(_request):
        await let.wait()
        return 204

    receiver.answers += [held] * 1000
    exporter = await exporting(export_of(receiver, batch_size=10))
    for _ in range(3 * _READ_RECORDS):
        await source.send("a", "b")
    await receiver.until(lambda: receiver.attempts)
    lanes = exporter._runs[0].lanes._lanes.values()
    [lane] = [lane for lane, _ in lanes if lane._partition == 0]
    assert 1 <= len(lane._ready) <= 2 * _READ_RECORDS
    let.set()
    await receiver.until(lambda: len(receiver.events()) == 6 * _READ_RECORDS)
    assert [e["source_offset"] for e in receiver.events()] == list(range(6 * _READ_RECORDS))
