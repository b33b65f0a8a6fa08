"""Faust's codecs `arrow` and `cloudevents`, and the schema: what Faust itself reads and writes with them."""

import json
from datetime import UTC, datetime

import faust
import pyarrow as pa
import pytest
from faust.exceptions import ValueDecodeError
from faust.serializers.registry import Registry

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


@pytest.mark.parametrize("value", [b"{", b"[1"])
def test_the_schema_refuses_in_faust_s_way(schema, value):
    with pytest.raises(ValueDecodeError):
        schema.loads_value(None, Message(value, [("ce_id", b"e1")]))


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
