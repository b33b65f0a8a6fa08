"""Rows become frames: known values with their presence bit, the ring's defaults elsewhere."""

import numpy as np
import pyarrow as pa
import pytest

from streamapp.agents.frames import frames
from streamapp.core.batch import vector_column
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.ring import PRESENCE_FIELDS, RowFlag, conversation_hash, presence, unpack_source
from streamapp.topics.wire import decode_slice


@pytest.fixture
def rows():
    values = [
        b'{"message": "a", "conversation_id": "c1", "actor": "Assistant", "duration_ms": 250}',
        b'{"message": "b"}',
    ]
    records = [Record(70 + i, 5_000 + i, None, value) for i, value in enumerate(values)]
    batch = decode_slice(Slice(OffsetRange("t", 0, 70, 72), records), event_bytes_max=999)
    vectors = np.array([[0.6, 0.8], [np.nan, np.nan]], np.float32)
    spins = np.array([[0, 1, 0, 0], [np.nan] * 4], np.float32)
    columns = {
        "embedding": vector_column(vectors),
        "truncated": pa.array([True, None]),
        "sentiment": pa.array([-0.5, None], pa.float32()),
        "intent_id": pa.array([3, None], pa.int32()),
        "intent_confidence": pa.array([0.9, None], pa.float32()),
        "interrupt": pa.array([1, None], pa.int32()),
        "spin": vector_column(spins),
    }
    return batch.with_columns(columns).rows


def known(record):
    return {field for field in PRESENCE_FIELDS if record["presence"] & presence(field)}


def test_what_a_row_knows_is_in_its_frame(rows):
    records, vectors = frames(rows, source_index=4, dim=2)
    first = records[0]
    assert [first[n].item() for n in ("sentiment", "intent_id", "interrupt", "actor_type")] == [
        -0.5,
        3,
        1,
        2,
    ]
    assert first["confidence"] == np.float32(0.9)
    assert (first["duration_ms"], first["timestamp_us"], first["ingest_us"]) == (
        250,
        5_000_000,
        5_000_000,
    )
    assert first["conversation_hash"] == conversation_hash("c1")
    assert first["spin"].tolist() == [0, 1, 0, 0]
    assert first["flags"] == RowFlag.EMBEDDED | RowFlag.TRUNCATED
    assert vectors[0].tolist() == [np.float32(0.6), np.float32(0.8)]
    assert {"conversation_hash", "sentiment", "spin", "semantic", "actor_type"} <= known(first)
    assert "workflow_node" not in known(first)
    indexes, offsets = unpack_source(records["source_offset"])
    assert (indexes.tolist(), offsets.tolist()) == ([4, 4], [70, 71])


def test_what_it_does_not_know_is_the_default_and_says_so(rows):
    records, vectors = frames(rows, source_index=0, dim=2)
    second = records[1]
    assert np.isnan(second["sentiment"])
    assert (second["intent_id"], second["actor_type"], second["flags"]) == (-1, -1, 0)
    assert second["spin"].tolist() == [1, 0, 0, 0]
    assert vectors[1].tolist() == [0, 0]
    assert known(second) == {"duration_ms"}


def test_another_models_vectors_are_left_out(rows):
    records, vectors = frames(rows, source_index=0, dim=3)
    assert vectors.shape == (2, 3)
    assert not vectors.any()
    assert records["flags"].tolist() == [0, 0]


def test_no_rows_are_no_frames(rows):
    records, vectors = frames(rows.slice(0, 0), source_index=0, dim=2)
    assert (len(records), vectors.shape) == (0, (0, 2))
