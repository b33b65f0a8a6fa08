"""Rows become frames: known values with their presence bit, the ring's defaults elsewhere."""

import numpy as np
import pyarrow as pa
import pytest

from streamapp.agents.frames import (
    EMBEDDING,
    SCALARS,
    copy_vectors,
    embedded,
    picked,
    records_of,
    ring_spec,
)
from streamapp.core.batch import vector_column
from streamapp.core.errors import Refuse
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.ring import (
    PRESENCE_FIELDS,
    Column,
    RingSpec,
    RowFlag,
    conversation_hash,
    presence,
    unpack_source,
)
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


def frames(rows, source_index, dim):
    """Records, and vectors as the ring gets them."""
    vectors = np.full((rows.num_rows, dim), 9, np.float32)
    copy_vectors(rows, EMBEDDING, vectors, 0.0)
    column = Column("semantic", dim)
    return records_of(rows, source_index, column, embedded(rows, dim)), vectors


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


def test_a_column_of_another_type_is_not_known(rows):
    odd = rows.append_column("velocity", pa.array(["fast", "slow"]))
    odd = odd.append_column("fill_rate", pa.array([1, None], pa.int8()))
    odd = odd.drop_columns(["spin"]).append_column("spin", vector_column(np.ones((2, 3), "f4")))
    records, _ = frames(odd, source_index=0, dim=2)
    assert np.isnan(records["velocity"]).all()
    assert records["fill_rate"][0] == 1
    assert records["spin"].tolist() == [[1, 0, 0, 0]] * 2
    assert {"velocity", "spin"}.isdisjoint(known(records[0]))
    assert "fill_rate" in known(records[0])


def test_a_number_that_the_field_cannot_hold_is_not_known(rows):
    odd = rows.append_column("workflow_node", pa.array([7, 2**40]))
    odd = odd.append_column("case_status", pa.array([1.0, float("nan")]))
    odd = odd.append_column("lead_status", pa.array([2**63, None], pa.uint64()))
    odd = odd.append_column("velocity", pa.array([1e300, 2.0]))
    records, _ = frames(odd, source_index=0, dim=2)
    assert records["workflow_node"].tolist() == [7, -1]
    assert records["case_status"].tolist() == [-1, -1]
    assert records["lead_status"].tolist() == [-1, -1]
    assert records["velocity"].tolist() == [np.inf, 2.0]
    assert "workflow_node" in known(records[0])
    assert {"workflow_node", "case_status", "lead_status"}.isdisjoint(known(records[1]))


def lists(kind, size):
    return pa.list_(kind(), size)


def schema(**columns):
    return pa.schema([("embedding", lists(pa.float32, 8)), *columns.items()])


def test_a_ring_holds_what_the_workflow_writes():
    columns = schema(
        spin=lists(pa.float32, 4),
        intent_scores=lists(pa.float32, 9),
        second=lists(pa.float16, 3),
        words=pa.int32(),
        double=lists(pa.float64, 4),
        any_length=pa.list_(pa.float32()),
    )
    spec = ring_spec(columns, 64)
    extra = (Column("intent_scores", 9, "<f4"), Column("second", 3, "<f2"))
    assert spec == RingSpec(8, 64, "<f4", extra)
    assert picked(spec) == SCALARS | {"embedding", "intent_scores", "second"}
    half = pa.schema([("embedding", lists(pa.float16, 8))])
    assert ring_spec(half, 64) == RingSpec(8, 64, "<f2")


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (pa.schema([("words", pa.int32())]), "writes no vectors 'embedding'"),
        (schema(a_name_that_is_far_too_long=lists(pa.float32, 2)), "a name is 1 to 24"),
        (schema(semantic=lists(pa.float32, 2)), "'semantic' is there twice"),
        (schema(records=lists(pa.float32, 2)), "means something else"),
        (schema(**{f"v{i}": lists(pa.float32, 2) for i in range(8)}), "9 columns are more than 8"),
        (schema(wide=lists(pa.float32, 70_000)), "dim 70000"),
    ],
)
def test_what_no_ring_takes_is_refused_with_the_way_out(columns, reason):
    with pytest.raises(Refuse, match=reason) as refused:
        ring_spec(columns, 64)
    assert "workflow.toml" in refused.value.fix
