"""The scheduler of one served model: requests in, batches through its replicas, answers out.

A replica is a thread that takes a batch when one is ready and runs it.  Whoever submits waits for
a Future; nothing here blocks the caller.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from math import inf
from threading import Condition, Thread
from typing import Protocol

from streamapp.core.clock import SYSTEM, Clock
from streamapp.core.errors import Halt, Reject, Retry, StreamappError
from streamapp.models.serving.joining import Joiner
from streamapp.models.serving.policy import Policy
from streamapp.models.serving.replicas import Scaling
from streamapp.models.serving.waiting import PART_ROWS_MIN, Request, Waiting
from streamapp.models.serving.watch import Unwatched, Watch
from streamapp.models.session import Array, Feeds, Session, checked_feeds, chosen_outputs

_log = logging.getLogger("streamapp")

#: How often an idle replica looks whether it is still wanted.
LOOK_S = 0.5


class Replicator(Protocol):
    """Where further replicas come from."""

    def open(self) -> Session | None:
        """One more session; None when there is no room for it."""
        ...

    def close(self, session: Session) -> None:
        """Take it back."""
        ...


class Shared:
    """Further replicas are calls of the same session, which costs no memory for weights."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def open(self) -> Session | None:
        """The same one."""
        return self._session

    def close(self, session: Session) -> None:
        """Closed with the scheduler."""


