"""Dynamic batching: who shares a call, who waits, and what a bad request costs the others."""

import threading
from concurrent.futures import wait

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.errors import Halt, Reject, Retry
from streamapp.core.metrics import Metrics
from streamapp.core.model import ModelRef
from streamapp.models.serving.joining import Pads
from streamapp.models.serving.policy import Policy
from streamapp.models.serving.scheduler import Scheduler
from streamapp.models.serving.waiting import Request, Waiting
from streamapp.models.serving.watch import Measured
from streamapp.models.session import Tensor, checked_feeds

WAIT_S = 20


class Doubling:
    """y = 2 x by rows; a call waits until ``gate`` lets it, and NaN is an input it cannot take."""

    memory_bytes = 1000
    ref = ModelRef("tensor", "doubling", 1, "0" * 64)

    def __init__(self, shape=(-1, 2), out=None):
        self.inputs = (Tensor("x", "float32", shape),)
        self.outputs = (Tensor("y", "float32", out or shape),)
        self.gate = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.calls = []
        self.closed = False

    def run(self, feeds, outputs=None):
        x = checked_feeds(self.ref, self.inputs, feeds)["x"]
        self.calls.append(x.shape)
        self.begun.release()
        assert self.gate.acquire(timeout=WAIT_S)
        if np.isnan(x).any():
            raise Reject("models.run", "NaN", "give numbers")
        return {"y": 2 * x}

    def close(self):
        self.closed = True

    def open(self):
        self.gate.release(10_000)
        return self


class Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic_s(self):
        return self.now_s

    def now_us(self):
        return 0


def rows(*values):
    return {"x": np.array([[value, value] for value in values], np.float32)}


@pytest.fixture
def served():
    """Scheduler of a model whose calls wait for the test; what is left is let through at the end."""
    held = []

    def make(session=None, clock=None, **policy):
        session = session or Doubling()
        limits = {"replicas_max": 1, **policy}
        options = {"clock": clock} if clock else {}
        held.append((session, Scheduler(session, Policy(**limits), **options)))
        return session, held[-1][1]

    yield make
    for session, scheduler in held:
        session.open()
        scheduler.close()


def results(futures):
    _, late = wait(futures, WAIT_S)
    assert not late
    return [future.result()["y"][:, 0].tolist() for future in futures]


def test_who_comes_alone_goes_alone_and_at_once(served):
    session, scheduler = served(Doubling().open(), Clock())  # a clock that never ends a wait
    assert [scheduler.run(rows(i))["y"].tolist() for i in (1, 2, 3)] == [
        [[2, 2]], [[4, 4]], [[6, 6]]
    ]  # fmt: skip
    assert session.calls == [(1, 2)] * 3


def test_who_comes_while_a_call_runs_shares_the_next(served):
    session, scheduler = served()
    futures = [scheduler.submit(rows(0))]
    assert session.begun.acquire(timeout=WAIT_S)
    futures += [scheduler.submit(rows(i, i)) for i in range(1, 6)]
    assert scheduler.queued == 10
    session.open()
    assert results(futures) == [[0], *([2 * i, 2 * i] for i in range(1, 6))]
    assert session.calls == [(1, 2), (10, 2)]


def test_a_batch_has_so_many_rows_and_no_more(served):
    session, scheduler = served(batch_rows_max=4)
    futures = [scheduler.submit(rows(0))]
    assert session.begun.acquire(timeout=WAIT_S)
    futures += [scheduler.submit(rows(*range(n))) for n in (3, 3, 1, 4)]
    session.open()
    assert [len(found) for found in results(futures)] == [1, 3, 3, 1, 4]
    assert sorted(session.calls[1:]) == [(3, 2), (4, 2), (4, 2)]
    with pytest.raises(Reject, match="5 rows") as caught:
        scheduler.submit(rows(*range(5)))
    assert "at most 4" in caught.value.fix


