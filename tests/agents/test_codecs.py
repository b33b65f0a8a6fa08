"""Faust's codecs `arrow` and `cloudevents`, and the schema: what Faust itself reads and writes with them."""

import json
import struct
from contextlib import suppress
from datetime import UTC, datetime

import faust
import pyarrow as pa
import pytest
from faust.exceptions import ValueDecodeError
from faust.serializers.registry import Registry
from hypothesis import given
from hypothesis import strategies as st

import streamapp
from streamapp.agents.codecs import Arrow, CloudEvents
from streamapp.plugin.testing import batch_of
from streamapp.topics.enriched import Cover, Enriched, encode, no_rows

ARROW, CLOUDEVENTS = Arrow(), CloudEvents()
EVENT = {"id": "e1", "source": "/shop", "type": "order", "data": {"n": 1}}


def enriched_value(batch):
    topic, partition, first, next_ = batch.range
    cover = Cover(topic=topic, partition=partition, first=first, next=next_, rows=len(batch))
    return encode(Enriched(cover, batch.rows))[0]


def load(codec, value):
    """As a stream does, autodetection of models included."""
    return Registry().loads_value(None, value, serializer=codec)


def dump(codec, value):
    return Registry().dumps_value(None, value, serializer=codec)


def test_both_are_found_by_name():
    from importlib.metadata import entry_points

    found = {point.name: point.load() for point in entry_points(group="faust.codecs")}
    assert (found["arrow"], found["cloudevents"]) == (Arrow, CloudEvents)


def test_arrow_reads_the_rows_of_an_enriched_record():
    batch = batch_of(text=["a", "b"])
    rows = load(ARROW, enriched_value(batch))
    assert isinstance(rows, pa.RecordBatch)
    assert rows.column("text").to_pylist() == ["a", "b"]


def test_arrow_reads_a_record_without_rows():
    cover = Cover(topic="t", partition=0, first=3, next=3, is_snapshot=True)
    value, _ = encode(Enriched(cover, no_rows()))
    rows = load(ARROW, value)
    assert rows.num_rows == 0
    assert "text" in rows.schema.names


@pytest.mark.parametrize("kind", ["batch", "table"])
def test_arrow_writes_what_it_reads(kind):
    batch = pa.RecordBatch.from_pydict({"n": [1, 2, 3]})
    sent = batch if kind == "batch" else pa.Table.from_batches([batch, batch])
    assert load(ARROW, dump(ARROW, sent)).column("n").to_pylist() == sent.column("n").to_pylist()


def test_arrow_says_what_it_cannot():
    with pytest.raises(ValueDecodeError, match="no Arrow IPC stream"):
        load(ARROW, b"not arrow")
    with pytest.raises(TypeError, match="RecordBatch or a Table"):
        dump(ARROW, {"a": 1})


def test_arrow_refuses_offsets_beyond_the_value():
    sink = pa.BufferOutputStream()
    batch = pa.RecordBatch.from_pydict({"text": ["abc", "defg"]})
    with pa.ipc.new_stream(sink, batch.schema) as out:
        out.write_batch(batch)
    good, bad = (struct.pack("<3i", 0, 3, last) for last in (7, 1 << 30))
    with pytest.raises(ValueDecodeError, match="no Arrow IPC stream"):
        load(ARROW, bytes(sink.getvalue()).replace(good, bad))


@given(st.data())
def test_arrow_refuses_every_damaged_record_in_faust_s_way(data):
    value = bytearray(enriched_value(batch_of(text=["a", "b"])))
    at = data.draw(st.integers(0, len(value) - 1))
    value[at] ^= data.draw(st.integers(1, 255))
    with suppress(ValueDecodeError):
        load(ARROW, bytes(value))


@pytest.mark.parametrize("error", [MemoryError, pa.ArrowNotImplementedError, pa.ArrowKeyError])
def test_arrow_turns_what_a_bad_length_does_into_faust_s_error(monkeypatch, error):
    def fail(_):
        raise error("malloc of size 210006720905280 failed")

    monkeypatch.setattr(pa.ipc, "open_stream", fail)
    with pytest.raises(ValueDecodeError, match="no Arrow IPC stream"):
        load(ARROW, b"x")


def test_cloudevents_in_structured_mode():
    value = dump(CLOUDEVENTS, {**EVENT, "time": datetime(2026, 11, 22, tzinfo=UTC)})
    assert json.loads(value) == {
        **EVENT, "specversion": "1.0", "time": "2026-11-22T00:00:00+00:00",
    }  # fmt: skip
    assert load(CLOUDEVENTS, value)["data"] == {"n": 1}


def test_cloudevents_with_bytes():
    value = dump(CLOUDEVENTS, {**EVENT, "data": b"\x00\xff"})
    assert json.loads(value)["data_base64"] == "AP8="
    assert load(CLOUDEVENTS, value)["data"] == b"\x00\xff"


def test_cloudevents_takes_our_bare_events_as_they_are():
    assert load(CLOUDEVENTS, b'{"message": "hi", "plan": "gold"}') == {
        "message": "hi",
        "plan": "gold",
    }


@pytest.mark.parametrize("value", [b"[]", b"3", b"{", b'{"data_base64": "%%"}'])
def test_cloudevents_refuses_what_is_none(value):
    with pytest.raises(ValueDecodeError):
        load(CLOUDEVENTS, value)


