import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.errors import Refuse
from streamapp.ring import (
    PRESENCE_FIELDS,
    SOURCE_NONE,
    Frames,
    conversation_hash,
    conversation_hashes,
    new_records,
    pack_source,
    presence,
    unpack_source,
)


def test_conversation_hashes_are_fixed_for_ever():
    """The bytes that `printf alice | b2sum -l 64` prints, read as a little-endian number."""
    assert conversation_hash("alice").to_bytes(8, "little").hex() == "4deaec0cce54da89"
    assert conversation_hash("").to_bytes(8, "little").hex() == "e4a6a0577479b2b4"
    assert conversation_hash(None) == 0


@given(st.lists(st.none() | st.text(max_size=5)))
def test_many_hashes_equal_one_by_one(names):
    assert conversation_hashes(names).tolist() == [conversation_hash(name) for name in names]


@given(st.integers(0, SOURCE_NONE - 1), st.lists(st.integers(0, (1 << 48) - 1)))
def test_a_source_address_survives_packing(index, offsets):
    indexes, back = unpack_source(pack_source(index, offsets))
    assert back.tolist() == offsets
    assert set(indexes.tolist()) <= {index}


@pytest.mark.parametrize(("index", "offset"), [(-1, 0), (SOURCE_NONE, 0), (0, -1), (0, 1 << 48)])
def test_an_address_that_does_not_fit_is_refused(index, offset):
    with pytest.raises(Refuse) as caught:
        pack_source(index, [offset])
    assert caught.value.code == "ring.source_offset"


def test_a_new_record_knows_nothing():
    record = new_records(1)
    assert record["presence"] == 0
    assert record["spin"].tolist() == [[1, 0, 0, 0]]
    assert np.isnan(record["sentiment"][0])
    assert unpack_source(record["source_offset"])[0] == SOURCE_NONE


def test_presence_bits():
    assert presence() == 0
    assert presence("conversation_hash", "duration_ms") == 0b101
    assert presence(*PRESENCE_FIELDS) == (1 << len(PRESENCE_FIELDS)) - 1
    with pytest.raises(Refuse, match="colour"):
        presence("colour")


def test_frames_by_column_and_one_by_one():
    records = new_records(3)
    records["sentiment"] = [0.5, -0.5, 0.25]
    records["frame_id"] = [7, 8, 9]
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    frames = Frames(records, ("semantic",), (vectors,), lost=2)
    assert frames.sentiment.tolist() == [0.5, -0.5, 0.25]
    assert [frame.frame_id for frame in frames] == [7, 8, 9]
    assert frames[-1].semantic.tolist() == [4, 5]
    assert frames[0].spin.tolist() == [1, 0, 0, 0]
    assert frames[::2].frame_id.tolist() == [7, 9]
    frames[::2].floats[:, 5] = 1
    assert frames.sentiment.tolist() == [1, -0.5, 1], "floats is a view"
    assert frames.floats.shape == (3, 12)
    for thing in (frames, frames[0]):
        with pytest.raises(AttributeError, match="colour"):
            _ = thing.colour
