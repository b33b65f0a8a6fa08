"""Decoding many records at once gives what decoding each of them gives."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamapp.core.errors import Reject
from streamapp.core.event import parse_time
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.topics import wire
from streamapp.topics.enriched import Cover, Enriched, decode, encode
from streamapp.topics.times import parse_times
from streamapp.topics.wire import decode_slice

RANGE = OffsetRange("events.raw", 3, 0, 1000)
BYTES_MAX = 2000
EARLY, LATE = datetime(1, 1, 2), datetime(9999, 12, 30)  # noqa: DTZ001  # hypothesis wants them naive


def one_by_one(records):
    """The oracle: a slice too short for anything to be alike."""
    parts = [decode_slice(Slice(RANGE, [r]), event_bytes_max=BYTES_MAX) for r in records]
    rows = [row for part in parts for row in part.rows.to_pylist()]
    return rows, [reject for part in parts for reject in part.rejects]


def assert_same(records):
    batch = decode_slice(Slice(RANGE, records), event_bytes_max=BYTES_MAX)
    batch.rows.validate(full=True)
    rows, rejects = one_by_one(records)
    assert batch.rows.to_pylist() == rows
    assert list(batch.rejects) == rejects
    return batch


@pytest.fixture(autouse=True)
def always_together(monkeypatch):
    """Two records that look alike go together, so that small examples reach the fast path."""
    monkeypatch.setattr(wire, "TOGETHER_MIN", 2)


names = st.sampled_from(
    ["", "a", "e1", "ção", "日本", 'quo"te', "back\\slash", "a:b", "x" * 512, "x" * 513]
)
times = st.sampled_from([
    0, 1795336200123, -1, 2**32 * 1000 - 1, 253402300799999, 253402300800000, 10**30, None, "", "yesterday",
    "2026-11-22T09:30:00Z", "2026-11-22T09:30:00.123Z", "2026-11-22T09:30:00.123456Z", "2026-02-29T00:00:00Z",
    "2024-02-29T23:59:59.999+14:00", "2026-11-22T09:30:00-03:30", "2026-11-22T09:30:00.123456789Z",
    "2026-11-22", "2026-11-22 09:30:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
    "0000-01-01T00:00:00Z", "2026-11-22T24:00:00Z", "2026-11-22T09:30:60Z", "2026-11-22T09:30:00+24:00",
    "2026-11-22t09:30:00z", "2026-13-22T09:30:00Z", "2026-11-22T0a:30:00Z", "2026-W47-7T09:30:00Z",
])  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(
    scalars,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3),
    max_leaves=6,
)
FIELDS = {
    "id": names | st.integers() | st.none(), "type": names, "source": names, "conversation": names,
    "conversation_id": names, "actor": names | st.none(), "message": names | st.text() | values, "text": st.text(),
    "time": times, "duration_ms": st.integers(-1, 5) | st.floats(-1, 1e300) | st.none() | st.just("1"),
    "attachments": values, "plain": st.text(), "number": st.integers() | st.floats(allow_nan=False), "any": values,
    "a:b": st.integers(), "ção": names, "": values,
}  # fmt: skip


def nested(depth):
    return '{"any":' * depth + "1" + "}" * depth


#: JSON that no encoder of ours would write.
ODD = [
    '{"a":1,"a":1}', '{"a":1,"\\u0061":2}', '{"x":{"a":1,"a":2}}', '{"x":[{"a":":"},{"a":1,"a":":"}]}',
    '{"x":{"a":1,"a":"\\u003a"}}', '{"x":"\\u003a","y":{"b":"c:d"}}', '{"x":1e999}', '{"x":[1e400]}', '{"x":1E5}',
    '{"x":' + "9" * 400 + "}", '{"id":1.0}', '{"id":true}', '{"id":{"a":1}}', '{"message":"\\ud83d\\ude00"}',
    '{"message":"\\ud83d"}', '{"message":"\\u0000"}', '{"message":NaN}', "[]", "7", " ", "{}", "{ }", "{} {}", '{"a":1',
    '{ "plain" : "a" , "number" : 1 }', '{"plain":"a","number":1}', '{"plain":1,"number":1}',
    '{"plain":"a","plain":1}', '{"a:b":1,"a:b":2}', '{"a\\u003ab":1}', '{"a\\u003ab":1,"a\\u003ab":2}', '{"x":' + "9" * 400 + ".5}", '{"x":"}{][\\""}', '{"x":-0.0,"duration_ms":-0.0}',
    '{"x":[' + "[]," * 70 + "[]]}", nested(63), nested(64), nested(65), nested(66), '{"x":' + "[" * 64 + "]" * 64 + "}",
    '{"x":' + "[" * 65 + "]" * 65 + "}", '\ufeff{"a":1}', '{"x":"' + "y" * 3000 + '"}',
]  # fmt: skip
odd = st.sampled_from(ODD)


@st.composite
def objects(draw):
    """Values of one producer: the same keys, each time other values."""
    keys = draw(st.lists(st.sampled_from(list(FIELDS)), unique=True, max_size=6))
    style = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    ascii_ = draw(st.booleans())
    strategy = st.tuples(*(FIELDS[key] for key in keys))
    bodies = draw(st.lists(strategy, min_size=1, max_size=8))
    return [
        json.dumps(dict(zip(keys, body, strict=True)), separators=style, ensure_ascii=ascii_)
        for body in bodies
    ]


@st.composite
def raw_records(draw):
    found = [value.encode("utf-8", "replace") for value in draw(objects())]
    found += draw(
        st.lists(odd.map(str.encode) | st.sampled_from(found) | st.binary(max_size=9), max_size=8)
    )
    found += draw(
        st.lists(
            st.sampled_from(
                [None, b"", b'{"x":"\xff"}', b'{"\xc3":1}', b'{"message":"\xed\xa0\x80"}']
            )
        )
    )
    values = draw(st.permutations(found))
    header = st.tuples(
        st.sampled_from(["ce_id", "ce_type", "ce_time", "ce_x", "traceparent"]),
        st.sampled_from(
            [b"", b"h", "ç".encode(), b"\xff", b"x" * 513, b"2026-11-22T09:30:00Z", b"1"]
        ),
    )
    headers = draw(st.lists(st.lists(header, max_size=4), min_size=1, max_size=3))
    keys = st.sampled_from([None, b"", b"k", b"e1", b"\xff", "日本".encode(), b"k" * 513])
    stamps = st.sampled_from([0, 1795336200123, -5, 2**60])
    return [
        Record(
            2 * place, draw(stamps) if draw(st.booleans()) else 7, draw(keys), value,
            draw(st.sampled_from(headers)),
        )
        for place, value in enumerate(values)
    ]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(raw_records())
def test_together_is_as_one_by_one(records):
    assert_same(records)


@pytest.mark.parametrize("value", ODD)
def test_what_no_encoder_of_ours_writes_is_judged_as_alone(value):
    other = b'{"plain":"a","number":1}'
    values = [value.encode(), value.encode(), other, value.encode(), other]
    assert_same([Record(i, 1, None, one) for i, one in enumerate(values)])


def test_a_repeated_key_is_not_hidden_by_spaces_that_a_neighbour_has():
    """As long as its neighbour, which has blanks where this one has a second member."""
    spaced, repeated = b'{"a": 1, "b": 2}', b'{"a":1,"a":2,"b":3}'
    records = [Record(0, 0, None, spaced), Record(1, 0, None, repeated), Record(2, 0, None, spaced)]
    assert [r.code for r in assert_same(records).rejects] == ["event.duplicate_key"]


def test_a_slice_of_many_shapes_stays_in_offset_order():
    shapes = [b'{"message":"a"}', b'{"message":"b","x":1}', b"no", b'{"text":"c"}']
    batch = assert_same([Record(3 * i, i, None, shapes[i % 4]) for i in range(1200)])
    assert len(batch) == 900


@given(
    st.lists(st.datetimes(EARLY, LATE), min_size=1, max_size=4),
    st.sampled_from(["seconds", "milliseconds", "microseconds"]),
    st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=11))]),
    st.booleans(),
)  # fmt: skip
def test_times_at_once_are_those_of_the_calendar(moments, precision, zone, short):
    texts = [moment.replace(tzinfo=zone).isoformat(timespec=precision) for moment in moments]
    texts = [text.replace("+00:00", "Z") if short else text for text in texts]
    found = parse_times("".join(texts).encode(), len(texts))
    assert found.tolist() == [parse_time(text) for text in texts]


@given(st.text("0123456789-+:.TZ ", min_size=20, max_size=32))
@example("2026-11-22T09:30:00ZZ")
@example("2026-11-22T09:30:00.12Z")
@example("2026-11-22T09:30:00 01:00")
def test_what_is_no_such_time_is_left_to_the_calendar(text):
    found = parse_times(text.encode(), 1)
    if found is not None:
        assert found.tolist() == [parse_time(text)]


def test_a_time_that_only_looks_like_one_is_not_taken():
    for text in ("2026-02-30T00:00:00Z", "2026-00-10T00:00:00Z", "0001-01-01T00:00:00+01:00"):
        assert parse_times(text.encode(), 1) is None
        with pytest.raises(Reject):
            parse_time(text)


def test_a_null_header_is_no_attribute():
    """Kafka has them; a reject keeps them, and the enriched record can be read again."""
    headers = [("ce_id", None), ("ce_type", b"T"), ("other", None)]
    records = [Record(i, 1, None, b'{"message":"m"}', headers) for i in range(3)]
    batch = assert_same([*records, Record(3, 1, None, b"no", headers)])
    assert batch.strings("type") == ["T"] * 3
    value, said = encode(
        Enriched(Cover(topic="t", partition=0, first=0, next=4), batch.rows, (), batch.rejects)
    )
    [reject] = decode(Record(0, 0, None, value, said)).rejects
    assert list(reject.headers) == headers
