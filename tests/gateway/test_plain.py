"""Many events at once have the records that each would have alone."""

import gc
import json
import sys
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from taken import each

from streamapp.core.errors import Reject
from streamapp.gateway import plain
from streamapp.gateway.cloudevents import stamp_envelope
from streamapp.gateway.plain import Making
from streamapp.gateway.stamp import stamp
from streamapp.topics._stamp import stamp as stamp_all
from streamapp.topics._stamp import stamp_one
from streamapp.transport.bundle import Bundle

MAKING = Making("/v1/events", 1_700_000_000_123_000, 400, [("traceparent", b"00-1")])
CLOUDEVENTS = MAKING._replace(is_enveloped=True)
LINES = {"Content-Type": "application/x-ndjson"}

#: Every field, every way to be no event, and what the C extension leaves to Python.
EVENTS = [
    b'{"message":"hi","id":"a","type":"T","source":"/s","conversation_id":"c","time":"2024-02-29T23:59:59.5+01:00"}',
    b'{"text":"hi"}', b'{"id":7,"type":null,"conversation":""}', b'{"time":1700000000001}', b'{"time":"0001-01-02T00:00:00Z"}',
    b'{"type":"event"}', b'{"x":{"type":1}}', b'{"t\\u0079pe":"event"}', b'{"a":1,"a":2}', b'{"a":1e999}', b"{", b"[]", b"1",
    b'{"message":"\xff"}', b'{"id":"' + b"x" * 513 + b'"}', b'{"message":"' + b"y" * 400 + b'"}', b'{"time":"noon"}',
    b'{"duration_ms":-1}', b'{"id":"a\\u0000b"}', b'{"source":"a\\nb"}', '{"type":"é\u2028"}'.encode(), b'{"id":"\\ufffe"}',
    b'{"x":"\\ud800"}', b'{"attachments":[1]}',
]  # fmt: skip

WHOLE = b'"specversion":"1.0","id":"a","source":"/s","type":"T"'
#: The same of CloudEvents: every attribute, every kind of data, and what is told or left.
ENVELOPES = [
    b"{%s,%s}" % (WHOLE, more)
    for more in (
        b'"data":{"message":"hi"}', b'"data":{"id":"z","type":"Q","source":"/q","conversation_id":"c","time":1700000000001}',
        b'"time":"2024-02-29T23:59:59.5+01:00","data":{"time":1}', b'"subject":"x","partitionkey":"k","vip":"\\u00e9\\"","data":{}',
        b'"partitionkey":"' + b"x" * 513 + b'","data":{}', b'"datacontenttype":"application/json","data": {"x" : [1, 2]} ',
        b'"datacontenttype":"text/plain","data":"x"', b'"datacontenttype":"application/x+json","data":{}', b'"data":[1]',
        b'"data":null', b'"data_base64":"e30="', b'"data":{},"data_base64":"e30="', b'"n":7,"b":true,"none":null,"data":{}',
        b'"empty":"","data":{}', b'"VIP":"x","data":{}', b'"a_b":"x","data":{}', b'"v\\u0069p":"x","data":{}', b'"time":"noon","data":{}',
        b'"subject":"a\\tb","data":{}', b'"subject":"\\ufdd0","data":{}', b'"id":"b","data":{}', b'"data":{"a":1,"a":2}', b'"data":{"id":{}}',
        b'"' + b"n" * 65 + b'":"x","data":{}', b'"x":{"y":1},"data":{}', b'"data":{},"data":{}', b'"data":{"message":"\xff"}',
        b'"data":{"message":"' + b"y" * 300 + b'"}', b'"data":{"message":"' + b"y" * 400 + b'"}',
    )
] + [
    b'{"data":{"message":"first"},%s}' % WHOLE, b' { %s, "data" : {} } ' % WHOLE, b"{%s}" % WHOLE, b"{", b"[]", b"{}", b"",
    b'{"specversion":"0.3","id":"a","source":"/s","type":"T","data":{}}', b'{"id":"a","source":"/s","type":"T","data":{}}',
    b'{"specversion":"1.0","id":"","source":"/s","type":"T","data":{}}', b'{"specversion":"1.0","id":5,"source":"/s","type":"T","data":{}}',
    b'{"specversion":"1.0","source":"/s","type":"T","data":{}}', b'{"specversion":"1.0","id":"a\\u0000","source":"/s","type":"T","data":{}}',
    b'{"specversion":"1.0","id":"' + b"x" * 513 + b'","source":"/s","type":"T","data":{}}', b'{%s,"data":{}} x' % WHOLE,
]  # fmt: skip


