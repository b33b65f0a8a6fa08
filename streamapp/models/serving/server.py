"""Every served model of a process: opened when first asked for, closed when memory is short.

A name is looked up at each request, so an alias that moves is followed: the other version is opened
and warmed up while the one before answers, and no request is dropped between them.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Protocol

from streamapp.core.clock import SYSTEM, Clock
from streamapp.core.errors import Halt, Refuse, Retry, StreamappError
from streamapp.core.metrics import Metrics
from streamapp.models.manifest import Manifest
from streamapp.models.serving.budget import Budget
from streamapp.models.serving.live import LOOK_S
from streamapp.models.serving.policy import Policy
from streamapp.models.serving.scheduler import Scheduler
from streamapp.models.serving.warming import warm_session
from streamapp.models.serving.watch import Measured, Watch
from streamapp.models.session import Array, Feeds, Session
from streamapp.models.tuned import Tuned

_log = logging.getLogger("streamapp")

Answer = Future[dict[str, Array]]
#: Requests that may wait for models that are being opened.
OPENING_MAX = 1024


class Source(Protocol):
    """What a registry is to a server."""

    def manifest(self, name: str | None = None, task: str | None = None) -> Manifest: ...
    def refresh(self) -> bool: ...
    def open(self, name: str) -> Session: ...
    def size(self, name: str) -> int: ...
    def tuned(self, name: str) -> Tuned | None: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """A model that is open: rows that wait, replicas, bytes it is charged for."""

    name: str
    queued: int
    replicas: int
    memory_bytes: int


class Server:
    """Models by name, each behind a scheduler.

    Args:
        source: the registry.
        policy: of a model, by its manifest; default: the same for all.
        memory_bytes_max: of all together; 0: no limit.
        metrics: gets latency, queue, errors and memory of each model.
        clock: for the tests.
    """

    def __init__(
        self,
        source: Source,
        policy: Callable[[Manifest], Policy] | None = None,
        memory_bytes_max: int = 0,
        metrics: Metrics | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.budget = Budget(memory_bytes_max)
        self._source = source
        self._policy = policy or (lambda _manifest: Policy())
        self._metrics = metrics
        self._clock = clock
        self._looked_s = clock.monotonic_s()
        self._lock = Lock()
        self._open: OrderedDict[str, Scheduler] = OrderedDict()  # the one used last is last
        self._charged: dict[str, int] = {}
        self._serving: dict[str, str] = {}  # what answers a name, until what it leads to is open
        self._opening: dict[str, Future[None]] = {}
        self._waiting = 0
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="streamapp-serving")

    def submit(self, name: str, feeds: Feeds, outputs: Sequence[str] | None = None) -> Answer:
        """Run a model; the answer, or what is wrong, comes by the Future.  Never blocks.

        The Future's error is a Refuse (no such model, or it cannot be opened), a Reject (a wrong
        feed), a Retry (queue or memory is full, or a server is away) or a Halt.
        """
        try:
            with self._lock:
                full_name = self._leads_to(name)
                if (found := self._open.get(full_name)) is not None:
                    self._open.move_to_end(full_name)
                    return found.submit(feeds, outputs)
                opening = self._start(full_name)
            return self._later(opening, full_name, feeds, outputs)
        except StreamappError as error:
            failed = Answer()
            failed.set_exception(error)
            return failed

    def session(self, name: str) -> "Served":
        """A Session whose calls go through here; opens the model.

        Raises:
            Refuse: no such model, or it cannot be opened.
            Retry: memory is full, or its server is away.
        """
        self.load(name)
        return Served(self, name)

    def load(self, name: str) -> Session:
        """Open a model now, and wait for it.

        Raises:
            Refuse: no such model, or it cannot be opened.
            Retry: memory is full, or its server is away.
        """
        full_name = self._source.manifest(name).full_name
        while True:
            with self._lock:
                if (found := self._open.get(full_name)) is not None:
                    return found
                opening = self._start(full_name)
            opening.result()

    def unload(self, name: str) -> bool:
        """Close a model after what it was asked already; False when it is not open."""
        full_name = self._source.manifest(name).full_name
        with self._lock:
            found = self._open.pop(full_name, None)
        if found is None:
            return False
        self._end(full_name, found)
        return True

    def standing(self) -> list[Standing]:
        """What is open, the one that was used last first."""
        with self._lock:
            found = [(name, one, self._charged[name]) for name, one in self._open.items()]
        return [Standing(n, one.queued, one.replicas, size) for n, one, size in reversed(found)]

    def close(self) -> None:
        """Answer what was asked, then close everything."""
        with self._lock:
            self._closed = True
        self._thread.shutdown(wait=True)
        with self._lock:
            found = list(self._open.items())
            self._open.clear()
        for name, one in found:
            self._end(name, one)

    def _leads_to(self, name: str) -> str:
        """The full name of what answers a name now, and a start of what will."""
        self._look()
        target = self._source.manifest(name).full_name
        before = self._serving.get(name, target)
        if before != target and before in self._open and target not in self._open:
            opening = self._opening.get(target)
            if opening is None or not opening.done():
                self._start(target).add_done_callback(partial(_say_failure, name, before))
            return before  # what cannot be opened is tried again when aliases or routes change
        self._serving[name] = target
        return target

    def _look(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        try:
            if self._source.refresh():
                self._opening = {n: one for n, one in self._opening.items() if not one.done()}
        except StreamappError as error:
            _log.warning("models stay as they are: %s", error)

    def _start(self, full_name: str) -> "Future[None]":
        """The opening of a model, under way."""
        if self._closed:
            raise Halt("models.closed", "the server of models was closed", "start it again")
        under_way = self._opening.get(full_name)
        if under_way is None or under_way.done():
            under_way = self._thread.submit(self._bring, full_name)
            self._opening[full_name] = under_way
        return under_way

    def _later(
        self, opening: "Future[None]", full_name: str, feeds: Feeds, outputs: Sequence[str] | None
    ) -> Answer:
        """The answer of a model that is being opened."""
        with self._lock:
            if self._waiting >= OPENING_MAX:
                raise Retry(
                    "models.queue", f"{OPENING_MAX} requests wait for {full_name}", "try again"
                )
            self._waiting += 1
        answer = Answer()

        def opened(done: "Future[None]") -> None:
            with self._lock:
                self._waiting -= 1
            if (error := done.exception()) is not None:
                answer.set_exception(error)
            else:
                _pass_on(self.submit(full_name, feeds, outputs), answer)

        opening.add_done_callback(opened)
        return answer

    def _bring(self, full_name: str) -> None:
        """In the thread: open, warm and offer a model."""
        size = self._source.size(full_name)
        self._make_room(full_name, size)
        manifest = self._source.manifest(full_name)
        try:
            session = self._source.open(full_name)
            warm_session(session, manifest)
        except BaseException:
            self.budget.give(size)
            raise
        watch: Watch | None = Measured(self._metrics, full_name) if self._metrics else None
        policy = self._policy(manifest)
        if (tuned := self._source.tuned(full_name)) is not None:
            policy = policy.tuned(tuned.batch, tuned.wait_ms, tuned.calls)
        served = Scheduler(session, policy, watch=watch, clock=self._clock)
        with self._lock:
            self._open[full_name] = served
            self._charged[full_name] = size
            del self._opening[full_name]

    def _make_room(self, full_name: str, size: int) -> None:
        """Take the memory, closing what was used longest ago and does nothing."""
        if not self.budget.fits(size):
            raise Refuse(
                "models.memory",
                f"{full_name} takes {size} bytes, all models may take {self.budget.bytes_max}",
                "raise the limit, or serve a smaller one",
            )
        while not self.budget.take(size):
            with self._lock:
                idle = next((name for name, one in self._open.items() if one.is_idle), None)
                victim = self._open.pop(idle) if idle is not None else None
            if idle is None or victim is None:
                raise Retry(
                    "models.memory",
                    f"no room for {full_name}: the models that are open are all in use",
                    "try again, or raise the limit",
                )
            _log.info("%s makes room for %s", idle, full_name)
            self._end(idle, victim)

    def _end(self, full_name: str, served: Scheduler) -> None:
        served.close()
        self.budget.give(self._charged.pop(full_name))


class Served:
    """A model of a Server as a Session; it is opened again when it was unloaded."""

    def __init__(self, server: Server, name: str) -> None:
        self._server, self._name = server, name
        session = server.load(name)
        self.ref, self.inputs, self.outputs = session.ref, session.inputs, session.outputs
        self.memory_bytes = session.memory_bytes

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """As ``Session.run``."""
        return self._server.submit(self._name, feeds, outputs).result()

    def close(self) -> None:
        """The server's, which others use too: nothing."""


def _pass_on(found: Answer, answer: Answer) -> None:
    def done(found: Answer) -> None:
        if not answer.set_running_or_notify_cancel():
            return
        if (error := found.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(found.result())

    found.add_done_callback(done)


def _say_failure(name: str, before: str, done: "Future[None]") -> None:
    if (error := done.exception()) is not None:
        _log.warning("%s stays %s: %s", name, before, error)