@pytest.mark.parametrize("value", [{"id": "e1"}, [], "text"])
def test_cloudevents_refuses_to_write_what_is_none(value):
    with pytest.raises(ValueError, match="id, source, type"):
        CLOUDEVENTS.dumps(value)


class Message:
    def __init__(self, value, headers=()):
        self.key, self.value, self.headers = None, value, headers


@pytest.fixture
def schema():
    return streamapp.CloudEventSchema()


@pytest.mark.parametrize("shape", [list, dict])
def test_the_schema_reads_binary_mode(schema, shape):
    headers = shape([("ce_id", b"e1"), ("ce_source", b"/shop"), ("ce_type", b"order")])
    event = schema.loads_value(None, Message(b'{"n": 1}', headers))
    assert event == {**EVENT, "specversion": "1.0"}


def test_the_schema_reads_structured_mode_and_bare_events(schema):
    media = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
    body = json.dumps({**EVENT, "specversion": "1.0"}).encode()
    assert schema.loads_value(None, Message(body, media))["data"] == {"n": 1}
    assert schema.loads_value(None, Message(b'{"message": "hi"}')) == {"message": "hi"}
    assert schema.loads_value(None, Message(None)) is None


def test_the_schema_leaves_other_media_as_bytes(schema):
    headers = [("ce_id", b"e1"), ("content-type", b"image/png")]
    event = schema.loads_value(None, Message(b"\x89PNG", headers))
    assert (event["data"], event["datacontenttype"]) == (b"\x89PNG", "image/png")


@pytest.mark.parametrize("value", [b"{", b"[1", b"[" * 100_000, b"\xff"])
def test_the_schema_refuses_in_faust_s_way(schema, value):
    with pytest.raises(ValueDecodeError):
        schema.loads_value(None, Message(value, [("ce_id", b"e1")]))


@pytest.mark.parametrize("value", [b'{"data_base64": null}', b"[" * 100_000, b'"\xff"'])
def test_a_structured_event_that_is_none_is_refused_in_faust_s_way(schema, value):
    with pytest.raises(ValueDecodeError):
        schema.loads_value(None, Message(value))
    with pytest.raises(ValueDecodeError):
        load(CLOUDEVENTS, value)


def test_a_header_that_is_no_text_is_refused_in_faust_s_way(schema):
    with pytest.raises(ValueDecodeError):
        schema.loads_value(None, Message(b"{}", [("ce_id", b"\xff")]))


def test_header_names_and_media_types_have_no_case_and_null_headers_say_nothing(schema):
    headers = [("CE_Id", b"e1"), ("Ce_Subject", None), ("Content-Type", None)]
    assert schema.loads_value(None, Message(b"1", headers)) == {
        "specversion": "1.0", "id": "e1", "data": 1,
    }  # fmt: skip
    headers = [("ce_id", b"e1"), ("Content-Type", b"Application/CloudEvents+JSON")]
    assert schema.loads_value(None, Message(b'{"id": "e2"}', headers)) == {"id": "e2"}
    headers = [("ce_id", b"e1"), ("CONTENT-TYPE", b"Application/JSON; charset=utf-8")]
    assert schema.loads_value(None, Message(b"2", headers))["data"] == 2
    headers = [("trace", None), ("content-type", b"application/json")]
    assert schema.loads_value(None, Message(b'{"message": "hi"}', headers)) == {"message": "hi"}


def test_the_schema_sends_no_attribute_that_is_none_and_says_what_bytes_are(schema):
    value, said = schema.dumps_value(
        None, {**EVENT, "data": b"\x00", "subject": None, "datacontenttype": None}, headers=None
    )
    pairs = dict(said)
    assert value == b"\x00"
    assert "ce_subject" not in pairs
    assert pairs["content-type"] == b"application/octet-stream"
    assert schema.loads_value(None, Message(value, said))["data"] == b"\x00"


def test_what_the_event_says_replaces_headers_of_any_case(schema):
    _, said = schema.dumps_value(None, EVENT, headers=[("Content-Type", b"text/plain")])
    assert [value for name, value in said if name.lower() == "content-type"] == [
        b"application/json"
    ]


@pytest.mark.parametrize("headers", [None, [("trace", b"t")], {"trace": b"t"}])
def test_the_schema_writes_binary_mode_and_reads_it_back(schema, headers):
    value, said = schema.dumps_value(None, {**EVENT, "rush": True}, headers=headers)
    pairs = dict(said)
    assert value == b'{"n":1}'
    assert pairs["ce_rush"] == b"true"
    assert pairs.get("trace") == (b"t" if headers else None)
    assert pairs["content-type"] == b"application/json"
    event = schema.loads_value(None, Message(value, said))
    assert {name: event[name] for name in EVENT} == EVENT


def test_a_topic_takes_the_schema():
    app = faust.App("codecs-tested", broker="kafka://127.0.0.1:1")
    topic = app.topic("partners", schema=streamapp.CloudEventSchema())
    value, headers = topic.prepare_value(EVENT, None, None, [])
    assert value == b'{"n":1}'
    assert ("ce_id", b"e1") in list(headers)


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'instal'"):
        _ = streamapp.instal