def test_a_bad_request_fails_alone(served):
    session, scheduler = served()
    futures = [scheduler.submit(rows(0))]
    assert session.begun.acquire(timeout=WAIT_S)
    futures += [scheduler.submit(rows(value)) for value in (1, np.nan, 3)]
    session.open()
    wait(futures, WAIT_S)
    with pytest.raises(Reject, match="NaN"):
        futures.pop(2).result()
    assert results(futures) == [[0], [2], [6]]
    assert session.calls == [(1, 2), (3, 2), (1, 2), (1, 2), (1, 2)]


@pytest.mark.parametrize(
    ("feeds", "says"),
    [
        ({}, "no input 'x'"),
        ({"z": np.zeros((1, 2), np.float32)}, "'z'"),
        ({"x": np.zeros((1, 3), np.float32)}, r"float32\[1,3\]"),
        ({"x": np.zeros((1, 2))}, r"float64\[1,2\]"),
        ({"x": np.zeros((0, 2), np.float32)}, "none"),
    ],
)
def test_what_the_model_does_not_take_is_said_to_who_asks(served, feeds, says):
    session, scheduler = served()
    with pytest.raises(Reject, match=says):
        scheduler.submit(feeds)
    assert session.calls == []


def test_a_full_queue_says_so_and_takes_again_when_it_is_not(served):
    session, scheduler = served(queue_rows_max=2)
    futures = [scheduler.submit(rows(0))]
    assert session.begun.acquire(timeout=WAIT_S)
    futures += [scheduler.submit(rows(i)) for i in (1, 2)]
    with pytest.raises(Retry, match="2 rows wait"):
        scheduler.submit(rows(3))
    session.open()
    results(futures)
    assert scheduler.run(rows(4))["y"][0, 0] == 8


def test_what_waited_too_long_is_not_run(served):
    clock = Clock()
    session, scheduler = served(clock=clock, queue_s_max=5)
    first = scheduler.submit(rows(0))
    assert session.begun.acquire(timeout=WAIT_S)
    late = scheduler.submit(rows(1))
    clock.now_s += 6
    session.open()
    with pytest.raises(Retry, match="waited"):
        late.result(WAIT_S)
    assert results([first]) == [[0]]
    assert session.calls == [(1, 2)]


def test_who_gave_up_is_not_run(served):
    session, scheduler = served()
    futures = [scheduler.submit(rows(0))]
    assert session.begun.acquire(timeout=WAIT_S)
    gone, stays = scheduler.submit(rows(1)), scheduler.submit(rows(2))
    assert gone.cancel()
    session.open()
    assert results([*futures, stays]) == [[0], [4]]
    assert session.calls == [(1, 2), (1, 2)]


def test_closing_answers_what_was_taken(served):
    session, scheduler = served()
    futures = [scheduler.submit(rows(i)) for i in range(3)]
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    session.open()
    closing.join(WAIT_S)
    assert session.closed
    assert results(futures) == [[0], [2], [4]]
    with pytest.raises(Halt, match="closed"):
        scheduler.submit(rows(1))


def test_closing_waits_for_no_more_to_come(served):
    _, scheduler = served(Doubling().open(), Clock())  # a clock that never ends a wait
    assert scheduler.run(rows(0, 0))["y"].tolist() == [[0, 0]] * 2
    waits = scheduler.submit(rows(1))  # for as many rows as the call before it had
    scheduler.close()
    assert results([waits]) == [[2]]


@pytest.mark.parametrize("shapes", [{"shape": (1, 2)}, {"shape": (-1, 2), "out": (2,)}])
def test_a_model_whose_rows_are_not_the_first_axis_is_called_one_by_one(served, shapes):
    session, scheduler = served(Doubling(**shapes))
    futures = [scheduler.submit(rows(i)) for i in range(3)]
    session.open()
    assert results(futures) == [[0], [2], [4]]
    assert session.calls == [(1, 2)] * 3


def test_lengths_share_a_call_when_the_inputs_can_be_filled_up(served):
    session, scheduler = served(Doubling(shape=(-1, -1)), pads=Pads({"x": -1.0}, step=4))
    first = scheduler.submit(rows(0))
    assert session.begun.acquire(timeout=WAIT_S)
    feeds = [np.full((1, n), n, np.float32) for n in (1, 3, 4, 5, 8, 9)]
    futures = [scheduler.submit({"x": x}) for x in feeds]
    session.open()
    results([first])
    for x, future in zip(feeds, futures, strict=True):
        np.testing.assert_array_equal(future.result(WAIT_S)["y"], 2 * x)
    assert session.calls[1:] == [(3, 4), (2, 8), (1, 9)]


