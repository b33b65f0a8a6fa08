"""Answers of a scheduler's threads, for those who await them on an event loop.

A batch answers many at once: the loop is woken once for all of them, not for each.
"""

import asyncio
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Arrivals:
    """Of one event loop, on which every answer is awaited."""

    def __init__(self) -> None:
        self._arrived: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        self._is_due = False

    async def of(self, answer: "Future[T]") -> T:
        """What the Future gives or raises; who gives up cancels it."""
        awaited: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(partial(self._done, awaited))
        try:
            return await awaited
        except asyncio.CancelledError:
            answer.cancel()
            raise

    def _done(self, awaited: "asyncio.Future[T]", answer: "Future[T]") -> None:
        """In any thread."""
        self._arrived.append((awaited, answer))
        loop = awaited.get_loop()
        # The loop clears the flag before it looks: nothing is overlooked.
        if not self._is_due and not loop.is_closed():
            self._is_due = True
            loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        self._is_due = False
        while self._arrived:
            awaited, answer = self._arrived.popleft()
            if awaited.done():  # given up
                continue
            if (error := answer.exception()) is not None:
                awaited.set_exception(error)
            else:
                awaited.set_result(answer.result())
