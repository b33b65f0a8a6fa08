"""An Arrow IPC stream to records: a row is an event, its value the JSON object of its columns.

Columns have the names that JSON events have; a null is a key that is not there.  What is a text, a
number or a time in the events' own columns is checked a column at a time, and gives the verdict
that ``stamp`` gives on the same JSON.  Columns ``payload`` and ``attachments`` of strings hold JSON
text, as in the store's table ``events``; rows with those are stamped one by one.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple
from uuid import uuid4

import pyarrow as pa

from streamapp.core.errors import Reject
from streamapp.core.slice import Headers
from streamapp.gateway import ipc
from streamapp.gateway.budget import Lease
from streamapp.gateway.columns import Column, column_of, rows_to_json
from streamapp.gateway.config import GatewayConfig
from streamapp.gateway.footprint import footprint
from streamapp.gateway.problem import ProblemError
from streamapp.gateway.stamp import (
    TYPE_DEFAULT,
    Stamped,
    assembled,
    is_clean,
    rfc3339,
    stamp,
    too_large,
    unclean,
)

MEDIA = "application/vnd.apache.arrow.stream"
#: Rows that become Python objects at a time, between two looks at other requests.
_ROWS_PER_TURN = 512


class Making(NamedTuple):
    """What the records of a body share; see ``stamp.stamp``."""

    source: str
    received_us: int
    bytes_max: int
    trace: Headers


def outcomes(
    body: bytes, lease: Lease, making: Making, *, config: GatewayConfig, id_prefix: str | None
) -> Iterator[tuple[int, Stamped | Reject]]:
    """(row, its record or why it has none) of every row, counted from 1 over all batches.

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


def outcomes_of(
    batches: Iterable[pa.RecordBatch], lease: Lease, making: Making, *, bytes_max: int
) -> Iterator[tuple[int, Stamped | Reject]]:
    """As :func:`outcomes`, of batches that are in memory and valid down to their UTF-8.

    Args:
        batches: ``RecordBatch.validate(full=True)`` has passed.
        lease: takes the bytes that the rows become; the caller takes the rows.
        making: what all records share.
        bytes_max: of all rows, as JSON.

    Raises:
        ProblemError: 413 too much, 400 a column is of a type that does not do, 429.
    """
    return _Rows(lease, making, bytes_max, str(uuid4())).of(batches)


class _Rows:
    """Makes the records of a few batches."""

    def __init__(self, lease: Lease, making: Making, json_bytes_max: int, id_prefix: str) -> None:
        self._lease = lease
        self._making = making
        self._json_bytes_max = json_bytes_max
        self._id_prefix = id_prefix
        self._bytes = 0
        self._logical_bytes = 0

    def of(self, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, Stamped | Reject]]:
        row = 1
        for batch in batches:
            try:
                self._logical_bytes += footprint(batch)
            except ipc.BROKEN as error:
                raise ipc.broken(error) from None
            if self._logical_bytes > self._json_bytes_max:
                raise self._too_large()
            for start in range(0, batch.num_rows, _ROWS_PER_TURN):
                part = batch.slice(start, _ROWS_PER_TURN)
                yield from enumerate(self._part(part, row), row)
                row += part.num_rows

    def _part(self, batch: pa.RecordBatch, first: int) -> Iterator[Stamped | Reject]:
        columns = [
            column_of(batch.schema.field(n), batch.column(n)) for n in range(batch.num_columns)
        ]
        kept = [column for column in columns if column is not None]
        values = self._taken(rows_to_json(kept, batch.num_rows))
        roles = [column.role for column in kept if column.role]
        if any(column.is_json for column in kept) or len(set(roles)) < len(roles):
            return self._one_by_one(values, kept, first)
        return self._stamped(values, {column.role: column for column in kept}, first)

    def _one_by_one(
        self, values: list[bytes], columns: list[Column], first: int
    ) -> Iterator[Stamped | Reject]:
        refused = {  # what ``stamp`` does not find in the JSON
            n: why
            for column in columns
            if column.is_json or column.role is None
            for n, why in column.refused.items()
        }
        source, received_us, bytes_max, trace = self._making
        one = partial(
            stamp, source=source, received_us=received_us, bytes_max=bytes_max, trace=trace
        )
        for n, value in enumerate(values):
            try:
                yield refused.get(n) or one(value, id_if_none=f"{self._id_prefix}-{first + n}")
            except Reject as error:
                yield error

    def _stamped(
        self, values: list[bytes], columns: dict[str | None, Column], first: int
    ) -> Iterator[Stamped | Reject]:
        """What ``stamp`` does, for rows whose columns have been checked."""

        def texts(role: str) -> list[str | None] | None:
            return columns[role].texts if role in columns else None

        ids, kinds, sources = texts("id"), texts("type"), texts("source")
        conversations, times = texts("conversation"), texts("time")
        refused = {
            row: error
            for column in reversed(columns.values())
            for row, error in column.refused.items()
        }
        received = rfc3339(self._making.received_us)
        for n, value in enumerate(values):
            if len(value) > self._making.bytes_max:
                yield too_large(value, self._making.bytes_max)
                continue
            if n in refused:
                yield refused[n]
                continue
            identity = (ids and ids[n]) or f"{self._id_prefix}-{first + n}"
            said = kinds and kinds[n]
            kind = said or TYPE_DEFAULT
            source = (sources and sources[n]) or self._making.source
            if not is_clean(f"{identity}{kind}{source}"):
                yield unclean()
                continue
            time = (times and times[n]) or received
            key = (conversations and conversations[n]) or identity
            yield assembled(
                value, identity, kind, source, time, key, self._making.trace, typed=bool(said)
            )

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
