"""An Arrow IPC stream to records: a row is an event, its value the JSON object of its columns.

Columns have the names that JSON events have; a null is a key that is not there.  What is a text, a
number or a time in the events' own columns is checked a column at a time, and gives the verdict
that ``stamp`` gives on the same JSON.  Columns ``payload`` and ``attachments`` of strings hold JSON
text, as in the store's table ``events``.
"""

from collections.abc import Iterable, Iterator
from uuid import uuid4

import pyarrow as pa

from streamapp.gateway import ipc
from streamapp.gateway.budget import Lease
from streamapp.gateway.columns import column_of, rows_to_json
from streamapp.gateway.config import GatewayConfig
from streamapp.gateway.footprint import footprint
from streamapp.gateway.plain import EVENTS_PER_TURN, Making, Taken, group
from streamapp.gateway.problem import ProblemError

MEDIA = "application/vnd.apache.arrow.stream"


def groups(
    body: bytes, lease: Lease, making: Making, *, config: GatewayConfig, id_prefix: str | None
) -> Iterator[Taken]:
    """Every row, counted from 1 over all batches; some at a time.

    Args:
        body: the stream.
        lease: takes the rows and the bytes that they become.
        making: what all records share.
        config: ``body_bytes_max`` holds for the buffers decompressed and for the rows as JSON,
            ``request_events_max`` for the rows.
        id_prefix: ids of rows without one are ``PREFIX-ROW``; a random prefix otherwise.

    Raises:
        ProblemError: 413 too much, 400 no Arrow IPC stream or no row, 429.
    """
    size = ipc.measure(body, events_max=config.request_events_max, bytes_max=config.body_bytes_max)
    if not size.rows:
        raise ProblemError(400, "request.empty", "there is no row in the stream", "send one")
    lease.take(events=size.rows, nbytes=size.nbytes)
    rows = _Rows(lease, making, config.body_bytes_max, id_prefix or str(uuid4()))
    return rows.of(ipc.batches(body))


class _Rows:
    """Makes the records of a few batches."""

    def __init__(self, lease: Lease, making: Making, json_bytes_max: int, id_prefix: str) -> None:
        self._lease = lease
        self._making = making
        self._json_bytes_max = json_bytes_max
        self._id_prefix = id_prefix
        self._bytes = 0
        self._logical_bytes = 0

    def of(self, batches: Iterable[pa.RecordBatch]) -> Iterator[Taken]:
        row = 1
        for batch in batches:
            try:
                self._logical_bytes += footprint(batch)
            except ipc.BROKEN as error:
                raise ipc.broken(error) from None
            if self._logical_bytes > self._json_bytes_max:
                raise self._too_large()
            for start in range(0, batch.num_rows, EVENTS_PER_TURN):
                part = batch.slice(start, EVENTS_PER_TURN)
                yield self._part(part, row)
                row += part.num_rows

    def _part(self, batch: pa.RecordBatch, first: int) -> Taken:
        columns = [
            column_of(batch.schema.field(n), batch.column(n)) for n in range(batch.num_columns)
        ]
        kept = [column for column in columns if column is not None]
        values = self._taken(rows_to_json(kept, batch.num_rows))
        roles = [column.role for column in kept if column.role]
        is_said_twice = len(set(roles)) < len(roles)  # then it is in the JSON which one counts
        refused = {
            n: why
            for column in reversed(kept)
            if column.is_json or column.role is None or not is_said_twice
            for n, why in column.refused.items()
        }
        making, prefix = self._making, self._id_prefix
        lines = range(first, first + len(values))
        return group(values, lines, making, id_prefix=prefix, refused=refused)

    def _taken(self, rows: Iterator[bytes]) -> list[bytes]:
        """The rows, once there is room for them."""
        values, before = [], self._bytes
        for value in rows:
            self._bytes += len(value)
            if self._bytes > self._json_bytes_max:
                raise self._too_large()
            values.append(value)
        self._lease.take(nbytes=self._bytes - before)
        return values

    def _too_large(self) -> Exception:
        return ipc.too_large(
            f"more than {self._json_bytes_max:,} bytes as JSON", "send it in parts"
        )
