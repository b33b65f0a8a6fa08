"""Many events of one body to records: those in plain form at once, in C, the others by ``stamp``.

What the C extension takes has the row that ``core.event`` gives (``topics/columns.py``), and its
record is the one that ``stamp`` makes of such a row.  It leaves everything else to ``stamp``, which
alone says what is wrong with an event.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from streamapp.core.errors import Reject
from streamapp.gateway.arrow import Making
from streamapp.gateway.stamp import TYPE_DEFAULT, Stamped, assembled, is_clean, new_id, stamp
from streamapp.topics.columns import decode_values

#: For fewer, making columns costs more than it saves.
EVENTS_MIN = 8
#: Read at once, without a look at other requests.
_EVENTS_PER_TURN, _BYTES_PER_TURN = 512, 1 << 20

Piece = tuple[int, bytes]


def outcomes(
    pieces: Sequence[Piece], making: Making, *, id_prefix: str | None
) -> Iterator[tuple[int, Stamped | Reject]]:
    """Every event in order, with its line: what it became, or why it is none.

    Args:
        pieces: (line, bytes) of each.
        making: what they share.
        id_prefix: ids of events without one are this and their line; random ones when None.
    """
    prefix = id_prefix or new_id()
    for part in _parts(pieces):
        enough = len(part) >= EVENTS_MIN
        rows = _rows(part, making, prefix) if enough else [None] * len(part)
        for (line, value), row in zip(part, rows, strict=True):
            if row is not None:
                yield line, row
                continue
            try:
                yield line, _one(line, value, making, prefix)
            except Reject as error:
                yield line, error


def _parts(pieces: Sequence[Piece]) -> Iterator[Sequence[Piece]]:
    """Not too many events and bytes at once; one event of any size."""
    first, size = 0, 0
    for at, (_, value) in enumerate(pieces):
        size += len(value)
        if at > first and (at - first == _EVENTS_PER_TURN or size > _BYTES_PER_TURN):
            yield pieces[first:at]
            first, size = at, len(value)
    yield pieces[first:]


def _one(line: int, value: bytes, making: Making, id_prefix: str) -> Stamped:
    source, received_us, bytes_max, trace = making
    return stamp(
        value,
        source=source,
        received_us=received_us // 1000 * 1000,  # as the others have it
        bytes_max=bytes_max,
        id_if_none=f"{id_prefix}-{line}",
        trace=trace,
    )


def _rows(part: Sequence[Piece], making: Making, id_prefix: str) -> list[Stamped | None]:
    """The events in plain form; None in the place of every other one."""
    rows, left = decode_values(
        [value for _, value in part],
        [line for line, _ in part],
        source=making.source,
        id_prefix=f"{id_prefix}-",
        received_ms=making.received_us // 1000,
        event_bytes_max=making.bytes_max,
    )
    others = set(left)
    found = iter(_stamped([part[n][1] for n in range(len(part)) if n not in others], rows, making))
    return [None if n in others else next(found) for n in range(len(part))]


def _stamped(
    values: Sequence[bytes], rows: pa.RecordBatch, making: Making
) -> Iterator[Stamped | None]:
    ids, kinds, sources, keys = (
        rows.column(name).to_pylist() for name in ("id", "type", "source", "conversation")
    )
    # Without a zone Arrow's text is ISO 8601; all times are in UTC.
    times = rows.column("time").cast(pa.timestamp("us")).cast(pa.string()).to_pylist()
    clean = is_clean("".join([*ids, *kinds, *sources]))
    for value, identity, kind, source, key, time in zip(
        values, ids, kinds, sources, keys, times, strict=True
    ):
        if not clean or _may_say(kind, value):
            yield None
            continue
        yield assembled(
            value,
            identity,
            kind,
            source,
            f"{time[:10]}T{time[11:]}Z",
            key or identity,
            making.trace,
            typed=kind != TYPE_DEFAULT,
        )


def _may_say(kind: str, value: bytes) -> bool:
    """Whether an event of the default type may have said so itself."""
    return kind == TYPE_DEFAULT and (b'"type"' in value or b"\\" in value)
