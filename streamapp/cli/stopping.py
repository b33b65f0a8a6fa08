"""Signals that are a wish to stop."""

import asyncio
import signal
from collections.abc import Callable


def stop_by_signal(stop: Callable[[], object]) -> None:
    """Have Ctrl-C, SIGTERM and a terminal that is closed call ``stop``, however often they come.

    In a running loop.  With ``nohup`` a closed terminal does not.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, stop)
