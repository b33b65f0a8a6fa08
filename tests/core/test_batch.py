"""A Batch keeps rows, range and rejects together when it is cut and joined."""

import numpy as np
import pyarrow as pa
import pytest

from streamapp.core.batch import join, vector_column
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.topics.wire import decode_slice


@pytest.fixture
def batch():
    values = [b'{"message": "a"}', b"bad", b'{"message": "b"}', b"bad", b'{"message": "c"}']
    records = [Record(10 + i, 0, None, value) for i, value in enumerate(values)]
    return decode_slice(Slice(OffsetRange("t", 0, 8, 20), records), event_bytes_max=99)


@pytest.mark.parametrize("at", [1, 2])
def test_cut_and_join_give_the_same_batch(batch, at):
    left, right = batch.cut(at)
    assert (left.range.first, right.range.next) == (8, 20)
    assert left.range.next == right.range.first == right.offsets()[0]
    assert all(reject.source_offset < left.range.next for reject in left.rejects)
    joined = join([left, right])
    assert joined.rows.equals(batch.rows)
    assert (joined.range, joined.rejects) == (batch.range, batch.rejects)


def test_vectors_keep_nulls_as_nan():
    dense = np.array([[1, 2], [np.nan, np.nan], [3, 4]], np.float32)
    column = vector_column(dense)
    assert column.to_pylist() == [[1.0, 2.0], None, [3.0, 4.0]]
    rows = pa.RecordBatch.from_arrays([column], names=["e"])
    from streamapp.core.batch import Batch

    vectors = Batch(rows, OffsetRange("t", 0, 0, 3)).vectors("e")
    np.testing.assert_array_equal(vectors, dense)
