"""Calls that answer nobody, made beside those that do, and waited for no longer than is said."""

import atexit
import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from streamapp.core.clock import SYSTEM, Clock, monotonic_s
from streamapp.core.errors import StreamappError
from streamapp.models.routing.health import Health

#: What a model of no route gets: so many failures in a row, and it is left alone for so long.
FAILURES_MAX = 3
COOL_DOWN_S = 30.0
#: At the end of the process all calls under way together get so long.
END_S_MAX = 2.0

_THREAD = "streamapp-beside"
_log = logging.getLogger("streamapp.models")
T = TypeVar("T")


class Beside(Generic[T]):
    """One call at a time, in a thread of its own; used by one thread.

    While a call goes on nothing else is asked, so a server that hangs is waited for once in the
    time after which it is given up, and then left alone.

    Args:
        who: asks, for the log.
        fix: how who asks can be made to wait longer, for the log.
        clock: for how long calls take.
    """

    def __init__(self, who: str, fix: str, clock: Clock = SYSTEM) -> None:
        self._who, self._fix, self._clock = who, fix, clock
        self._own = Health(FAILURES_MAX, COOL_DOWN_S, clock)
        self._call: _Call[T] | None = None
        self._is_late = False

    def ask(self, work: Callable[[], T], rows: int, health: Health | None = None) -> bool:
        """Begin a call.  False: the one before goes on, or the model cools down.

        Args:
            work: the call.
            rows: that it is about.
            health: of the model that is called; None: this always calls the same one.
        """
        self._note()
        known = health or self._own
        if self._call is not None or not known.is_up:
            return False
        self._call = _Call(work, rows, known, self._clock)
        self._call.begin()
        return True

    def answer(self, wait_s: float) -> T | None:
        """What the call that was begun gave; None when it failed, or goes on after ``wait_s``."""
        call = self._call
        if call is None or not call.done.wait(wait_s):
            if call is not None and not self._is_late:
                self._is_late = True
                _log.warning("%s is late and not waited for: %s", self._who, self._fix)
            return None
        self._is_late = False
        self._note()
        return call.found

    def _note(self) -> None:
        """Remember how a call went, once it is over."""
        call = self._call
        if call is None or not call.done.is_set():
            return
        self._call = None
        if call.error is None:
            call.health.answered(call.rows, call.seconds)
            return
        call.health.failed(call.error)
        error = call.error
        said = error.message if isinstance(error, StreamappError) else repr(error)
        _log.warning("%s failed: %s", self._who, said)


class _Call(Generic[T]):
    """One call and what came of it; ``done`` is set when the rest is there."""

    def __init__(self, work: Callable[[], T], rows: int, health: Health, clock: Clock) -> None:
        self._work, self._clock = work, clock
        self.rows, self.health = rows, health
        self.done = threading.Event()
        self.found: T | None = None
        self.error: Exception | None = None
        self.seconds = 0.0

    def begin(self) -> None:
        """In a daemon: a server that hangs keeps no process from ending."""
        try:
            threading.Thread(target=self._run, name=_THREAD, daemon=True).start()
        except RuntimeError as error:  # the machine has no thread left
            self.error = error
            self.done.set()

    def _run(self) -> None:
        started_s = self._clock.monotonic_s()
        try:
            self.found = self._work()
        except Exception as error:  # noqa: BLE001  # it answers nobody, so it fails for nobody
            self.error = error
        except BaseException as error:  # noqa: BLE001  # an exit, or a library's panic
            self.error = RuntimeError(repr(error))
        self.seconds = self._clock.monotonic_s() - started_s
        self.done.set()


@atexit.register
def _end() -> None:
    """Let what is computed here end: a library's thread must not outlive the interpreter."""
    deadline_s = monotonic_s() + END_S_MAX
    for thread in threading.enumerate():
        if thread.name == _THREAD:
            thread.join(max(0.0, deadline_s - monotonic_s()))
