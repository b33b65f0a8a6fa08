"""Who is told of what was stored."""

import logging
import threading
from collections.abc import Callable
from typing import Generic, ParamSpec

_log = logging.getLogger(__name__)
P = ParamSpec("P")


class Subscribers(Generic[P]):
    """Callbacks, called in the order in which they came; one that raises is logged and dropped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: dict[object, Callable[P, None]] = {}

    def add(self, callback: Callable[P, None]) -> Callable[[], None]:
        """Call it from now on; returns how to stop that, which may be called again."""
        key = object()
        with self._lock:
            self._callbacks[key] = callback

        def remove() -> None:
            with self._lock:
                self._callbacks.pop(key, None)

        return remove

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def tell(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call all; never raises what they raise."""
        with self._lock:
            callbacks = list(self._callbacks.items())
        for key, callback in callbacks:
            try:
                callback(*args, **kwargs)
            except Exception:  # noqa: BLE001  # whatever it is, the rows are stored
                _log.exception("a subscriber of the store failed and is told no more")
                with self._lock:
                    self._callbacks.pop(key, None)
