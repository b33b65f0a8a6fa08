"""What is learned of events: the union of each type, small, without secrets, kept and shared."""

import asyncio
import json

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.errors import Retry
from streamapp.gateway.schemas import learned, shape, shared, watch
from streamapp.gateway.schemas.describe import json_schema, steps_of
from streamapp.gateway.schemas.learned import Learned
from streamapp.gateway.schemas.sample import REDACTED, redacted
from streamapp.gateway.schemas.shape import Shape, cells_of, path_of
from streamapp.testing import FakeClock
from streamapp.topics.catalogue import SCHEMAS

JSON = {"Content_Type": "application/json"}
DAY_US = 86_400 * 1_000_000


async def seen(rest, kind):
    status, answer = await rest.call("GET", f"/api/schemas/{kind}")
    return answer if status == 200 else None


async def ingest(rest, *events):
    status, answer = await rest.call("POST", "/v1/events", list(events), **JSON)
    assert status == 200, answer


def test_the_union_of_fields_counts_events():
    made = Shape(0, 0)
    for event in (
        {"a": 1, "items": [{"sku": "x"}, {"sku": None, "n": 1}]},
        {"a": 1.5, "b.c": {"d e": True}, "items": []},
    ):
        made.examine(event, keep_sample=False)
    fields = {path: (field.count, field.types) for path, field in made.fields.items()}
    assert fields == {
        "a": (2, ["integer", "number"]),
        "items": (2, ["array"]),
        "items[]": (1, ["object"]),
        "items[].sku": (1, ["null", "string"]),
        "items[].n": (1, ["integer"]),
        '["b.c"]': (1, ["object"]),
        '["b.c"]["d e"]': (1, ["boolean"]),
    }
    assert made.examined == 2


KEYS = st.text('ab.[]"\\ é', max_size=4)
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
EVENTS = st.dictionaries(KEYS, ANY, max_size=4)
FEW = settings(max_examples=40, deadline=None)


@FEW
@given(st.lists(EVENTS, min_size=1, max_size=6))
def test_the_json_schema_takes_every_event_that_was_examined(events):
    made = Shape(0, 0)
    for event in events:
        made.examine(event, keep_sample=True)
    schema = json_schema("T", made)
    takes = jsonschema_rs.Draft202012Validator(schema)
    for event in events:
        takes.validate(event)
    msgspec.json.encode(made)


@FEW
@given(st.lists(EVENTS, min_size=2, max_size=6), st.integers(1, 5))
def test_parts_add_up_to_what_one_would_have_seen(events, cut):
    whole, parts = Shape(0, 0), (Shape(0, 0), Shape(0, 0))
    for n, event in enumerate(events):
        whole.examine(event, keep_sample=False)
        parts[n >= cut].examine(event, keep_sample=False)
    joined = Shape(0, 0)
    for part in parts:
        joined.join(part)
    assert joined == whole


@FEW
@given(st.text(max_size=20), st.text(max_size=20))
def test_a_path_leads_back_to_its_keys(outer, inner):
    [(_, _), (path, _)] = cells_of({outer: {inner: 1}})
    assert steps_of(path) == [outer, inner]
    assert shape.is_top(path_of(outer))
    assert not shape.is_top(path)


