"""A log filter for libraries that say the same at every attempt."""

import logging
from math import inf

from streamapp.core.clock import monotonic_s

#: Different messages remembered; then it begins anew.
_MESSAGES_MAX = 1000


class Seldom(logging.Filter):
    """Lets each message of the loggers below ``root`` through once in ``every_s`` seconds.

    A message is its text before its values are put in, so that a growing number does not make it
    another one.
    """

    def __init__(self, root: str, every_s: float = 30.0) -> None:
        super().__init__(root)
        self._every_s = every_s
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not super().filter(record):  # not of these loggers
            return True
        key, now_s = (record.name, str(record.msg)), monotonic_s()
        if now_s - self._said.get(key, -inf) < self._every_s:
            return False
        if len(self._said) >= _MESSAGES_MAX:
            self._said.clear()
        self._said[key] = now_s
        return True
