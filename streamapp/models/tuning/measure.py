"""One way to run a model, measured: rows per second, milliseconds of a row alone, and how right."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from streamapp.core.clock import SYSTEM, Clock
from streamapp.models.tuned import Tuned
from streamapp.models.tuning.subjects import Floats, Ready, Subject

#: How often the work is run; the best counts, since others on the machine only ever slow it down.
REPEATS = 3
ALONE = 32


@dataclass(frozen=True, slots=True)
class Measured:
    """What was seen of one way.

    ``cosine`` is the least between its rows and the reference's, ``invariance`` the least between a
    row alone and among others (None where that is not promised).
    """

    tuned: Tuned
    rows_s: float
    alone_p95_ms: float
    cosine: float
    invariance: float | None

    def as_dict(self) -> dict[str, object]:
        """For JSON and tables."""
        keys = ("backend", "precision", "variant", "threads", "calls", "batch", "wait_ms")
        return {key: getattr(self.tuned, key) for key in keys} | {
            "rows_s": round(self.rows_s, 1),
            "alone_p95_ms": round(self.alone_p95_ms, 3),
            "cosine": round(self.cosine, 6),
            "invariance": None if self.invariance is None else round(self.invariance, 6),
        }


def measure(
    subject: Subject, tuned: Tuned, reference: Floats | None = None, clock: Clock = SYSTEM
) -> tuple[Measured, Floats]:
    """Measure one way; also what the model gave.

    Args:
        subject: the model.
        tuned: the way.
        reference: what it should give; None: this is it.
        clock: for the tests.

    Raises:
        Refuse: the model cannot be opened like that.
    """
    ready = subject.open(tuned)
    try:
        found = ready.all()  # the first run allocates
        rows_s = max(_rows_s(ready, clock) for _ in range(REPEATS))
        alone = [_seconds(partial(ready.one, row), clock) for row in range(_few(ready))]
        return Measured(
            tuned,
            rows_s,
            float(np.percentile(alone, 95)) * 1000,
            1.0 if reference is None else least_cosine(found, reference),
            ready.invariance(),
        ), found
    finally:
        ready.close()


def least_cosine(found: Floats, reference: Floats) -> float:
    """Of each row with its own; rows that are all zero agree when both are."""
    one, other = found.astype(np.float64), reference.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    same = np.isclose(one, other).all(axis=1)
    cosines = (one * other).sum(axis=1) / np.where(lengths > 0, lengths, 1)
    return float(np.where(same, 1.0, cosines).min())


def _few(ready: Ready) -> int:
    return min(ready.rows, ALONE)


def _rows_s(ready: Ready, clock: Clock) -> float:
    return ready.rows / _seconds(ready.all, clock)


def _seconds(work: Callable[[], object], clock: Clock) -> float:
    started_s = clock.monotonic_s()
    work()
    return max(clock.monotonic_s() - started_s, 1e-9)