def test_a_hostile_event_costs_no_more_than_its_limits():
    deep = {}
    at = deep
    for _ in range(60):
        at["x"] = {}
        at = at["x"]
    made = Shape(0, 0)
    made.examine(deep, keep_sample=True)
    assert len(made.fields) == shape.DEPTH_MAX
    wide = {f"k{n}": n for n in range(5_000)}
    made.examine(wide, keep_sample=True)
    assert len(made.fields) == shape.FIELDS_MAX
    assert made.is_cut
    made.examine({"@context": ["x" * 5_000]}, keep_sample=True)
    for n in range(9):
        made.examine({"@context": f"https://example.com/{n}"}, keep_sample=True)
    assert made.contexts == [f"https://example.com/{n}" for n in range(4)]
    long = {f"n{n}": "y" * 500 for n in range(500)}
    assert len(msgspec.json.encode(redacted(long))) <= 4_096
    assert len(msgspec.json.encode(made)) < 100_000


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("password", "x"), ("userPassword", "x"), ("API_KEY", "x"), ("api.key", 5),
        ("Authorization", "x"), ("refresh-token", {"a": 1}), ("client_secret", "x"),
        ("session_id", "x"), ("cvv", 123), ("pin", "0000"), ("cardNumber", "x"), ("cpf", "1"),
        ("note", "Bearer abcdefghijkl"), ("note", "eyJhbGciOi.eyJzdWIiOiI.sig"),
        ("note", "x-eyJ" + "a" * 480 + ".eyJzdWIiOiI.sig"),
        ("note", "the key is sk_live_abcdefgh1234"), ("note", "ghp_" + "a" * 36),
        ("note", "-----BEGIN RSA PRIVATE KEY-----"), ("note", "https://bob:hunter2@example.com/"),
        ("note", "card 4111 1111 1111 1111 please"), ("number", 4111111111111111),
        ("note", "whsec_c2VjcmV0c2VjcmV0"), ("note", "AKIAIOSFODNN7EXAMPLE"),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_in_no_sample(key, value):
    assert redacted({key: value, "deep": [{key: value}]}) == {
        key: REDACTED,
        "deep": [{key: REDACTED}],
    }


def test_what_is_none_stays():
    plain = {
        "author": "Ann", "message": "hello 12345", "total": 41, "at": 1_700_000_000_000,
        "ok": True, "nothing": None, "url": "https://example.com/a?b=c", "spin": 1.5,
    }  # fmt: skip
    assert redacted(plain) == plain
    assert redacted({"message": "m" * 500})["message"] == "m" * 120 + "…"
    assert redacted({"password": None}) == {"password": None}


def test_types_are_bounded_and_the_seldom_one_makes_room():
    book = Learned("me")
    for n in range(learned.TYPES_MAX):
        book.own(f"t{n}", n).count = learned.RARE if n else 1
    book.touched("t0", 0, is_new=True)
    assert len(list(book.due(99))) == 1
    assert book.own("new", 999) is not None
    assert "t0" not in book.all()
    assert "new" in book.all()
    book.own("new", 999).count = learned.RARE
    assert book.own("one more", 1_000) is None
    assert (book.unkept, len(book.all())) == (1, learned.TYPES_MAX)
    [(key, value)] = [pair for pair in book.due(0) if pair[1] is None]
    assert (json.loads(key), value) == (["t0", "me"], None)


def test_a_type_that_was_not_published_leaves_no_tombstone():
    book = Learned("me")
    for n in range(learned.TYPES_MAX + 500):
        book.own(f"t{n}", n).count = 1
        book.touched(f"t{n}", 0, is_new=True)
    assert all(value is not None for _, value in book.due(99))


def test_records_of_others_are_bounded_and_nonsense_is_passed_over():
    book = Learned("me")
    for key, value in ((None, None), (b"x", b"{}"), (b'["a","b"]', b"[]"), (b'["a"]', b"{")):
        book.take(key, value, is_past=True)
    assert book.all() == {}
    value = msgspec.json.encode(Shape(1, 2, count=1))
    for n in range(learned.PARTS_MAX + 5):
        book.take(json.dumps([f"t{n}", "you"]).encode(), value, is_past=False)
    assert len(book.all()) == learned.PARTS_MAX


def test_a_gateway_that_is_gone_is_taken_over_once():
    ours, theirs = Learned("ours"), Learned("theirs")
    old = theirs.own("T", 0)
    old.count = 7
    theirs.touched("T", 0, is_new=True)
    published = list(theirs.due(99))
    for key, value in published:
        ours.take(key, value, is_past=True)
    ours.own("T", 8 * DAY_US).count = 1
    ours.take_over(6 * DAY_US, 0)
    assert list(ours.due(1)) == []  # not yet
    ours.take_over(8 * DAY_US, 0)
    assert ours.whole("T").count == 8
    (key, value), (gone, nothing) = ours.due(1)
    assert msgspec.json.decode(value)["count"] == 8
    assert (gone, nothing) == (published[0][0], None)
    reader = Learned("third")
    for pair in (*published, (key, value), (gone, nothing)):
        reader.take(*pair, is_past=False)
    assert reader.whole("T").count == 8


