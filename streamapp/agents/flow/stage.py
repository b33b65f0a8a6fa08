"""One stage on a topic: its calls, opened, and tried again as its file says."""

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from threading import Thread
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from streamapp.agents.flow.record import Aside
from streamapp.agents.flow.units import Times
from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Halt, Refuse, Retry, StreamappError
from streamapp.core.project import read_secret
from streamapp.plugin import Cancelled
from streamapp.plugin.calling import CallWork
from streamapp.plugin.registered import config_of
from streamapp.workflow.graph.check import place
from streamapp.workflow.graph.expressions import fill, holds
from streamapp.workflow.run.binding import Binding, Bound, failure
from streamapp.workflow.run.retry import TIMEOUT, delay_s, is_tried_again
from streamapp.workflow.run.secrets import Redactor

if TYPE_CHECKING:
    from streamapp.plugin import KeyedOperation, LiveOperation, Operation

#: How long a call that overstayed has to end by itself.
STOP_S_MAX = 1.0
#: Calls that did not, and whose threads work on for nobody; with more the process starts anew.
LEFT_BEHIND_MAX = 8
#: How often rows are halved to find the ones that a stage fails on, of one run.
HALVINGS_MAX = 64
_LOOK_EVERY_S = 0.1
#: What may pass by trying again, but is no matter of somebody outside that does not answer.
_OURS = frozenset({TIMEOUT, "interop.crashed", "interop.timeout"})
logger = logging.getLogger("streamapp")


@dataclass
class _Call:
    """One call, opened; ``foreach`` makes several."""

    bound: Bound
    operation: "Operation"
    work: CallWork

    @property
    def window(self) -> "LiveOperation":
        """The operation of a call of scope ``window``; topologies have no others of it."""
        return cast("LiveOperation", self.operation)


