"""One call's time and threads: whether it is to stop, took too long, and what it does at once."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from streamapp.plugin import Refuse, Work

Item = TypeVar("Item")
Made = TypeVar("Made")


class Pace:
    """One call's time and threads.

    Args:
        work: asked whether the run is to stop.
        timeout_ms: of ``config``; None: no limit of its own.
    """

    def __init__(self, work: Work, timeout_ms: int | None) -> None:
        self._work, self._timeout_ms = work, timeout_ms
        self._started = time.monotonic()
        self.threads = work.threads

    def check(self, rows: int = 0) -> None:
        """Report rows as done.

        Raises:
            Cancelled: the run is to stop.
            Refuse: ``timeout_ms`` has passed.
        """
        self._work.advance(rows)
        limit = self._timeout_ms
        if limit is not None and (time.monotonic() - self._started) * 1000 > limit:
            why = f"the integration took longer than config.timeout_ms ({limit})"
            fix = "raise it, or give the passes of config.matching_strategy.blocking more fields"
            raise Refuse("integrate.timeout", why, fix)

    def map(self, make: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
        """What ``make`` makes of each, in order; as many at once as there are threads."""
        every = list(items)
        threads = min(self.threads, len(every))
        if threads <= 1:
            return [make(item) for item in every]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(make, every))

    def beside(self, one: Callable[[], Made], other: Callable[[], Item]) -> tuple[Made, Item]:
        """What both return; at once, where there are threads for it."""
        if self.threads == 1:
            return one(), other()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(other)
            return one(), waiting.result()