async def test_counts_alone_are_published_seldom_and_news_soon():
    book = Learned("me")
    book.own("T", 0)
    book.touched("T", 0, is_new=False)
    assert list(book.due(50)) == []
    book.touched("T", 50, is_new=True)
    assert list(book.due(51)) == []
    assert len(list(book.due(52))) == 1
    assert list(book.due(999)) == []


# ---------------------------------------------------------------- in the gateway


async def test_a_type_is_told_with_its_fields_sample_and_context(rest):
    await ingest(
        rest,
        {"type": "Order", "total": 1, "@context": "https://schema.org"},
        {"type": "Order", "total": 2.5, "card": {"number": "4111111111111111", "name": "Ann"}},
    )
    order = await seen(rest, "Order")
    assert (order["count"], order["examined"], order["inferred"]) == (2, 2, 0)
    assert order["fields"]["total"] == {"count": 2, "types": ["integer", "number"]}
    assert order["fields"]["card.name"] == {"count": 1, "types": ["string"]}
    assert order["contexts"] == ["https://schema.org"]
    assert order["sample"]["card"] == {"number": REDACTED, "name": "Ann"}
    assert order["first_seen"] <= order["last_seen"]
    _, listed = await rest.call("GET", "/api/schemas")
    [one] = listed["schemas"]
    assert (one["type"], one["fields"]) == ("Order", len(order["fields"]))
    status, problem = await rest.call("GET", "/api/schemas/Nothing")
    assert (status, problem["code"]) == (404, "schema.unknown")


async def test_every_door_teaches(rest):
    event = {"total": 1}
    await rest.call("POST", "/ingest", {**event, "type": "a"}, **JSON)
    await rest.call("POST", "/v1/events", b'{"type":"b"}\n', Content_Type="application/x-ndjson")
    envelope = {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": "com.acme/c",
        "data": event,
    }
    await rest.call("POST", "/events", envelope, Content_Type="application/cloudevents+json")
    await rest.v2("/topics/events.raw", [{"value": {**event, "type": "d"}}])
    await rest.v2("/topics/plain", [{"value": {**event, "type": "no event"}}])
    _, listed = await rest.call("GET", "/api/schemas")
    assert [one["type"] for one in listed["schemas"]] == ["a", "b", "com.acme/c", "d"]
    assert (await seen(rest, "com.acme/c"))["fields"]["total"]["count"] == 1
    assert await seen(rest, "com.acme%2Fc")


@pytest.mark.parametrize("learn", ["off", "shapes"])
async def test_learning_can_be_less(serve_rest, log_url, learn):
    rest = await serve_rest(log_url, learn=learn)
    await ingest(rest, {"type": "T", "a": 1})
    told = await seen(rest, "T")
    assert told is None if learn == "off" else (told["count"], told["sample"]) == (1, None)
    _, answer = await rest.call("GET", "/api/events")
    assert [one["type"] for one in answer["events"]] == ["T"]


async def test_it_is_kept_across_a_restart_and_shared_by_gateways(serve_rest, log_url, monkeypatch):
    monkeypatch.setattr(shared, "_EVERY_S", 0.05)
    monkeypatch.setattr(learned, "_SHAPE_S", 0.05)
    first = await serve_rest(log_url)
    second = await serve_rest(log_url)
    await ingest(first, {"type": "T", "a": 1}, {"type": "T", "a": 2})
    await ingest(second, {"type": "T", "b": "x"}, {"type": "U"})

    async def agree(rest):
        told = await seen(rest, "T")
        return told and told["count"] == 3 and {"a", "b"} <= set(told["fields"]) and told

    async with asyncio.timeout(30):
        while not (await agree(first) and await agree(second)):
            await asyncio.sleep(0.1)
    third = await serve_rest(log_url)
    async with asyncio.timeout(10):
        while not (told := await agree(third)):
            await asyncio.sleep(0.05)
    assert told["fields"]["a"] == {"count": 2, "types": ["integer"]}
    records = (await first.reader.read(SCHEMAS, 0, 0)).records
    assert {json.loads(record.key)[0] for record in records} == {"T", "U"}


