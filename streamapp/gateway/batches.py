"""Arrow batches from who is no HTTP client (Flight): the same rows, verdicts and limits."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError as NotInTimeError
from typing import Self

import pyarrow as pa

from streamapp.core.config import Settings
from streamapp.core.errors import Refuse, Reject, Retry, StreamappError
from streamapp.core.metrics import Metrics
from streamapp.gateway import arrow, plain
from streamapp.gateway.budget import Budget
from streamapp.gateway.config import GatewayConfig
from streamapp.gateway.gateway import Gateway, Target, build
from streamapp.gateway.plain import Outcome
from streamapp.gateway.problem import ProblemError, problem_of
from streamapp.gateway.reports import Reports
from streamapp.gateway.schemas import Letter
from streamapp.gateway.stamp import Stamped
from streamapp.gateway.wire import Line
from streamapp.topics.catalogue import Catalogue
from streamapp.transport.clients import Producer

_SOURCE = "/flight"
_ROWS_MAX = 4096
_BUSY = 429


class Batches:
    """Takes batches in any thread and sends them in the event loop's.

    Args:
        gateway: its parts; the producer is started.
        loop: where the producer runs.
        send_s_max: how long the log may take to answer.
    """

    def __init__(
        self, gateway: Gateway, loop: asyncio.AbstractEventLoop, send_s_max: float = 30.0
    ) -> None:
        self._gateway = gateway
        self._loop = loop
        self._send_s_max = send_s_max

    @classmethod
    def of(
        cls,
        settings: Settings,
        producer: Producer,
        catalogue: Catalogue,
        metrics: Metrics,
    ) -> Self:
        """With the gateway's limits, in the loop that runs now."""
        config = GatewayConfig.of(settings)
        gateway = build(config, producer, catalogue, metrics, is_watched=False)
        return cls(gateway, asyncio.get_running_loop())

    @property
    def topics(self) -> Sequence[str]:
        """Those that take events."""
        return sorted(self._gateway.targets)

    def take(self, topic: str, batch: pa.RecordBatch, *, whole: bool) -> list[str | Reject]:
        """Append the batch's rows; the id of each, or why it was refused.

        Args:
            topic: one of ``topics``.
            batch: columns as JSON events have them, see ``gateway.arrow``.
            whole: when a row is refused, none is appended.

        Raises:
            Refuse: the topic takes no events, or the batch as a whole is not taken.
            Retry: the log does not answer in time; some may have been appended.
        """
        try:
            target = self._gateway.target(topic)
            reports = Reports()
            for part in _parts(batch):
                self._stamp(target, part, reports, whole=whole)
            self._gateway.delivery.rejected(reports.refused)
            if not (whole and reports.refused):
                self._send(target, reports)
        except ProblemError as problem:
            kind = Retry if problem.status >= _BUSY else Refuse
            raise kind(problem.code, problem.message, problem.fix) from None
        return [_told(line) for line in reports.lines]

    def _stamp(
        self, target: Target, batch: pa.RecordBatch, reports: Reports, *, whole: bool
    ) -> None:
        """Note what the rows have become, before anything is sent."""
        config = self._gateway.config
        budget = Budget(events_max=_ROWS_MAX, bytes_max=config.inflight_bytes_max)
        with budget.lease() as lease:
            making = plain.Making(
                _SOURCE, self._gateway.clock.now_us(), target.event_bytes_max, trace=()
            )
            stream = _stream(batch)
            for taken in arrow.groups(stream, lease, making, config=config, id_prefix=None):
                found = self._gateway.settlings(target, taken.events)
                changed = {place: outcome for place, outcome in found if outcome is not None}
                if whole:
                    changed = {place: _refused(made) for place, made in changed.items()}
                reports.take(taken, changed)

    def _send(self, target: Target, reports: Reports) -> None:
        """Append what is good; what the log says of it is noted, too."""
        sending = reports.send(self._gateway.delivery, target.name)
        future = asyncio.run_coroutine_threadsafe(sending, self._loop)
        try:
            future.result(self._send_s_max)
        except NotInTimeError:
            future.cancel()
            raise Retry(
                "log.timeout",
                f"the log did not answer within {self._send_s_max:g} s",
                "send it again, with the same ids",
            ) from None
        except StreamappError as error:  # of our insides: an operator gets the message, in the log
            raise problem_of(error) from None


def _refused(made: Outcome) -> Outcome:
    """A row that is for the dead letters is refused where one bad row refuses all."""
    if isinstance(made, Stamped) and isinstance(made.record, Letter):
        return made.record.why
    return made


def _told(line: Line) -> str | Reject:
    if line.status in {"accepted", "received"}:
        return str(line.id)
    return Reject(str(line.code), str(line.error), str(line.fix))


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for first in range(0, batch.num_rows, _ROWS_MAX):
        yield batch.slice(first, _ROWS_MAX)


def _stream(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content
