"""A Batch: events as Arrow columns together with the OffsetRange that they came from.

The two travel as one object so that nothing can publish, store or acknowledge rows without saying
which source offsets are thereby done.  A Batch is immutable; stages return columns and the Plan
makes the next Batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Headers

TIME = pa.timestamp("us", tz="UTC")

#: The columns every Batch starts with, in this order; stages only add to them.
EVENT_SCHEMA = pa.schema(
    [
        pa.field("source_offset", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("conversation", pa.string()),
        pa.field("actor", pa.string()),
        pa.field("time", TIME, nullable=False),
        pa.field("ingest_time", TIME, nullable=False),
        pa.field("text", pa.string()),
        pa.field("duration_ms", pa.float32(), nullable=False),
        pa.field("payload", pa.string(), nullable=False),
        pa.field("attachments", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A source record that failed for good: where and what it was (original bytes), and why."""

    source_offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    stage: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one source partition in offset order, the range they cover, and its rejects."""

    rows: pa.RecordBatch
    range: OffsetRange
    rejects: tuple[Rejected, ...] = ()

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def column(self, name: str) -> pa.Array:
        """The Arrow array of a column; KeyError when the batch has none of that name."""
        return self.rows.column(name)

    def strings(self, name: str) -> list[str | None]:
        """A string column as Python values."""
        values: list[str | None] = self.rows.column(name).to_pylist()
        return values

    def offsets(self) -> npt.NDArray[np.int64]:
        """Source offsets, shape (n,)."""
        values: npt.NDArray[np.int64] = self.rows.column("source_offset").to_numpy()
        return values

    def vectors(self, name: str) -> npt.NDArray[np.float32]:
        """A FixedSizeList<float32> column as one (n, dim) array; a null row is all NaN."""
        column = self.rows.column(name)
        dim = column.type.list_size
        if column.null_count == 0:
            flat: npt.NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=False)
            return flat.reshape(-1, dim)
        dense = np.full((len(column), dim), np.nan, np.float32)
        present = column.is_valid().to_numpy(zero_copy_only=False)
        dense[present] = (
            column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
        )
        return dense

    def with_columns(self, columns: Mapping[str, pa.Array]) -> "Batch":
        """The same rows with more columns, appended in the mapping's order."""
        arrays = [*self.rows.columns, *columns.values()]
        fields = [
            *self.rows.schema,
            *(pa.field(name, array.type) for name, array in columns.items()),
        ]
        return replace(self, rows=pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)))

    def cut(self, at_row: int) -> tuple["Batch", "Batch"]:
        """Two consecutive batches, the second starting with row ``at_row`` (0 < at_row < len)."""
        boundary = int(self.rows.column("source_offset")[at_row].as_py())
        topic, partition, first, next_ = self.range
        left = [r for r in self.rejects if r.source_offset < boundary]
        right = [r for r in self.rejects if r.source_offset >= boundary]
        return (
            Batch(
                self.rows.slice(0, at_row),
                OffsetRange(topic, partition, first, boundary),
                tuple(left),
            ),
            Batch(
                self.rows.slice(at_row),
                OffsetRange(topic, partition, boundary, next_),
                tuple(right),
            ),
        )

    def cuts(self, at_rows: Sequence[int]) -> list["Batch"]:
        """Consecutive batches; each but the first begins with one of the rows, which are rising."""
        parts, rest, done = [], self, 0
        for row in at_rows:
            part, rest = rest.cut(row - done)
            parts.append(part)
            done = row
        return [*parts, rest]


def join(parts: Sequence[Batch]) -> Batch:
    """One batch out of consecutive ones of the same partition and the same columns."""
    head, tail = parts[0].range, parts[-1].range
    return Batch(
        pa.concat_batches([part.rows for part in parts]),
        OffsetRange(head.topic, head.partition, head.first, tail.next),
        tuple(reject for part in parts for reject in part.rejects),
    )


def vector_column(vectors: npt.NDArray[np.float32]) -> pa.FixedSizeListArray:
    """An (n, dim) array as a FixedSizeList<float32>[dim] column.

    A row whose first value is NaN is null.
    """
    dense = np.ascontiguousarray(vectors, np.float32)
    values = pa.array(dense.reshape(-1))
    missing = np.isnan(dense[:, 0]) if dense.shape[1] else np.zeros(len(dense), bool)
    mask = pa.array(missing) if missing.any() else None
    return pa.FixedSizeListArray.from_arrays(values, dense.shape[1], mask=mask)
