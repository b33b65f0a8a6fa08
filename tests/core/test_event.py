"""What is an event and what is not, and that payload keeps what was written."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.errors import Reject
from streamapp.core.event import (
    DEPTH_MAX,
    merge_attributes,
    parse_event,
    parse_head,
    parse_time,
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3)
)
KNOWN = {"id", "type", "source", "conversation", "conversation_id", "actor", "message", "text", "time",
         "duration_ms", "attachments"}  # fmt: skip


def test_known_keys_become_fields_and_the_rest_stays_as_written():
    event = parse_event(
        b'{"message": "Quero cancelar", "type": "UserMessage", "conversation_id": "c1", "actor": "human",'
        b' "plan": {"id": 7, "price": 12.50}, "big": 123456789012345678901234567890, "duration_ms": 1500}'
    )
    assert (event.text, event.type, event.conversation) == ("Quero cancelar", "UserMessage", "c1")
    assert (event.actor, event.duration_ms, event.id) == ("human", 1500.0, None)
    assert event.payload == (
        '{"plan":{"id": 7, "price": 12.50},"big":123456789012345678901234567890}'
    )


@given(st.dictionaries(st.text().filter(lambda key: key not in KNOWN), values))
def test_payload_is_every_other_key(body):
    assert json.loads(parse_event(json.dumps(body).encode()).payload) == body


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"", "event.empty"),
        (b" \n", "event.empty"),
        (b"not json", "event.json"),
        (b'{"message": "a"', "event.json"),
        (b'{"message": NaN}', "event.json"),
        (b'{"a": 1} trailing', "event.json"),
        (b"[1, 2]", "event.shape"),
        (b'"text"', "event.shape"),
        (b"7", "event.shape"),
        (b'{"message": "\xff"}', "event.utf8"),
        (b'\xef\xbb\xbf{"message": "bom"}', "event.json"),
        (b'{"a": 1, "a": 2}', "event.duplicate_key"),
        (b'{"x": {"a": 1, "b": [{"c": 1, "c": 2}]}}', "event.duplicate_key"),
        (b'{"message": {"nested": true}}', "event.field"),
        (b'{"type": ["a"]}', "event.field"),
        (b'{"id": "' + b"x" * 513 + b'"}', "event.field"),
        (b'{"duration_ms": "long"}', "event.field"),
        (b'{"duration_ms": -1}', "event.field"),
        (b'{"time": "yesterday"}', "event.time"),
        (b'{"time": 99999999999999999999}', "event.time"),
        (b'{"a":' * (DEPTH_MAX + 2) + b"1" + b"}" * (DEPTH_MAX + 2), "event.depth"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "event.depth"),
    ],
)
def test_what_is_no_event_says_why(value, code):
    with pytest.raises(Reject) as caught:
        parse_event(value)
    assert caught.value.code == code
    assert caught.value.message


def test_a_colon_in_a_string_is_no_duplicate():
    assert parse_event(b'{"message": "a: b: c", "url": "https://x"}').text == "a: b: c"


@given(
    st.lists(
        st.tuples(st.text('a:"\\ \n', max_size=3), st.text('b:"\\ \n', max_size=6)), max_size=5
    ),
    st.sampled_from([":", ": ", " :", "\n:\n", "\t:", "\r:", " \t : "]),
    st.booleans(),
)
def test_a_key_that_comes_twice_is_found_whatever_is_round_the_colons(pairs, colon, nested):
    members = ",".join(f"{json.dumps(key)}{colon}{json.dumps(text)}" for key, text in pairs)
    value = f'{{"x"{colon}[{{{members}}}]}}' if nested else f"{{{members}}}"
    if len(dict(pairs)) == len(pairs):
        assert json.loads(parse_event(value.encode()).payload) == json.loads(value)
    else:
        with pytest.raises(Reject) as caught:
            parse_event(value.encode())
        assert caught.value.code == "event.duplicate_key"


FIELDS = [
    "id", "type", "source", "conversation", "conversation_id", "actor", "time", "text", "message", "duration_ms",
    "attachments", "other",
]  # fmt: skip
VALUES = (
    st.none() | st.booleans() | st.integers(-1, 2**65) | st.floats(allow_nan=False) | st.text(max_size=4)
    | st.sampled_from(["x" * 513, "2026-11-22T09:30:00Z", [], {}])
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6), st.booleans())
def test_the_head_is_that_of_the_whole_event(event, twice):
    value = json.dumps(event).encode()
    value = value[:-1] + b',"id":1}' if twice and event else value
    try:
        whole = parse_event(value)
    except Reject as error:
        with pytest.raises(Reject) as caught:
            parse_head(value)
        assert (caught.value.code, caught.value.message) == (error.code, error.message)
        return
    head = parse_head(value)
    for name in ("id", "type", "source", "conversation", "actor", "time_us"):
        assert getattr(head, name) == getattr(whole, name)


@given(st.binary(max_size=200))
def test_garbage_is_rejected_or_parsed_but_never_crashes(value):
    try:
        json.loads(parse_event(value).payload)
    except Reject as error:
        assert error.code.startswith("event.")


def test_headers_win_over_the_body():
    event = parse_event(b'{"id": "body", "type": "body", "time": 1000}')
    merged = merge_attributes(
        event, {"id": "h", "type": "t", "source": "/s", "time": "1970-01-01T00:00:02Z"}
    )
    assert (merged.id, merged.type, merged.source, merged.time_us) == ("h", "t", "/s", 2_000_000)


def test_times_are_exact_to_the_microsecond():
    assert parse_time("2026-11-22T09:30:00.123457+01:00") == 1_795_336_200_123_457
    assert parse_time("2026-11-22T08:30:00") == 1_795_336_200_000_000
    assert parse_time(1_795_336_200_123) == 1_795_336_200_123_000


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_utc_has_no_year_for_is_rejected(text):
    """No reader in Python could show such a row."""
    with pytest.raises(Reject, match="neither RFC 3339"):
        parse_time(text)
