"""Arrow batches from who is no HTTP client (Flight): the same rows, verdicts and limits."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
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
from streamapp.gateway.schemas import Letter
from streamapp.gateway.stamp import Stamped
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
            outcomes = [made for part in _parts(batch) for made in self._made(target, part)]
            if whole:
                outcomes = [_refused(made) for made in outcomes]
            refused = sum(isinstance(outcome, Reject) for outcome in outcomes)
            self._gateway.delivery.rejected(refused)
            if not (whole and refused):
                self._send(target, outcomes)
        except ProblemError as problem:
            kind = Retry if problem.status >= _BUSY else Refuse
            raise kind(problem.code, problem.message, problem.fix) from None
        return [made.id if isinstance(made, Stamped) else made for made in outcomes]

    def _made(self, target: Target, batch: pa.RecordBatch) -> Iterator[Outcome]:
        config = self._gateway.config
        budget = Budget(events_max=_ROWS_MAX, bytes_max=config.inflight_bytes_max)
        with budget.lease() as lease:
            making = plain.Making(
                _SOURCE, self._gateway.clock.now_us(), target.event_bytes_max, trace=()
            )
            made = arrow.groups(_stream(batch), lease, making, config=config, id_prefix=None)
            settle = self._gateway.settling(target)
            for _, outcome in plain.each(made):
                if settle is not None and isinstance(outcome, Stamped):
                    yield _settled(settle, outcome)
                else:
                    yield outcome

    def _send(self, target: Target, outcomes: list[Outcome]) -> None:
        """Append what is good; what the log refuses takes its place in ``outcomes``."""
        good = [(n, made) for n, made in enumerate(outcomes) if isinstance(made, Stamped)]
        if not good:
            return
        sending = self._gateway.delivery.send(target.name, [made.record for _, made in good])
        future = asyncio.run_coroutine_threadsafe(sending, self._loop)
        try:
            addresses = future.result(self._send_s_max)
        except NotInTimeError:
            future.cancel()
            raise Retry(
                "log.timeout",
                f"the log did not answer within {self._send_s_max:g} s",
                "send it again, with the same ids",
            ) from None
        except StreamappError as error:  # of our insides: an operator gets the message, in the log
            raise problem_of(error) from None
        for (n, _), address in zip(good, addresses, strict=True):
            if isinstance(address, Reject):
                outcomes[n] = address


def _refused(made: Outcome) -> Outcome:
    """A row that is for the dead letters is refused where one bad row refuses all."""
    if isinstance(made, Stamped) and isinstance(made.record, Letter):
        return made.record.why
    return made


def _settled(settle: Callable[[Stamped], Stamped], stamped: Stamped) -> Outcome:
    try:
        return settle(stamped)
    except Reject as error:
        return error


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for first in range(0, batch.num_rows, _ROWS_MAX):
        yield batch.slice(first, _ROWS_MAX)


def _stream(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content
