"""What an agent does with our four errors, once for all of them.

An agent's body never raises: Faust would acknowledge the event that failed.  A Retry waits here; a
Halt or a Refuse ends the process with the error's exit code before anything else can be committed.
"""

import asyncio
import logging
import os
import random
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

from streamapp.core.errors import Halt, Refuse, Reject, Retry, StreamappError
from streamapp.core.metrics import Metrics

T = TypeVar("T")
logger = logging.getLogger("streamapp")

WAIT_S_FIRST = 0.05
WAIT_S_MAX = 5.0
_SHOW_CURSOR = "\x1b[?25h"


def stop_process(error: BaseException) -> NoReturn:
    """End this process at once; after such an error nothing is flushed or committed.

    The exit code is the error's own; ``os._exit`` because a clean shutdown would commit.
    """
    stderr = sys.__stderr__ or sys.stderr  # Faust turns sys.stderr into log lines
    if stderr.isatty():
        print(end=_SHOW_CURSOR, file=stderr)  # Faust's spinner hid it and shows it at exit only
    if isinstance(error, StreamappError):
        fix = f"\nfix: {error.fix}" if error.fix else ""
        print(f"error: {error.message}{fix}", file=stderr, flush=True)  # last words
        code = error.exit_code
    else:
        traceback.print_exception(error, file=stderr)
        print(f"error: {type(error).__name__}: {error}", file=stderr, flush=True)
        code = Halt.exit_code
    os._exit(code)


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
