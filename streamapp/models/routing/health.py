"""How the models of a route do in this process: how long they take, how often they fail."""

import math
from collections import deque

from streamapp.core.clock import Clock
from streamapp.models.routing.spec import CALLS_KEPT, Guard

#: Calls that it takes until their p95 means something.
CALLS_MIN = 8
#: A measured time is one of so many per doubling, so that an epoch lasts.
_STEPS = 4


class Health:
    """Of one model.

    Args:
        failures_max: in a row, until it is left alone.
        cool_down_s: for so long; then it gets one call to prove itself.
        clock: tells when that is.
    """

    def __init__(self, failures_max: int, cool_down_s: float, clock: Clock) -> None:
        self._failures_max = failures_max
        self._cool_down_s = cool_down_s
        self._clock = clock
        self._in_a_row = 0
        self._up_at_s = -math.inf
        self._calls: deque[float] = deque(maxlen=CALLS_KEPT)  # ms of one event; NaN: it failed
        #: What it raised last.
        self.error: Exception | None = None

    @property
    def is_up(self) -> bool:
        """Whether it may be asked."""
        return self._clock.monotonic_s() >= self._up_at_s

    def answered(self, rows: int, seconds: float) -> None:
        """It answered a call about so many events."""
        self._in_a_row = 0
        self._up_at_s = -math.inf
        self._calls.append(seconds * 1000 / max(rows, 1))

    def failed(self, error: Exception) -> None:
        """It did not answer a call."""
        self.error = error
        self._calls.append(math.nan)
        self._in_a_row += 1
        if self._in_a_row >= self._failures_max:
            self._up_at_s = self._clock.monotonic_s() + self._cool_down_s

    @property
    def p95_ms(self) -> float | None:
        """Of one event, in coarse steps; None while too few calls were answered."""
        times = sorted(each for each in self._calls if not math.isnan(each))
        if len(times) < CALLS_MIN:
            return None
        return _coarse(times[math.ceil(0.95 * len(times)) - 1])

    @property
    def error_rate(self) -> float:
        """Share of the calls kept that failed."""
        return sum(map(math.isnan, self._calls)) / len(self._calls) if self._calls else 0.0

    def broken(self, guard: Guard | None) -> str:
        """Why it should be taken out, "" that it should not."""
        if guard is None or len(self._calls) < guard.calls_min:
            return ""
        if self.error_rate > guard.error_rate_max:
            return f"taken out: {self.error_rate:.0%} of its calls failed"
        late = self.p95_ms
        if guard.p95_ms_max is not None and late is not None and late > guard.p95_ms_max:
            return f"taken out: p95 {late:g} ms, {guard.p95_ms_max:g} are allowed"
        return ""


def _coarse(ms: float) -> float:
    """The nearest step of a scale of equal ratios, three digits of it."""
    if ms <= 0:
        return 0.0
    return float(f"{2 ** (round(math.log2(ms) * _STEPS) / _STEPS):.3g}")
