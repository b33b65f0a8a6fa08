"""The JSON twin says what the row says, in JSON that anything reads."""

import json
from datetime import datetime

import numpy as np
import pyarrow as pa

from streamapp.agents.twin import json_twin
from streamapp.core.batch import vector_column
from streamapp.plugin.testing import batch_of

BYTES_MAX = 1 << 20


def rows(records):
    return [json.loads(record.value, parse_constant=lambda word: 1 / 0) for record in records]


def test_a_row_is_an_object_under_its_conversation_with_its_headers():
    batch = batch_of(
        first=7,
        id=["e1", "e2"],
        conversation=["c1", None],
        text=["olá", None],
        payload=['{"plan":"gold","n":1.50}', "{}"],
        attachments=['[{"url":"x"}]', None],
        intent=["cancel", None],
    )
    records = json_twin(batch, BYTES_MAX)
    assert [record.key for record in records] == [b"c1", b"e2"]
    assert [record.partition for record in records] == [batch.range.partition] * 2
    first, second = rows(records)
    assert (first["source_offset"], first["id"], first["text"]) == (7, "e1", "olá")
    assert first["payload"] == {"plan": "gold", "n": 1.5}
    assert first["attachments"] == [{"url": "x"}]
    assert first["intent"] == "cancel"
    assert (second["text"], second["attachments"], second["intent"]) == (None, None, None)
    headers = dict(records[0].headers)
    assert headers["ce_id"] == b"e1"
    assert headers["ce_type"] == b"message"
    assert headers["ce_source"] == b"test"
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_time"].decode() == first["time"]
    assert headers["content-type"] == b"application/json"


def test_times_are_rfc_3339_in_utc_in_every_year_there_is():
    ends = [-62_135_596_800_000_000, 1_700_000_000_123_456, 253_402_300_799_999_999]
    records = json_twin(batch_of(time=ends), BYTES_MAX)
    times = [row["time"] for row in rows(records)]
    assert times == [
        "0001-01-01T00:00:00.000000Z",
        "2023-11-14T22:13:20.123456Z",
        "9999-12-31T23:59:59.999999Z",
    ]
    assert datetime.fromisoformat(times[1]).timestamp() * 1e6 == ends[1]


def test_json_has_no_nan_and_no_infinity():
    batch = batch_of(
        velocity=pa.array([float("nan"), float("inf"), 0.5], pa.float32()),
        spin=vector_column(np.array([[1, np.inf], [0, 1], [0.5, 0.25]], np.float32)),
    )
    first, second, third = rows(json_twin(batch, BYTES_MAX))
    assert [first["velocity"], second["velocity"], third["velocity"]] == [None, None, 0.5]
    assert first["spin"] == [1, None]
    assert third["spin"] == [0.5, 0.25]


def test_the_embedding_is_left_out_unless_asked_for():
    batch = batch_of(text=["a"], embedding=vector_column(np.full((1, 3), 0.5, np.float32)))
    assert "embedding" not in rows(json_twin(batch, BYTES_MAX))[0]
    assert rows(json_twin(batch, BYTES_MAX, embedding=True))[0]["embedding"] == [0.5, 0.5, 0.5]


def test_a_row_too_large_keeps_its_identity_and_says_what_it_lost():
    batch = batch_of(id=["small", "large"], text=["a", "b" * 20_000])
    small, large = rows(json_twin(batch, 16_384))
    assert small["text"] == "a"
    assert (large["id"], large["source_offset"]) == ("large", 1)
    assert "text" not in large
    assert {"text", "payload"} <= set(large["left_out"])


def test_the_key_and_the_headers_count_too():
    long = {"id": ["i" * 5_000], "conversation": ["c" * 5_000], "source": ["s" * 5_000]}
    batch = batch_of(text=["t" * 5_000], **long)
    [record] = json_twin(batch, 40_000)
    assert "left_out" not in json.loads(record.value)
    [record] = json_twin(batch, 36_000)  # the value alone would fit
    assert "text" in json.loads(record.value)["left_out"]


def test_nanoseconds_are_cut_to_what_json_readers_have():
    at = 1_700_000_000_123_456_789
    stamp, span = pa.timestamp("ns", tz="UTC"), pa.duration("ns")
    nested = pa.struct([("at", pa.timestamp("ns")), ("spans", pa.list_(span)), ("n", pa.int8())])
    batch = batch_of(
        stamp=pa.array([at, None], stamp),
        span=pa.array([1_500_000_789, None], span),
        clock=pa.array([1_789, None], pa.time64("ns")),
        nested=pa.array([{"at": at, "spans": [1_789], "n": 1}, None], nested),
        fixed=pa.array([[at], None], pa.list_(stamp, 1)),
        mapped=pa.array([[("a", at)], None], pa.map_(pa.string(), stamp)),
    )
    first, second = rows(json_twin(batch, BYTES_MAX))
    assert first["stamp"] == "2023-11-14T22:13:20.123456Z"
    assert first["nested"]["at"].startswith("2023-11-14T22:13:20.123456")
    assert first["nested"]["n"] == 1
    assert first["fixed"] == ["2023-11-14T22:13:20.123456Z"]
    assert first["clock"] == "00:00:00.000001"
    assert first["span"] == "PT1.5S"
    assert {second[name] for name in ("stamp", "span", "clock", "nested", "fixed")} == {None}


def test_nested_columns_are_json_too():
    entities = pa.array([[{"label": "city", "start": 0, "end": 6}], None])
    first, second = rows(json_twin(batch_of(id=["a", "b"], entities=entities), BYTES_MAX))
    assert first["entities"] == [{"label": "city", "start": 0, "end": 6}]
    assert second["entities"] is None


def test_no_rows_no_records():
    assert json_twin(batch_of(id=[]), BYTES_MAX) == []
