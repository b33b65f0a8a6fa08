"""Events in by ``DoPut``: a stream of Arrow batches, each answered when the log has it.

A client names a topic by a path descriptor (``events.raw``), and gets for each batch a JSON object:
``batch`` (its number from 0), ``accepted``, ``ids`` and ``rejected`` (``row``, ``code``, ``error``,
``fix``).  Flight SQL's bulk ingest appends to a table whose name is the topic's with underscores
(``events_raw``); it has no room for single rows, so a batch with a bad row is refused whole.
"""

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pyarrow as pa

from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Refuse, Reject, Retry
from streamapp.flight import wire
from streamapp.flight.border import short

_BATCH_BYTES_MAX = 64 << 20
#: A stream costs a thread while it is open, a batch several times its memory while it is taken.
_STREAMS_MAX = 64
_BATCHES_MAX = 4
_STREAM_S_MAX = 3600.0
_WAIT_S_MAX = 30.0
_REJECTED_TOLD_MAX = 100
#: TableExistsOption of FlightSql.proto.
_APPEND = 2


class Taker(Protocol):
    """Where batches go."""

    @property
    def topics(self) -> Sequence[str]:
        """Those that take events."""
        ...

    def take(self, topic: str, batch: pa.RecordBatch, *, whole: bool) -> list[str | Reject]:
        """Append the rows; the id of each or why it was refused; all or none if ``whole``."""
        ...


class Ingest:
    """Takes streams.

    Args:
        taker: where batches go; None: nowhere.
    """

    def __init__(self, taker: Taker | None) -> None:
        self._taker = taker
        self._streams = threading.BoundedSemaphore(_STREAMS_MAX)
        self._batches = threading.BoundedSemaphore(_BATCHES_MAX)

    def put(
        self,
        topic: str,
        read: Callable[[], pa.RecordBatch | None],
        write: Callable[[bytes], None],
    ) -> None:
        """Take every batch of a stream, and answer each.

        Raises:
            Refuse: no such topic, or a batch as a whole is not taken.
            Retry: the log does not answer, too much is being taken, or the stream lasts too long.
        """

        def each(number: int, outcomes: list[str | Reject]) -> None:
            write(json.dumps(_report(number, outcomes)).encode())

        self._take_all(topic, read, each, whole=False)

    def append(self, message: wire.Message, read: Callable[[], pa.RecordBatch | None]) -> int:
        """Flight SQL's CommandStatementIngest; how many rows were appended.

        Raises:
            Refuse: it asks for more than to append to a topic's table, or a row is refused.
            Retry: as ``put``.
        """
        table = _appendable(message)
        count = 0

        def each(_number: int, outcomes: list[str | Reject]) -> None:
            nonlocal count
            bad = [(n, made) for n, made in enumerate(outcomes) if isinstance(made, Reject)]
            if bad:
                (n, first), more = bad[0], f", and {len(bad) - 1} more" if len(bad) > 1 else ""
                raise Refuse(
                    first.code,
                    f"row {count + n}: {first.message}{more}; {count:,} rows before this batch "
                    "were taken, none of it",
                    first.fix or "mend the row and send the rest again",
                )
            count += len(outcomes)

        self._take_all(table, read, each, whole=True)
        return count

    def _take_all(
        self,
        name: str,
        read: Callable[[], pa.RecordBatch | None],
        each: Callable[[int, list[str | Reject]], None],
        *,
        whole: bool,
    ) -> None:
        taker, topic = self._topic(name)
        if not self._streams.acquire(blocking=False):
            raise Retry("flight.busy", f"{_STREAMS_MAX} streams are open already", "try again")
        try:
            deadline_s = monotonic_s() + _STREAM_S_MAX
            number = 0
            while (batch := read()) is not None:
                if monotonic_s() > deadline_s:
                    raise Retry(
                        "ingest.time",
                        f"the stream has lasted more than {_STREAM_S_MAX:g} s",
                        "go on with a new one",
                    )
                each(number, self._take(taker, topic, batch, whole=whole))
                number += 1
        finally:
            self._streams.release()

    def _take(
        self, taker: Taker, topic: str, batch: pa.RecordBatch, *, whole: bool
    ) -> list[str | Reject]:
        if batch.nbytes > _BATCH_BYTES_MAX:
            raise Refuse(
                "ingest.too_large",
                f"a batch has {batch.nbytes:,} bytes, {_BATCH_BYTES_MAX:,} are taken at most",
                "send smaller batches",
            )
        if not self._batches.acquire(timeout=_WAIT_S_MAX):
            raise Retry("flight.busy", "too many batches wait for the log", "send it again")
        try:
            return taker.take(topic, batch, whole=whole)
        finally:
            self._batches.release()

    def _topic(self, name: str) -> tuple[Taker, str]:
        if self._taker is None:
            raise Refuse("flight.unknown", "this server takes no events", "use the gateway")
        topics = {topic.replace(".", "_"): topic for topic in self._taker.topics}
        topics |= {topic: topic for topic in self._taker.topics}
        if name not in topics:
            raise Refuse(
                "topic.unknown",
                f"{short(name, 200)!r} takes no events",
                f"events are taken by: {', '.join(sorted(self._taker.topics))}",
            )
        return self._taker, topics[name]


def _report(number: int, outcomes: list[str | Reject]) -> dict[str, Any]:
    ids = [made for made in outcomes if isinstance(made, str)]
    bad = [(row, made) for row, made in enumerate(outcomes) if isinstance(made, Reject)]
    return {
        "batch": number,
        "accepted": len(ids),
        "refused": len(bad),
        "ids": ids,
        "rejected": [
            {"row": row, "code": made.code, "error": made.message, "fix": made.fix}
            for row, made in bad[:_REJECTED_TOLD_MAX]
        ],
    }


def _appendable(message: wire.Message) -> str:
    """The table to append to."""
    options = wire.decode(wire.first_bytes(message, 1) or b"")
    table = wire.first_text(message, 2) or ""
    exists = (options.get(2) or [_APPEND])[0]
    if exists != _APPEND:
        raise Refuse(
            "sql.not_allowed",
            f"{short(table, 200)} can only be appended to",
            "adbc_ingest(..., mode='append')",
        )
    if wire.flag(message, 5) or wire.first_text(message, 3) or wire.first_text(message, 4):
        raise Refuse(
            "sql.not_allowed",
            "events go to a topic: there is no catalog, no schema, nothing temporary",
            "give the table's name alone",
        )
    return table
