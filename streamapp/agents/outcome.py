"""What an agent does with our four errors, once for all of them.

An agent's body never raises: Faust would acknowledge the event that failed.  A Retry waits here; a
Halt or a Refuse ends the process with the error's exit code before anything else can be committed.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from streamapp.core.errors import Halt, Refuse, Reject, Retry
from streamapp.core.metrics import Metrics
from streamapp.transport.ending import stop_process

T = TypeVar("T")
logger = logging.getLogger("streamapp")

WAIT_S_FIRST = 0.05
WAIT_S_MAX = 5.0


async def guarded(work: Awaitable[T]) -> T:
    """Await ``work``; whatever it raises (but cancellation) ends the process."""
    try:
        return await work
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001  # nothing may reach Faust
        stop_process(error)


async def persist(
    what: str,
    attempt: Callable[[], Awaitable[T]],
    metrics: Metrics,
    still_ours: Callable[[], bool] = lambda: True,
) -> T | None:
    """Call ``attempt`` until it does not raise Retry; None when the partition is no longer ours.

    Waits double from 50 ms to 5 s, with jitter so that restarted workers do not knock in step.

    Raises:
        Halt, Refuse, Reject: as ``attempt`` does.
    """
    wait_s = WAIT_S_FIRST
    while still_ours():
        try:
            return await attempt()
        except Retry as error:
            metrics.retries.labels(what).inc()
            logger.warning("%s waits %.1f s: %s", what, wait_s, error)
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311  # jitter
            wait_s = min(wait_s * 2, WAIT_S_MAX)
    return None


__all__ = ["Halt", "Refuse", "Reject", "Retry", "guarded", "persist", "stop_process"]
