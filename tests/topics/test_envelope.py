"""CloudEvents in structured mode give the events that binary mode gives."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scanning import assert_same, is_taken

from streamapp.core.slice import Record

JSON = ("content-type", b"application/cloudevents+json; charset=UTF-8")
ATTRIBUTES = {
    "id": "e1",
    "source": "/shop",
    "type": "com.example.said",
    "time": "2018-04-05T17:31:00Z",
}
DATA = {"message": "hello", "conversation_id": "c", "duration_ms": 5, "plan": {"x": [1]}}


def binary(value, attributes, content_type="application/json"):
    said = {"specversion": "1.0", **attributes}
    headers = [(f"ce_{name}", text.encode()) for name, text in said.items()]
    return Record(0, 7, b"k", value, [*headers, ("content-type", content_type.encode())])


def structured(members, headers=(JSON,)):
    value = members if isinstance(members, bytes) else json.dumps(members).encode()
    return Record(0, 7, b"k", value, list(headers))


def event(record):
    """Its row, or the code of its reject."""
    batch = assert_same([record])
    return batch.rows.to_pylist()[0] if len(batch) else batch.rejects[0].code


def enveloped(data=None, **members):
    return {
        "specversion": "1.0",
        **ATTRIBUTES,
        **({} if data is None else {"data": data}),
        **members,
    }


def test_the_example_of_the_specification():
    row = event(structured(enveloped(DATA)))
    assert row == event(binary(json.dumps(DATA).encode(), ATTRIBUTES))
    assert (row["id"], row["source"], row["type"]) == ("e1", "/shop", "com.example.said")
    assert (row["text"], row["conversation"], row["duration_ms"]) == ("hello", "c", 5)
    assert json.loads(row["payload"]) == {"plan": {"x": [1]}}
    assert row["time"].year == 2018


@pytest.mark.parametrize(
    "content_type",
    [b"application/cloudevents+json", b"Application/CloudEvents+JSON;charset=utf-8", b"application/cloudevents"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["content-type", "Content-Type"])
def test_how_the_mode_is_said(name, content_type):
    expected = event(binary(json.dumps(DATA).encode(), ATTRIBUTES))
    assert event(structured(enveloped(DATA), [(name, content_type)])) == expected


@pytest.mark.parametrize(
    "said", [b"application/json", b"", None, b"\xff", b"application/cloudevent"]
)
def test_another_content_type_is_a_bare_object(said):
    row = event(structured(enveloped(DATA), [("content-type", said)]))
    assert row["text"] is None
    assert json.loads(row["payload"])["data"] == DATA


def test_the_scanner_leaves_envelopes_and_nothing_else_for_that():
    for said in (b"application/cloudevents", b"APPLICATION/cloudevents+avro", JSON[1]):
        assert not is_taken("{}", headers=[("content-type", said)])
    for said in (b"application/json", b"application/cloudevent", b"", None, b"\xff"):
        assert is_taken("{}", headers=[("content-type", said)])


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        ("I'm just a string", None),
        ([1], None),
        (3, "text/json"),
        ('{"message": "hi"}', "text/plain"),
        ('{"message": "hi"}', "application/vnd.x+json"),
        ("<much wow/>", "application/xml"),
        ({"message": "é", "id": "of the data"}, "application/vnd.x+json; v=1"),
        ({"message": "hi"}, "text/plain"),
    ],
)
def test_data_of_other_kinds_fares_as_in_binary_mode(data, media_type):
    as_text = media_type in {"text/plain", "application/xml"} and isinstance(data, str)
    value = data.encode() if as_text else json.dumps(data).encode()
    members = enveloped(data, **({"datacontenttype": media_type} if media_type else {}))
    assert event(structured(members)) == event(binary(value, ATTRIBUTES, media_type or "text/json"))


@pytest.mark.parametrize("value", [b'{"message": "\xc3\xa9"}', b"\x00\x01", b"", b'{"a":1,"a":2}'])
def test_base64_is_the_value_of_binary_mode(value):
    members = enveloped(data_base64=base64.b64encode(value).decode())
    assert event(structured(members)) == event(binary(value, ATTRIBUTES))


def test_an_event_without_data_is_an_event():
    expected = event(binary(b"{}", ATTRIBUTES))
    assert event(structured(enveloped())) == expected
    assert event(structured(enveloped(data_base64=None, subject=None, x=5))) == expected


def test_headers_of_binary_mode_may_be_there_too():
    headers = [JSON, ("ce_id", b"h"), ("ce_specversion", b"1.0")]
    assert event(structured(enveloped(DATA), headers))["id"] == "h"


@pytest.mark.parametrize(
    ("members", "code"),
    [
        (b"", "event.empty"),
        (b"[]", "event.shape"),
        (b"{", "event.json"),
        (enveloped({}, data_base64="e30="), "event.field"),
        (enveloped(data_base64="e30"), "event.field"),
        (enveloped(data_base64="é"), "event.field"),
        (enveloped(data_base64=3), "event.field"),
        (enveloped({}, id=["e1"]), "event.field"),
        (enveloped({}, id="x" * 513), "event.field"),
        (enveloped({}, time="now"), "event.time"),
        (enveloped({}, datacontenttype=3.5), "event.field"),
        (b'{"id":"1","id":"2","data":{}}', "event.duplicate_key"),
        (b'{"id":"1","data":{"a":1,"a":2}}', "event.duplicate_key"),
    ],
)
def test_a_bad_envelope_is_a_reject(members, code):
    assert event(structured(members)) == code


@pytest.mark.parametrize(
    "kind", [b"application/cloudevents+avro", b"application/cloudevents-batch+json"]
)
def test_another_event_format_is_named(kind):
    [reject] = assert_same([structured(b"\x00", [("content-type", kind)])]).rejects
    assert reject.code == "event.format"
    assert kind.decode() in reject.reason


@pytest.mark.parametrize("deep", [62, 63, 64, 65])
def test_depth_counts_from_the_data(deep):
    value = b'{"a":' * deep + b"1" + b"}" * deep
    record = structured(b'{"id":"e1","data":' + value + b"}")
    assert event(record) == event(binary(value, {"id": "e1"}))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
known = st.sampled_from(
    ["message", "text", "id", "type", "time", "actor", "conversation", "x", "data"]
)
texts = st.sampled_from(["", "e1", "é", "2026-11-22T09:30:00Z"])


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(known, values | texts, max_size=5),
    st.dictionaries(st.sampled_from([*ATTRIBUTES, "subject"]), texts),
)
def test_both_modes_are_one_event(data, attributes):
    value = json.dumps(data).encode()
    expected = event(binary(value, attributes))
    assert event(structured({"specversion": "1.0", **attributes, "data": data})) == expected
    coded = base64.b64encode(value).decode()
    assert event(structured({**attributes, "data_base64": coded})) == expected