@pytest.fixture(autouse=True)
def only_python(monkeypatch):
    """What is alone is made by the rules themselves."""
    monkeypatch.setattr("streamapp.gateway.stamp.make_record", lambda *_: None)


def alone(line, value, prefix, making):
    one = partial(
        stamp,
        source=making.source,
        received_us=making.received_us,
        bytes_max=making.bytes_max,
        id_if_none=f"{prefix}-{line}",
        trace=making.trace,
    )
    try:
        return stamp_envelope(one, value, making.bytes_max) if making.is_enveloped else one(value)
    except Reject as error:
        return error.code, error.message


def made(pieces, making=MAKING, id_prefix="k"):
    return list(each(plain.groups(pieces, making, id_prefix=id_prefix)))


def assert_same(values, making=MAKING):
    pieces = list(enumerate(values, 1))
    got = [
        (line, (found.code, found.message) if isinstance(found, Reject) else found)
        for line, found in made(pieces, making)
    ]
    assert got == [(line, alone(line, value, "k", making)) for line, value in pieces]


@pytest.mark.parametrize("value", EVENTS)
def test_an_event_among_others_has_the_record_that_it_has_alone(value):
    others = [b'{"message":"other","id":"o"}'] * 8
    assert_same([*others, value, *others])


def test_all_of_them_together():
    assert_same(EVENTS * 3)
    assert_same([value for value in EVENTS if b"\\u0000" not in value and b"\\n" not in value] * 50)


@pytest.mark.parametrize("value", ENVELOPES)
def test_a_cloudevent_among_others_has_the_record_that_it_has_alone(value):
    others = [b'{%s,"data":{"message":"other"}}' % WHOLE] * 8
    assert_same([*others, value, *others], CLOUDEVENTS)


def test_all_cloudevents_together():
    assert_same(ENVELOPES * 3, CLOUDEVENTS)


@pytest.mark.parametrize("value", EVENTS)
@pytest.mark.parametrize("id_if_none", ["k", "é"])
def test_one_event_has_the_record_that_the_rules_make(value, id_if_none, monkeypatch):
    def made():
        try:
            return stamp(
                value,
                source="/ingest",
                received_us=1_795_336_200_123_456,
                bytes_max=400,
                id_if_none=id_if_none,
                trace=[("traceparent", b"00-1")],
            )
        except Reject as error:
            return error.code, error.message

    expected = made()
    monkeypatch.undo()
    assert made() == expected


FIELDS = ["id", "type", "source", "conversation", "conversation_id", "message", "time", "x"]


@given(
    st.lists(
        st.one_of(
            st.dictionaries(
                st.sampled_from(FIELDS),
                st.none() | st.booleans() | st.integers(0, 2**45) | st.text(max_size=5),
                max_size=5,
            ).map(lambda event: json.dumps(event).encode()),
            st.sampled_from(EVENTS),
            st.binary(max_size=12),
        ),
        min_size=8,
        max_size=30,
    )
)
@settings(deadline=None, max_examples=60)
def test_any_events_have_the_records_that_they_have_alone(values):
    assert_same(values)


@given(
    st.lists(
        st.one_of(
            st.dictionaries(
                st.sampled_from([*FIELDS, "specversion", "subject", "partitionkey", "data", "vip"]),
                st.none() | st.integers(0, 2**33) | st.text(max_size=5) | st.just({"id": "d"}),
                max_size=4,
            ).map(lambda more: json.dumps(json.loads(ENVELOPES[0]) | more).encode()),
            st.sampled_from(ENVELOPES),
            st.sampled_from(ENVELOPES).map(lambda value: value[:-2]),
        ),
        min_size=8,
        max_size=30,
    )
)
@settings(deadline=None, max_examples=60)
def test_any_cloudevents_have_the_records_that_they_have_alone(values):
    assert_same(values, CLOUDEVENTS)


@pytest.mark.parametrize(
    ("making", "value"),
    [
        (MAKING, b'{"type":"T","message":"%d","time":"2024-01-01T00:00:00Z"}'),
        (CLOUDEVENTS, b'{%s,"subject":"x","data":{"message":"%%d"}}' % WHOLE),
    ],
)
def test_events_in_plain_form_are_not_parsed_one_by_one(making, value, monkeypatch):
    def never(*_, **__):
        raise AssertionError("an event was parsed alone")

    monkeypatch.setattr(plain, "stamp", never)
    values = [value % n for n in range(2_000)]
    assert len(made(list(enumerate(values)), making)) == 2_000


