"""How long a served call should wait to fill, measured with many callers at once."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from streamapp.core.clock import monotonic_s
from streamapp.models.serving.policy import Policy
from streamapp.models.serving.scheduler import Scheduler
from streamapp.models.session import Array, Feeds, Session
from streamapp.models.tuned import Tuned

WAITS_MS = (0.0, 1.0, 2.0, 5.0)
CALLERS = 64
CALLS_OF_EACH = 8


class _Kept:
    """A session that outlives its scheduler."""

    def __init__(self, session: Session) -> None:
        self.ref, self.inputs, self.outputs = session.ref, session.inputs, session.outputs
        self.memory_bytes = session.memory_bytes
        self._session = session

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        return self._session.run(feeds, outputs)

    def close(self) -> None:
        """Not yet."""


def measure_waits(session: Session, feeds: Sequence[Feeds], tuned: Tuned) -> dict[float, float]:
    """Wait in ms to rows per second with 64 callers, each of which asks again when answered."""
    return {wait: _rows_s(session, feeds, tuned, wait) for wait in WAITS_MS}


def _rows_s(session: Session, feeds: Sequence[Feeds], tuned: Tuned, wait_ms: float) -> float:
    policy = Policy(
        batch_rows_max=tuned.batch,
        wait_ms_max=wait_ms,
        replicas_min=tuned.calls,
        replicas_max=tuned.calls,
    )
    scheduler = Scheduler(_Kept(session), policy)

    def caller(number: int) -> None:
        for turn in range(CALLS_OF_EACH):
            scheduler.run(feeds[(number + turn) % len(feeds)])

    try:
        with ThreadPoolExecutor(CALLERS) as callers:
            started_s = monotonic_s()
            list(callers.map(caller, range(CALLERS)))
            return CALLERS * CALLS_OF_EACH / max(monotonic_s() - started_s, 1e-9)
    finally:
        scheduler.close()
