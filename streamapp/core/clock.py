"""The one place that asks what time it is, so that tests can answer."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for stamps, monotonic time for durations."""

    def now_us(self) -> int:
        """Unix time in microseconds."""
        ...

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def monotonic_s(self) -> float:
        return time.monotonic()


SYSTEM: Clock = SystemClock()


def now_us() -> int:
    """Unix time in microseconds."""
    return SYSTEM.now_us()


def now_ms() -> int:
    """Unix time in milliseconds, Kafka's unit."""
    return SYSTEM.now_us() // 1_000


def monotonic_s() -> float:
    """Seconds on a clock that never goes back."""
    return SYSTEM.monotonic_s()
