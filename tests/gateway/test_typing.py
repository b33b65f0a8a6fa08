"""An event that says no type gets that of the one learned type that it looks like, or none."""

import json

import pytest

from streamapp.gateway.schemas.guess import EXAMINED_MIN, Guess
from streamapp.gateway.schemas.shape import Shape

JSON = {"Content_Type": "application/json"}


def learned(*events, times=EXAMINED_MIN):
    made = Shape(0, 0)
    for n in range(times):
        made.examine(events[n % len(events)], keep_sample=False)
    return made


ORDER = {"type": "Order", "total": 3, "sku": "A", "message": "hi"}
ORDERS = learned(ORDER, {**ORDER, "total": 1.5, "note": None})


def guess(shapes, event):
    made = Guess()
    made.learn(shapes)
    return made.type_of(json.dumps(event).encode())


@pytest.mark.parametrize(
    "event",
    [
        {"total": 1, "sku": "B"},
        {"total": 1.5, "sku": "B", "note": None, "message": "other", "time": 1, "id": "x"},
        {"sku": "B", "total": 2, "conversation_id": "c", "actor": "human"},
    ],
)
def test_what_looks_the_same_is_the_same(event):
    assert guess({"Order": ORDERS}, event) == "Order"


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"message": "hi"},
        {"total": 1},  # a key that all had is missing
        {"total": 1, "sku": "B", "colour": "red"},  # one that none had
        {"total": "1", "sku": "B"},  # another type
        {"total": None, "sku": "B"},
        {"total": True, "sku": "B"},
        {"total": 1, "sku": "B", "note": "text"},
        {"total": 1, "sku": "B" * 70_000},  # too large to look into
    ],
)
def test_what_does_not_is_not(event):
    assert guess({"Order": ORDERS}, event) is None


def test_two_that_fit_are_none():
    other = learned({"total": 1, "sku": "x"})
    assert guess({"Order": ORDERS, "Offer": other}, {"total": 1, "sku": "B"}) is None
    assert guess({"Order": ORDERS, "Offer": other}, {"total": 1.5, "sku": "B"}) == "Order"


def test_a_type_must_be_known_well():
    few = learned(ORDER, times=EXAMINED_MIN - 1)
    assert guess({"Order": few}, ORDER) is None
    thin = learned({"total": 1}, {"total": 1, "sku": "A"})
    assert guess({"Order": thin}, {"total": 1, "sku": "A"}) is None
    assert guess({"event": ORDERS}, {"total": 1, "sku": "A"}) is None
    cut = learned(ORDER)
    cut.is_cut = True
    assert guess({"Order": cut}, {"total": 1, "sku": "A"}) is None


def test_keys_with_marks_in_them_are_keys():
    shape = learned({"a.b": 1, "c[]": 2})
    assert guess({"T": shape}, {"a.b": 5, "c[]": 5}) == "T"
    assert guess({"T": shape}, {"a": {"b": 5}, "c": [5]}) is None


def test_a_key_of_any_script_is_found():
    shape = learned({"größe": 1, 'a "b"': 2})
    made = Guess()
    made.learn({"T": shape})
    assert made.type_of('{"größe": 5, "a \\"b\\"": 5}'.encode()) == "T"


# ---------------------------------------------------------------- in the gateway


@pytest.fixture
async def taught(rest):
    """A gateway that knows ``Order``."""
    orders = [{"type": "Order", "total": n, "sku": f"s{n}"} for n in range(EXAMINED_MIN)]
    status, _ = await rest.call("POST", "/v1/events", orders, **JSON)
    assert status == 200
    await rest.gateway.watch.catch_up()
    rest.gateway.watch.reconsider()
    return rest


async def headers(rest, id_):
    for partition in range(4):
        for record in await rest.records("events.raw", partition):
            found = dict(record.headers)
            if found["ce_id"] == id_.encode():
                return found
    raise AssertionError(id_)


async def test_it_is_said_in_the_answer_and_in_a_header(taught):
    event = {"id": "u1", "total": 5, "sku": "z"}
    status, answer = await taught.call("POST", "/ingest", event, **JSON)
    assert (status, answer["event_type"]) == (200, "Order")
    found = await headers(taught, "u1")
    assert (found["ce_type"], found["streamapp.type"]) == (b"Order", b"inferred")
    assert list(found).count("ce_type") == 1


async def test_at_every_door(taught):
    event = {"total": 5, "sku": "z"}
    await taught.call("POST", "/v1/events", {"id": "u1", **event}, **JSON)
    await taught.v2("/topics/events.raw", [{"value": {"id": "u2", **event}}])
    lines = json.dumps({"id": "u3", **event}).encode() + b"\n"
    await taught.call("POST", "/v1/events", lines, Content_Type="application/x-ndjson")
    for id_ in ("u1", "u2", "u3"):
        assert (await headers(taught, id_))["ce_type"] == b"Order"


async def test_what_says_its_type_keeps_it(taught):
    for n, kind in enumerate(("event", "Other")):
        event = {"id": f"u{n}", "type": kind, "total": 5, "sku": "z"}
        _, answer = await taught.call("POST", "/ingest", event, **JSON)
        assert answer["event_type"] == kind
        assert "streamapp.type" not in await headers(taught, f"u{n}")
    attributes = {"ce_specversion": "1.0", "ce_id": "u9", "ce_source": "/s", "ce_type": "Said"}
    body = {"total": 5, "sku": "z"}
    await taught.call("POST", "/events", body, **attributes, **JSON)
    assert (await headers(taught, "u9"))["ce_type"] == b"Said"


async def test_what_looks_like_none_is_an_event(taught):
    _, answer = await taught.call("POST", "/ingest", {"total": 5}, **JSON)
    assert answer["event_type"] == "event"


async def test_guesses_do_not_teach(taught):
    for n in range(5):
        await taught.call("POST", "/ingest", {"total": n, "sku": "z"}, **JSON)
    _, order = await taught.call("GET", "/api/schemas/Order")
    assert (order["count"], order["examined"], order["inferred"]) == (
        EXAMINED_MIN + 5,
        EXAMINED_MIN,
        5,
    )


async def test_a_field_that_is_missing_once_is_not_asked_for_any_more(taught):
    await taught.call("POST", "/ingest", {"type": "Order", "sku": "a", "n": 1}, **JSON)
    await taught.call("POST", "/ingest", {"type": "Order", "sku": "a", "total": 1}, **JSON)
    await taught.gateway.watch.catch_up()
    taught.gateway.watch.reconsider()
    _, answer = await taught.call("POST", "/ingest", {"sku": "z", "total": 1}, **JSON)
    assert answer["event_type"] == "event"  # only sku is left, and one key tells nothing


async def test_another_gateway_guesses_by_what_this_one_learned(taught, serve_rest, log_url):
    sharing = taught.gateway.opening[0].__self__
    await sharing.sync()
    await sharing._publish(float("inf"))
    other = await serve_rest(log_url)
    await other.gateway.opening[0].__self__.sync()
    _, answer = await other.call("POST", "/ingest", {"total": 5, "sku": "z"}, **JSON)
    assert answer["event_type"] == "Order"