def test_a_turn_has_an_end_in_events_and_in_bytes(monkeypatch):
    turns = []

    def counted(values, *rest):
        turns.append((len(values), sum(map(len, values))))
        return stamp_all(values, *rest)

    monkeypatch.setattr("streamapp.topics.records.stamp", counted)
    small, large = b'{"id":"x"}', b'{"message":"' + b"x" * 300_000 + b'"}'
    making = MAKING._replace(bytes_max=1 << 20)
    values = [small] * 1_500 + [large] * 40
    assert len(made(list(enumerate(values)), making)) == 1_540
    assert max(count for count, _ in turns) <= 512
    assert max(size for _, size in turns) <= 1 << 20


async def test_events_without_an_id_get_one_that_nobody_else_has(gate):
    body = b'{"message":"hi"}\n' * 20
    for _ in range(2):
        assert (await gate.post("/v1/events", body, headers=LINES))[0] == 200
    assert len({record.key for _, record in gate.producer.records}) == 40
    assert len({gate.producer.headers(n)["ce_id"] for n in range(40)}) == 40


async def test_each_line_is_answered_in_its_place(gate):
    body = b"\n\n".join([b'{"id":"%d"}' % n if n % 3 else b"{" for n in range(30)])
    status, answer = await gate.post("/v1/events", body, headers=LINES)
    assert (status, answer["accepted"], answer["rejected"]) == (207, 20, 10)
    for n, report in enumerate(answer["events"]):
        assert report["line"] == 2 * n + 1
        assert report.get("id") == (str(n) if n % 3 else None)


@pytest.mark.parametrize("bad", [0, 700])
async def test_a_body_goes_to_the_log_in_one_bundle_whatever_lines_are_bad(gate, bad, monkeypatch):
    sent, send = [], gate.producer.send

    async def kept(topic, records):
        sent.append(records)
        return await send(topic, records)

    monkeypatch.setattr(gate.producer, "send", kept)
    lines = [b'{"type":"T","id":"%d"}' % n for n in range(1_000)]
    lines[5] = b'{"t\\u0079pe":"T","id":"odd"}'  # an event that is not in plain form
    if bad:
        lines[bad] = b"{"
    status, answer = await gate.post("/v1/events", b"\n".join(lines), headers=LINES)
    assert (status, answer["accepted"], answer["rejected"]) == (
        (207, 999, 1) if bad else (200, 1_000, 0)
    )
    (records,) = sent
    assert isinstance(records, Bundle)
    assert [record.key for record in records] == [
        b"odd" if n == 5 else b"%d" % n for n in range(1_000) if n != (bad or None)
    ]
    assert [one.get("offset") for one in answer["events"] if one["status"] == "received"] == list(
        range(answer["accepted"])
    )
    await gate.gateway.watch.catch_up()
    assert gate.gateway.watch.learned.whole("T").count == answer["accepted"]


def test_what_is_stamped_is_not_held():
    value, number, enveloped = b'{"id":"x","type":"T"}', 1 << 40, ENVELOPES[0]
    gc.collect()  # what earlier tests left behind holds None too
    before = sys.getrefcount(value), sys.getrefcount(number), sys.getrefcount(None)
    for _ in range(5_000):
        stamp_all((value, b"{"), (number, 1), b"/s", b"p-", b"", 0, 1_000, False)
        stamp_all((enveloped, b"{"), (number, 1), b"/s", b"p-", b"", 0, 1_000, True)
        stamp_one(value, "/s", "p", 0)
        stamp_one(b"{", "/s", "p", 0)
    after = sys.getrefcount(value), sys.getrefcount(number), sys.getrefcount(None)
    gone = [abs(one - other) for one, other in zip(before, after, strict=True)]
    assert max(gone[:2]) < 10, gone
    assert gone[2] < 4_000, "threads and the collector count None as well: a leak is 5,000"


@pytest.mark.parametrize(
    ("values", "numbers", "error"),
    [
        (("text",), (1,), TypeError),
        ((b"{}",), ("1",), TypeError),
        ((b"{}",), (1 << 64,), OverflowError),
        ((b"{}",), (), ValueError),
    ],
)
def test_what_is_no_value_or_number_is_said(values, numbers, error):
    with pytest.raises(error):
        stamp_all(values, numbers, b"/s", b"p-", b"", 0, 1_000, False)
