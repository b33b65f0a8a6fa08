"""Rows that a thread reads ahead, so that a slow file or pipe never stops what is in flight."""

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

from streamapp.core.clock import monotonic_s

#: Rows read ahead of what is posted.
AHEAD_ROWS = 2_000
_STEP_S = 0.2

T = TypeVar("T")


class Feed(Generic[T]):
    """Items of an iterator, read by a thread of its own, in order."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._queue: queue.Queue[T | None] = queue.Queue(AHEAD_ROWS)
        self._stopped = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._read, name="feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let go of the reader; a blocked read ends with the process."""
        self._stopped.set()

    def take(self, items_max: int, linger_s: float) -> list[T]:
        """The next items; fewer than ``items_max`` when no more came within ``linger_s``.

        Blocks until there is one.  Empty: the end.

        Raises:
            Exception: whatever the iterator raised, after everything that came before it was taken.
        """
        taken: list[T] = []
        deadline_s = float("inf")
        while len(taken) < items_max and not self._stopped.is_set():
            try:
                item = self._queue.get(timeout=min(_STEP_S, max(0.0, deadline_s - monotonic_s())))
            except queue.Empty:
                if monotonic_s() >= deadline_s:
                    break
                continue
            if item is None:
                self._stopped.set()
                break
            if not taken:
                deadline_s = monotonic_s() + linger_s
            taken.append(item)
        if not taken and self._error is not None:
            raise self._error
        return taken

    def _read(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except Exception as error:  # noqa: BLE001  # raised again where the items are taken
            self._error = error
        self._put(None)

    def _put(self, item: T | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=_STEP_S)
            except queue.Full:
                continue
            return True
        return False