def test_prometheus_is_told(served):
    metrics, session = Metrics(), Doubling().open()
    scheduler = Scheduler(session, Policy(replicas_max=1), watch=Measured(metrics, "m@1"))
    scheduler.run(rows(1, 2))
    with pytest.raises(Reject):
        scheduler.run(rows(np.nan))
    scheduler.tick()

    def value(name, **labels):
        return metrics.registry.get_sample_value(f"streamapp_{name}", {"model": "m@1", **labels})

    assert value("model_errors_total", code="models.run") == 1
    assert value("model_queue_duration_seconds_count") == 2
    assert (value("model_replicas"), value("model_memory_bytes")) == (1, 1000)
    scheduler.close()
    assert value("model_rows_total") == 3
    assert value("model_call_duration_seconds_count") == 2
    assert (value("model_replicas"), value("model_memory_bytes")) == (0, 0)


def request(at_s, key="k", rows=1):
    return Request({}, None, rows, key, at_s)


def test_after_a_batch_of_many_the_next_waits_for_as_many_or_its_deadline():
    waiting = Waiting(Policy(wait_ms_max=2, batch_rows_max=8))
    waiting.ended("k", 3, now_s=1.0)
    for number in (1, 2):
        waiting.put(request(1.0005))
        assert waiting.take(1.001) == []
        assert waiting.ready_s() == pytest.approx(1.0025), number
    waiting.put(request(1.0006))
    assert len(waiting.take(1.001)) == 3
    waiting.ended("k", 100, now_s=2.0)  # never for more than a batch holds
    for _ in range(8):
        waiting.put(request(2.0005))
    assert len(waiting.take(2.0005)) == 8
    waiting.ended("k", 3, now_s=3.0)
    waiting.put(request(3.0015))
    assert len(waiting.take(3.0035)) == 1  # the deadline
    waiting.ended("k", 3, now_s=4.0)
    waiting.put(request(4.5))
    assert len(waiting.take(4.5)) == 1  # nobody was answered just now
    waiting.put(request(5.0, "other"))
    waiting.ended("k", 3, now_s=5.0)
    assert len(waiting.take(5.0)) == 1  # those answered call something else


def test_rows_are_divided_among_idle_replicas_as_long_as_parts_are_large():
    waiting = Waiting(Policy(batch_rows_max=256))

    def taken(count, idle, answered=0):
        waiting.ended("k", answered, now_s=1.0)
        for _ in range(count):
            waiting.put(request(1.0))
        batches = []
        while idle and (batch := waiting.take(1.0, idle)):
            batches.append(len(batch))
            idle -= 1
        assert len(waiting) == 0
        return batches

    assert taken(64, idle=1) == [64]
    assert taken(64, idle=2, answered=64) == [32, 32]  # the rest does not wait to be 64 again
    assert taken(33, idle=2) == [32, 1]
    assert taken(32, idle=2) == [32]
    assert taken(100, idle=3, answered=100) == [34, 33, 33]


@given(
    arrivals=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.floats(0, 0.01)), max_size=40
    )
)
def test_everything_that_waits_is_taken_once_in_order(arrivals):
    waiting = Waiting(Policy(batch_rows_max=6))
    put, now_s = [], 0.0
    for key, count, later_s in arrivals:
        now_s += later_s
        put.append(request(now_s, key, count))
        waiting.put(put[-1])
    assert waiting.rows == sum(one.rows for one in put)
    taken = []
    while batch := waiting.take(now_s + 1):
        assert len({one.key for one in batch}) == 1
        assert sum(one.rows for one in batch) <= 6
        taken += batch
    assert sorted(taken, key=put.index) == put
    for key in "abc":
        assert [o for o in taken if o.key == key] == [o for o in put if o.key == key]
    assert waiting.rows == len(waiting) == 0