async def test_one_goes_on_from_its_own_part(rest):
    """A gateway with a port of its own has its name again after a restart."""
    sharing = rest.gateway.opening[0].__self__
    before = Learned("me")
    before.own("T", 5).count = 4
    before.touched("T", 0, is_new=True)
    for key, value in before.due(9):
        await rest.producer.send(SCHEMAS, [watch.Outgoing(value, key, partition=0)])
    await sharing.stop()
    fresh = type(sharing)(
        watch.Watch({"events.raw"}, Learned("me"), "samples", FakeClock()),
        sharing._log,
        [],
        FakeClock(),
    )
    fresh._learned.own("T", 9).count = 1  # seen before the log was read
    await fresh.sync()
    assert fresh._learned.whole("T").count == 5
    fresh._learned.touched("T", 0, is_new=True)
    await fresh._publish(9)
    last = (await rest.reader.read(SCHEMAS, 0, 0)).records[-1]
    assert json.loads(last.value)["count"] == 5


async def test_what_could_not_be_published_is_published_later(rest, caplog):
    sharing = rest.gateway.opening[0].__self__
    await sharing.sync()
    send, calls = rest.producer.send, []

    async def fail(topic, records):
        if topic == SCHEMAS:
            calls.append(records)
            raise Retry("log.down", "the log does not answer")
        return await send(topic, records)

    rest.producer.send = fail
    await ingest(rest, {"type": "T"})
    await rest.gateway.watch.catch_up()
    for _ in range(3):
        assert not await sharing._guarded("x", sharing._publish(float("inf")))
    assert len(calls) == 3
    assert caplog.text.count("the log does not answer") == 1
    rest.producer.send = send
    assert await sharing._guarded("x", sharing._publish(0))
    [record] = (await rest.reader.read(SCHEMAS, 0, 0)).records
    assert json.loads(record.key)[0] == "T"


async def test_what_came_last_is_published_at_the_end(serve_rest, log_url):
    rest = await serve_rest(log_url)
    sharing = rest.gateway.opening[0].__self__
    await sharing.sync()
    await ingest(rest, {"type": "T"})
    await sharing.stop()
    [record] = (await rest.reader.read(SCHEMAS, 0, 0)).records
    assert json.loads(record.key)[0] == "T"


async def test_a_fast_type_leaves_looks_for_others(rest):
    book = rest.gateway.watch
    for kind in ("fast", "slow"):
        record = watch.Outgoing(b'{"a": 1}', b"k", [("ce_type", kind.encode())])
        for _ in range(watch.LOOKS_MAX // 50 + 1 if kind == "fast" else 1):
            records = [record] * (50 if kind == "fast" else 5)
            book._learn(records, [kind.encode()] * len(records), 0)
    fast, slow = (book.learned.whole(kind) for kind in ("fast", "slow"))
    assert (fast.count, fast.examined) == (watch.LOOKS_MAX + 50, watch.LOOKS_MAX)
    assert (slow.count, slow.examined) == (5, 5)


async def test_what_waits_is_bounded(rest):
    book = rest.gateway.watch
    record = watch.Outgoing(b"{}" + b" " * (1 << 20), b"k", [("ce_type", b"T")])
    address = watch.Address("events.raw", 0, 0)
    for _ in range(40):
        book.sent("events.raw", [record], [address])
    assert book.unseen == 40 - 31  # 32 MB
    await book.catch_up()
    assert book._waiting_bytes == book._waiting_events == 0
    book.sent("events.raw", [record], [address])
    assert book.unseen == 9
