"""Raw records become rows or rejects; nothing is lost, and nobody pays for a neighbour."""

import pytest

from streamapp.core.batch import EVENT_SCHEMA
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.topics.wire import decode_slice, rejected


def slice_of(*values, first=0, **common):
    records = [Record(first + i, 1_000 + i, common.get("key"), v, common.get("headers", ()))
               for i, v in enumerate(values)]  # fmt: skip
    return Slice(OffsetRange("events.raw", 1, first, first + len(values)), records)


def decode(slice_, **options):
    return decode_slice(slice_, **{"event_bytes_max": 1000} | options)


def test_bare_json_gets_its_address_as_id_and_the_log_time():
    batch = decode(slice_of(b'{"message": "hi"}', first=7, key=b"conv"))
    row = batch.rows.to_pylist()[0]
    assert (row["id"], row["type"], row["source"]) == ("events.raw-1-7", "event", "events.raw")
    assert (row["conversation"], row["text"], row["source_offset"]) == ("conv", "hi", 7)
    assert row["time"] == row["ingest_time"]
    assert batch.rows.schema.equals(EVENT_SCHEMA)


def test_cloudevent_headers_name_the_event():
    headers = [("ce_specversion", b"1.0"), ("ce_id", b"e1"), ("ce_source", b"/s"), ("ce_type", b"T"),
               ("ce_time", b"2026-01-01T00:00:00Z")]  # fmt: skip
    row = decode(slice_of(b'{"message": "hi"}', key=b"conv", headers=headers)).rows.to_pylist()[0]
    assert (row["id"], row["source"], row["type"]) == ("e1", "/s", "T")
    assert row["time"].year == 2026
    assert row["conversation"] == "conv"


def test_a_key_that_is_the_events_own_id_is_no_conversation():
    row = decode(slice_of(b'{"message": "hi", "id": "e1"}', key=b"e1")).rows.to_pylist()[0]
    assert row["conversation"] is None


def test_bad_records_become_rejects_with_their_bytes_and_the_others_go_through():
    values = [b'{"message": "a"}', b"\x00garbage", None, b'{"message": "' + b"x" * 2000 + b'"}',
              b'{"message": "b"}', b'{"a":1,"a":2}']  # fmt: skip
    batch = decode(slice_of(*values, first=10))
    assert batch.strings("text") == ["a", "b"]
    assert batch.offsets().tolist() == [10, 14]
    assert [(r.source_offset, r.code) for r in batch.rejects] == [
        (11, "event.json"), (12, "event.empty"), (13, "event.too_large"), (15, "event.duplicate_key")
    ]  # fmt: skip
    assert [r.value for r in batch.rejects] == [values[1], values[2], values[3], values[5]]
    assert batch.range == OffsetRange("events.raw", 1, 10, 16)


@pytest.mark.parametrize("key", [b"\xff\xfe", b"k" * 600])
def test_a_key_that_is_no_text_is_no_conversation(key):
    assert decode(slice_of(b'{"message": "a"}', key=key)).strings("conversation") == [None]


def test_a_ce_header_that_is_no_text_costs_only_its_event():
    batch = decode(slice_of(b'{"message": "a"}', headers=[("ce_id", b"\xff")]))
    assert [r.code for r in batch.rejects] == ["event.header"]


@pytest.mark.parametrize("timestamp", [2**63 - 1, -(2**63), 253_402_300_800_000])
def test_a_timestamp_that_no_calendar_has_costs_only_its_event(timestamp):
    """Kafka takes any 64 bits; such a row could neither be written nor shown."""
    records = [
        Record(0, timestamp, None, b'{"message": "m"}'),
        Record(1, 5, None, b'{"message": "n"}'),
    ]
    batch = decode_slice(Slice(OffsetRange("t", 0, 0, 2), records), event_bytes_max=1000)
    assert batch.strings("text") == ["n"]
    [reject] = batch.rejects
    assert (reject.source_offset, reject.code, reject.timestamp) == (0, "event.timestamp", 0)
    assert str(timestamp) in reject.reason


def test_a_reason_is_cut_so_that_the_dead_letter_fits_its_topic():
    reject = rejected(Record(0, 0, None, b"v"), "stage", "stage.error", "x" * 10_000_000)
    assert len(reject.reason) == 1000
