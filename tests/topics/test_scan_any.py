"""Whatever the C extension is given, a slice decodes as its records do one by one."""

import json
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import example, given, settings
from hypothesis import strategies as st
from scanning import BYTES_MAX, RANGE, assert_same, is_taken, left_of

from streamapp.core.errors import Reject
from streamapp.core.event import parse_time
from streamapp.core.slice import Record, Slice
from streamapp.topics.wire import decode_slice

EARLY, LATE = datetime(2, 1, 1), datetime(9998, 12, 31)  # noqa: DTZ001  # hypothesis wants them naive


names = st.sampled_from([
    "", "a", "e1", "ção", "日本", 'quo"te', "back\\slash", "a:b", "\x00\x1f\x7f", "😀",
    "x" * 512, "x" * 513, "é" * 512, "é" * 513, "😀" * 512, "\n" * 513,
])  # fmt: skip
times = st.sampled_from([
    0, 1795336200123, -1, 2**32 * 1000 - 1, 2**32 * 1000, 253402300799999, 253402300800000, 10**30, None, "",
    "yesterday", "2026-11-22T09:30:00Z", "2026-11-22T09:30:00.123Z", "2026-11-22T09:30:00.123456Z",
    "2026-02-29T00:00:00Z", "2024-02-29T23:59:59.999+14:00", "2026-11-22T09:30:00-03:30",
    "2026-11-22T09:30:00.123456789Z", "2026-11-22", "2026-11-22 09:30:00Z", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00", "0000-01-01T00:00:00Z", "2026-11-22T24:00:00Z", "2026-11-22T09:30:60Z",
    "2026-11-22T09:30:00+24:00", "2026-11-22t09:30:00z", "2026-13-22T09:30:00Z", "2026-11-22T0a:30:00Z",
    "2026-W47-7T09:30:00Z",
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
    "a:b": st.integers(), "ção": names, "": values, 'q"\\\n\x00': names,
}  # fmt: skip
objects = st.fixed_dictionaries({}, optional=FIELDS)
styles = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n ")])


@st.composite
def plain(draw):
    """A JSON object by an encoder in common use."""
    body = draw(objects)
    text = json.dumps(body, separators=draw(styles), ensure_ascii=draw(st.booleans()))
    return text.encode("utf-8", "replace")


@st.composite
def mutated(draw):
    """One whose bytes were hit here and there."""
    value = bytearray(draw(plain()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(value)))
        put = draw(
            st.sampled_from(list(b'"{}[]:,\\/u0129aDeE+-. \ntfn\x00\x1f\x7f\xc3\xed\xf0\xff'))
        )
        value[at : at + draw(st.integers(0, 2))] = bytes([put] * draw(st.integers(0, 2)))
    return bytes(value)


odd_values = st.sampled_from([None, b"", b" ", b"[]", b"7", b'{"x":"\xff"}', b'{"\xc3":1}'])
headers = st.lists(
    st.tuples(
        st.sampled_from(["ce_id", "ce_type", "ce_source", "ce_time", "ce_x", "ce_", "traceparent"]),
        st.sampled_from([
            b"", b"h", "ç".encode(), b"\xff", b"x" * 513, "é".encode() * 512, b"2026-11-22T09:30:00Z",
            b"2026-11-22T09:30:00.5-01:00", b"1", None,
        ]),
    ),
    max_size=4,
)  # fmt: skip
keys = st.sampled_from([
    None, b"", b"k", b"e1", b"a", b"h", b"\xff", "日本".encode(), b"k" * 512, b"k" * 513, "é".encode() * 512, b"a\0",
])  # fmt: skip
stamps = st.sampled_from(
    [0, 7, 1795336200123, -5, 2**60, 2**63 - 1, -(2**63), 2**70, 253402300799999]
)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_slice_decodes_as_its_records_do(data):
    drawn = data.draw(
        st.lists(plain() | mutated() | odd_values | st.binary(max_size=9), max_size=8)
    )
    records = [
        Record(2 * n, data.draw(stamps) if data.draw(st.booleans()) else 7, data.draw(keys), value, data.draw(headers))
        for n, value in enumerate(drawn)
    ]  # fmt: skip
    assert_same(records)


@settings(max_examples=100, deadline=None)
@given(st.lists(plain(), min_size=2, max_size=8), st.integers(1, 7))
def test_where_a_slice_is_cut_does_not_matter(bodies, at):
    records = [Record(n, n, None, value) for n, value in enumerate(bodies)]
    parts = [
        decode_slice(Slice(RANGE, p), event_bytes_max=BYTES_MAX)
        for p in (records[:at], records[at:])
    ]
    assert assert_same(records).rows.to_pylist() == [
        row for part in parts for row in part.rows.to_pylist()
    ]


def ordinary(number):
    return number == 0 or abs(number) > 1e-200


sent = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(-1e200, 1e200).filter(ordinary)
    | st.text(),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.text(max_size=5).map("x".__add__), sent, max_size=6), st.booleans(), styles
)
def test_what_python_dumps_is_taken(body, ascii_, style):
    assert is_taken(json.dumps(body, separators=style, ensure_ascii=ascii_))


@given(
    st.lists(st.datetimes(EARLY, LATE), min_size=1, max_size=4),
    st.sampled_from(["seconds", "milliseconds", "microseconds"]),
    st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=11))]),
    st.booleans(),
)  # fmt: skip
def test_times_are_those_of_the_calendar(moments, precision, zone, short):
    texts = [moment.replace(tzinfo=zone).isoformat(timespec=precision) for moment in moments]
    texts = [text.replace("+00:00", "Z") if short else text for text in texts]
    assert left_of(*(f'{{"time":"{text}"}}'.encode() for text in texts)) == []


@settings(max_examples=300)
@given(st.text("0123456789-+:.TZ ", min_size=18, max_size=34))
@example("2026-11-22T09:30:00ZZ")
@example("2026-11-22T09:30:00.12Z")
@example("2026-11-22T09:30:00.1234567Z")
@example("2026-11-22T09:30:00.Z")
@example("2026-11-22T09:30:00 01:00")
@example("2026-11-22T09:30:00")
@example("2026-11-22T09:30:00+0100")
@example("1900-02-29T09:30:00Z")
@example("2000-02-29T09:30:00Z")
@example("9999-12-31T23:59:59Z")
def test_what_only_looks_like_a_time_is_no_other_time(text):
    left_of(f'{{"time":"{text}"}}'.encode())
    try:
        parse_time(text)
    except Reject:
        assert not is_taken("{}", headers=[("ce_time", text.encode())])


@given(st.integers(0, 2**32 * 1000 - 1))
def test_milliseconds_are_those_of_the_calendar(moment):
    assert is_taken(f'{{"time":{moment}}}')


@settings(max_examples=500)
@given(st.floats(0, 1e37) | st.decimals(0, 10**6, places=3) | st.integers(0, 2**40))
def test_a_duration_is_rounded_as_python_rounds(number):
    left_of(f'{{"duration_ms":{number}}}'.encode())