class Scheduler:
    """A Session whose callers share calls.

    Args:
        session: the model; closed with this.
        policy: its limits.
        replicator: where further replicas come from; default: calls of the same session.
        watch: is told what happens.
        clock: for the tests.
    """

    def __init__(
        self,
        session: Session,
        policy: Policy | None = None,
        replicator: Replicator | None = None,
        watch: Watch | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.ref, self.inputs, self.outputs = session.ref, session.inputs, session.outputs
        self.policy = policy or Policy()
        self._session = session
        self._replicator = replicator or Shared(session)
        self._watch = watch or Unwatched()
        self._clock = clock
        self._joiner = Joiner.of(session, self.policy.pads)
        self._waiting = Waiting(self.policy)
        self._changed = Condition()
        self._closed = False
        self._running = 0
        self._look_s = 0.0  # when a request looks at the replicas again
        self._surplus = 0  # replicas that are to end
        self._sessions: list[Session] = []
        self._threads: list[Thread] = []
        now_s = clock.monotonic_s()
        self._scaling = Scaling(self.policy, self.policy.replicas_min, now_s, now_s)
        self._start(session)
        for _ in range(self.policy.replicas_min - 1):
            self._open_replica()

    @property
    def replicas(self) -> int:
        """Calls that may run at once."""
        return len(self._sessions)

    @property
    def queued(self) -> int:
        """Rows that wait."""
        return self._waiting.rows

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self._waiting.rows and not self._running

    @property
    def memory_bytes(self) -> int:
        """Of all replicas; a session that several of them call counts once."""
        return sum({id(one): one.memory_bytes for one in self._sessions}.values())

    def submit(
        self, feeds: Feeds, outputs: Sequence[str] | None = None
    ) -> "Future[dict[str, Array]]":
        """Take a request; its answer comes later, from another thread.

        Raises:
            Reject: a feed is not what the model takes, or has more rows than a batch may have.
            Retry: the queue is full.
            Halt: it was closed.
        """
        given = checked_feeds(self.ref, self.inputs, feeds)
        names = None if outputs is None else tuple(chosen_outputs(self.ref, self.outputs, outputs))
        rows = self._joiner.rows(given)
        if rows > self.policy.batch_rows_max:
            raise self._fails(
                Reject(
                    "models.rows",
                    f"{self.ref}: {rows} rows in one request",
                    f"send at most {self.policy.batch_rows_max} at once",
                )
            )
        key = self._joiner.key(given, names)
        with self._changed:
            now_s = self._clock.monotonic_s()
            self._check_room(rows)
            request = Request(given, names, rows, key, now_s)
            self._waiting.put(request)
            if now_s >= self._look_s:
                self._resize(now_s)
            # A replica that waits for more to come wakes by itself: each wake costs a request.
            if len(self._waiting) == 1 or self._waiting.ready_s() <= now_s:
                self._changed.notify()
        return request.answer

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """As ``Session.run``, in one call with others that come at the same time."""
        return self.submit(feeds, outputs).result()

    def tick(self) -> None:
        """Look at queue and replicas; replicas do so by themselves every ``LOOK_S``."""
        with self._changed:
            self._resize(self._clock.monotonic_s())
            self._changed.notify_all()

    def close(self) -> None:
        """Answer what was taken, then free the model; who comes later gets a Halt."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in list(self._threads):
            thread.join()
        self._session.close()
        self._watch.stands(0, 0, 0)

    def _check_room(self, rows: int) -> None:
        if self._closed:
            raise Halt("models.closed", f"{self.ref} was closed", "open it again")
        if self._waiting.rows + rows > self.policy.queue_rows_max:
            raise self._fails(
                Retry(
                    "models.queue",
                    f"{self.ref}: {self._waiting.rows} rows wait already",
                    "try again, or give the model more replicas",
                )
            )

    def _fails(self, error: StreamappError) -> StreamappError:
        self._watch.failed(error.code)
        return error

    def _start(self, session: Session) -> None:
        thread = Thread(target=self._work, args=(session,), daemon=True, name="streamapp-model")
        self._sessions.append(session)
        self._threads.append(thread)
        thread.start()

    def _work(self, session: Session) -> None:
        """A replica's life."""
        while batch := self._take(session):
            started_s = self._clock.monotonic_s()
            rows = sum(request.rows for request in batch)
            living = [one for one in batch if one.answer.set_running_or_notify_cancel()]
            for request in living:
                self._watch.waited(started_s - request.at_s)
            if living:
                self._answer(session, living)
            now_s = self._clock.monotonic_s()
            self._watch.called(rows, now_s - started_s)
            with self._changed:
                self._running -= 1
                self._waiting.ended(batch[0].key, rows, now_s)
                if rows >= 2 * PART_ROWS_MIN:  # two replicas would have divided them
                    self._resize(now_s, now_s - started_s)

    def _take(self, session: Session) -> list[Request]:
        """The next batch; none when this replica is to end."""
        with self._changed:
            while True:
                now_s = self._clock.monotonic_s()
                for late in self._waiting.late(now_s):
                    late.answer.set_exception(self._late())
                idle = len(self._sessions) - self._running
                # Who closes waits for nobody to come.
                if batch := self._waiting.take(inf if self._closed else now_s, idle):
                    self._running += 1
                    if idle > 1 and self._waiting.ready_s() <= now_s:
                        self._changed.notify()  # the rest is another's
                    if self._running == len(self._sessions):
                        self._scaling.busy(now_s)
                    return batch
                self._resize(now_s)
                if self._ends(session):
                    return []
                self._changed.wait(min(max(self._waiting.ready_s() - now_s, 1e-4), LOOK_S))

    def _answer(self, session: Session, requests: Sequence[Request]) -> None:
        """Run a batch; where one request is bad, or they cannot be told apart, one by one."""
        feeds = [one.feeds for one in requests]
        try:
            found = session.run(self._joiner.joined(feeds), requests[0].outputs)
            parts = self._joiner.parted(found, feeds, [one.rows for one in requests])
        except Exception as error:  # noqa: BLE001  # whatever it is belongs to who asked
            if len(requests) == 1:
                self._watch.failed(getattr(error, "code", "models.error"))
                requests[0].answer.set_exception(error)
                return
            parts = None
        if parts is None:
            for request in requests:
                self._answer(session, [request])
            return
        for request, part in zip(requests, parts, strict=True):
            request.answer.set_result(part)

    def _late(self) -> StreamappError:
        return self._fails(
            Retry(
                "models.queue",
                f"{self.ref}: waited for {self.policy.queue_s_max} s",
                "try again, or give the model more replicas",
            )
        )

    def _ends(self, session: Session) -> bool:
        """Whether a replica that has nothing to do is to end."""
        if self._closed:
            return not len(self._waiting)
        is_spare = session is not self._session or self._sessions.count(session) > 1
        if not (self._surplus and is_spare):
            return False
        self._surplus -= 1
        self._sessions.remove(session)
        self._replicator.close(session)
        return True

    def _resize(self, now_s: float, called_s: float = 0.0) -> None:
        """More or fewer replicas, one at a time; ``called_s``: a call that more would shorten."""
        waited_s = max(now_s - self._waiting.oldest_s(), called_s)
        if self._closed:
            return
        self._look_s = now_s + self.policy.grow_ms / 4000
        if self._scaling.wants_more(now_s, waited_s):
            self._scaling.grew(now_s)
            Thread(target=self._open_replica, daemon=True, name="streamapp-model-open").start()
        elif self._scaling.wants_fewer(now_s):
            self._scaling.shrank(now_s)
            self._surplus += 1
            self._changed.notify_all()
        self._watch.stands(self._waiting.rows, len(self._sessions), self.memory_bytes)

    def _open_replica(self) -> None:
        session = None
        try:
            session = self._replicator.open()
        except StreamappError as error:
            _log.warning("%s: no further replica: %s", self.ref, error)
        with self._changed:
            if session is not None and not self._closed:
                self._start(session)
                return
            self._scaling.count -= 1
        if session is not None:
            self._replicator.close(session)
