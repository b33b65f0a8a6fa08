"""Conversations without sockets: generators that say what to send, and who sends it.

A generator of steps yields a call and is sent what came of it, or yields a :class:`Pause` and is
sent nothing; what it returns is the outcome.  So what is said, and when it is said again, is
written once for programs with an event loop and without one, and tested without any server.
"""

import time
from collections.abc import Awaitable, Callable, Generator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from streamapp.core.clock import now_us

if TYPE_CHECKING:  # who has no event loop does without it
    import aiohttp

Call = TypeVar("Call")
Heard = TypeVar("Heard")
Outcome = TypeVar("Outcome")


class Pause(NamedTuple):
    """Nothing, for so long."""

    seconds: float


Steps = Generator[Call | Pause, Heard | None, Outcome]


def take(steps: Steps[Call, Heard, Outcome], call: Callable[[Call], Heard]) -> Outcome:
    """Run steps in this thread; ``call`` sends one and gives what came of it."""
    heard: Heard | None = None
    while True:
        try:
            step = steps.send(heard)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            heard = None
        else:
            heard = call(step)


async def take_async(
    steps: Steps[Call, Heard, Outcome], call: Callable[[Call], Awaitable[Heard]]
) -> Outcome:
    """Run steps on the event loop; ``call`` sends one and gives what came of it."""
    import asyncio  # programs without a loop do without it

    heard: Heard | None = None
    while True:
        try:
            step = steps.send(heard)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            heard = None
        else:
            heard = await call(step)


async def read_at_most(response: "aiohttp.ClientResponse", bytes_max: int) -> bytes | None:
    """A response's whole body; None when it is larger."""
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > bytes_max:
            return None
    return bytes(content)


def retry_after_s(header: str) -> float:
    """Seconds of a Retry-After header, a number or a date (RFC 9110, section 10.2.3)."""
    if header.isascii() and header.isdecimal():
        return float(header[:9])
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - now_us() / 1_000_000)
    except (ValueError, TypeError, OverflowError):
        return 0.0