class Stage:
    """A stage, in the process of its group.

    Args:
        binding: of the whole workflow.
        name: of the stage.
        make_work: what one call is given; asked again when a call is opened anew.
        rows: how many there are of each that it takes, where it is given all of them at once.
    """

    def __init__(
        self,
        binding: Binding,
        name: str,
        make_work: Callable[[], CallWork],
        rows: Mapping[str, int] | None = None,
    ) -> None:
        graph = binding.graph
        self.name, self.asides = name, list[Aside]()
        self._binding, self._make_work = binding, make_work
        self._step = graph.step(name)
        self.takes = graph.takes(self._step)
        self._schema = binding.schemas[name]
        self._rows, self._is_whole = rows or {}, rows is not None
        self._bounds = [call for call in binding.calls[name] if self._holds(call)]
        self._is_window = not self._is_whole and binding.calls[name][0].scope == "window"
        self._redactor = Redactor()
        self._calls: list[_Call] = []
        self._beginning = list[bytes]()
        self._left_behind = self._halvings = 0

    def open(self) -> None:
        """Make and open its operations; once.

        Raises:
            Refuse: as the operations do.
            Retry: something outside does not answer.
        """
        while len(self._calls) < len(self._bounds):
            with self._redacted():
                self._calls.append(self._opened(self._bounds[len(self._calls)]))
        self._beginning = self.state()

    def close(self) -> None:
        """Free what the operations hold."""
        for call in self._calls:
            call.operation.close()
        self._calls.clear()

    def state(self) -> list[bytes]:
        """What its windows remember; empty where it has none."""
        return [call.window.state() for call in self._calls] if self._is_window else []

    def restore(self, states: list[bytes]) -> None:
        """Go on as the one whose state this is; empty: from the beginning."""
        self.asides.clear()
        self._put_back(states or self._beginning)

    def run(
        self,
        given: pa.Table,
        is_end: bool,
        still_ours: Callable[[], bool],
        times: Times | None = None,
    ) -> pa.Table:
        """What it makes of the next rows; those that it failed on are in ``asides``.

        Args:
            given: rows of what it takes.
            is_end: no more will come of this run, so open windows are closed.
            still_ours: whether to go on waiting for another try.
            times: of the rows, where they are those of a window's keys.

        Raises:
            Refuse: it failed, and its failure ends the run.
            Retry: something outside does not answer, and the file does not say for how long to try;
                put the state back before trying again.
            Cancelled: no longer ours.
            Halt: too many calls hang.
        """
        self._check_hanging()
        self._halvings = 0
        (taken,) = self.takes
        parts = [self._schema.empty_table()]
        if (given.num_rows or times is not None) and self._calls:
            parts.append(self._tried({taken: given}, self._taking(given, times), still_ours))
        if is_end and self._is_window and self._calls:
            parts.append(self._tried({taken: given.slice(0, 0)}, _flushed, still_ours))
        return pa.concat_tables(parts)

    def run_whole(self, given: Mapping[str, pa.Table], still_ours: Callable[[], bool]) -> pa.Table:
        """What it makes of all rows of a run; where it failed on them they are in ``asides``.

        Args:
            given: all rows, by what it takes.
            still_ours: whether to go on waiting for another try.

        Raises:
            Refuse, Retry, Cancelled, Halt: as ``run``.
        """
        self._check_hanging()
        nothing = self._schema.empty_table()
        if not self._calls:
            return nothing
        made = self._tried(given, lambda call: call.operation.run(given), still_ours)
        return pa.concat_tables([nothing, made])

    def stop(self) -> None:
        """Ask the calls under way to end; they raise Cancelled where they look up."""
        for call in self._calls:
            call.work.stop.set()

    def _check_hanging(self) -> None:
        if self._left_behind > LEFT_BEHIND_MAX:
            why = f"{self._left_behind} calls of stage {self.name!r} still hang"
            raise Halt("flow.hung", why, "it goes on when its process has started anew")

    def _holds(self, call: Bound) -> bool:
        """Whether a call is made, by the stage's ``when``."""
        values = {"params": self._binding.params, "rows": self._rows, **call.variables}
        return self._step.when is None or holds(self._step.when, values)

    def _opened(self, bound: Bound) -> _Call:
        folder, work = self._binding.graph.folder, self._make_work()
        secret = self._redactor.reading(lambda name: read_secret(name, folder))
        config = fill(bound.config, {}, secret)
        operation = bound.kind(config_of(bound.kind.Config, config, bound.operation))
        try:
            operation.schema({each: self._binding.schemas[each] for each in self.takes}, work)
            operation.open(work)
        except BaseException:
            operation.close()
            raise
        return _Call(bound, operation, work)

    def _taking(self, given: pa.Table, times: Times | None = None) -> Callable[[_Call], pa.Table]:
        if times is not None:
            return lambda call: cast("KeyedOperation", call.operation).feed_at(given, *times)
        if self._is_window:
            return lambda call: call.window.feed(given)
        return lambda call: call.operation.run({self.takes[0]: given})

    def _tried(
        self,
        given: Mapping[str, pa.Table],
        do: Callable[[_Call], pa.Table],
        still_ours: Callable[[], bool],
    ) -> pa.Table:
        """The rows of all calls, tried as often as the file says."""
        before, policy = self.state(), self._step.retry
        for attempt in count(1):
            try:
                with self._redacted():
                    return self._made(do)
            except StreamappError as error:
                self._put_back(before)
                if is_tried_again(policy, error, attempt):
                    assert policy is not None  # noqa: S101  # without one it is not
                    self._wait(delay_s(policy, attempt), error, still_ours)
                    continue
                endless = policy is None and self._step.on_failure == "fail"
                if endless and isinstance(error, Retry) and error.code not in _OURS:
                    raise
                if attempt == 1 and self._is_halved(given, error):
                    return self._halves(given[self.takes[0]], still_ours)
                return self._failed(given, error)
        raise AssertionError  # count has no end

    def _is_halved(self, given: Mapping[str, pa.Table], error: StreamappError) -> bool:
        """Whether to look for the rows that it fails on, where the others may go on."""
        its_rows = not isinstance(error, Retry) or error.code == "interop.crashed"
        forgiven = self._step.on_failure != "fail"
        apart = not self._is_window and not self._is_whole and given[self.takes[0]].num_rows > 1
        return its_rows and forgiven and apart and self._halvings < HALVINGS_MAX

    def _halves(self, given: pa.Table, still_ours: Callable[[], bool]) -> pa.Table:
        self._halvings += 1
        middle = given.num_rows // 2
        halves = [given.slice(0, middle), given.slice(middle)]
        return pa.concat_tables(
            [self._tried({self.takes[0]: half}, self._taking(half), still_ours) for half in halves]
        )

    def _put_back(self, states: list[bytes]) -> None:
        """Put the windows back to where they were."""
        for call, state in zip(self._calls, states, strict=False):
            call.window.restore(state)

    def _made(self, do: Callable[[_Call], pa.Table]) -> pa.Table:
        """The rows of one try."""
        calls = list(self._calls)
        for call in calls:
            call.work.aside.clear()
        found = self._in_time(lambda: [do(call) for call in calls])
        parts = [self._checked(made, call) for made, call in zip(found, calls, strict=True)]
        self.asides += [
            Aside(self.name, self._redactor.text(" ".join(reason.split())), rows)
            for call in calls
            for rows, reason in call.work.aside
        ]
        return pa.concat_tables(parts)

    def _in_time(self, work: Callable[[], list[pa.Table]]) -> list[pa.Table]:
        """What ``work`` returns, unless it takes longer than one try may.

        A thread cannot be stopped.  One whose operations do not look up is left behind, and they
        are opened anew.
        """
        timeout_s = self._step.timeout_s
        if timeout_s is None:
            return work()
        done: Future[list[pa.Table]] = Future()
        Thread(target=_settle, args=(done, work), daemon=True, name=self.name).start()
        try:
            return done.result(timeout_s)
        except TimeoutError:
            if done.done():
                raise
        for call in self._calls:
            call.work.stop.set()
        try:
            done.exception(STOP_S_MAX)
        except TimeoutError:
            self._left_behind += 1
        else:
            self.close()
        self._calls = [self._opened(bound) for bound in self._bounds]
        why = f"it was not done within {timeout_s:g} s"
        raise Retry(TIMEOUT, why, "raise timeout_s, or feed fewer rows at a time")

    def _checked(self, made: Any, call: _Call) -> pa.Table:
        """A call's rows, with the variables of ``foreach`` as columns."""
        for name, value in call.bound.variables.items():
            field = self._schema.field(name)
            made = made.append_column(field, pa.repeat(pa.scalar(value, field.type), len(made)))
        if made.schema.equals(self._schema):
            return made
        raise Halt(
            "operation.schema",
            f"{call.bound.operation} returned other columns than it said: {made.schema}",
            "this is a mistake in the operation; report it to its author",
        )

    def _wait(self, wait_s: float, error: StreamappError, still_ours: Callable[[], bool]) -> None:
        logger.warning("stage %s waits %.1f s: %s", self.name, wait_s, error)
        end_s = monotonic_s() + wait_s
        while (left_s := end_s - monotonic_s()) > 0:
            if not still_ours():
                raise Cancelled
            time.sleep(min(left_s, _LOOK_EVERY_S))

    def _failed(self, given: Mapping[str, pa.Table], error: StreamappError) -> pa.Table:
        """No rows, where the file says that others go on; else the error that ends the run."""
        if self._step.on_failure == "fail":
            graph = self._binding.graph
            said = failure(error, f"stage {self.name!r}")
            raise place(graph, said, "stages", graph.stages.index(self._step))
        count = sum(rows.num_rows for rows in given.values())
        logger.warning("stage %s failed on %d rows: %s", self.name, count, error)
        for name, rows in given.items():
            whose = f"rows of {name}: " if len(given) > 1 else ""
            if rows.num_rows:
                self.asides.append(Aside(self.name, f"{whose}{error.code}: {error.message}", rows))
        return self._schema.empty_table()

    @contextmanager
    def _redacted(self) -> Iterator[None]:
        """Errors without secrets; what is none of ours is the operation's mistake."""
        try:
            yield
        except StreamappError as error:
            raise self._redactor.error(error) from None
        except Cancelled:
            raise
        except Exception as error:  # noqa: BLE001  # an operation may raise anything
            trace = self._redactor.text(traceback.format_exc())
            logger.warning("stage %s: %s", self.name, trace)
            what = self._redactor.text(f"{type(error).__name__}: {error}".splitlines()[0])
            fix = "this is a mistake in the operation; its log has the traceback"
            raise Refuse("operation.error", what, fix) from None


def _flushed(call: _Call) -> pa.Table:
    return call.window.flush()


def _settle(done: "Future[list[pa.Table]]", work: Callable[[], list[pa.Table]]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:  # noqa: BLE001  # raised where it is waited for
        done.set_exception(error)
