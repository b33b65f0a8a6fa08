"""Replicas under a load that steps up and down, on a clock of the test's own."""

import threading

import numpy as np
import pytest

from streamapp.core.errors import Retry
from streamapp.core.model import ModelRef
from streamapp.models.serving.budget import Budget
from streamapp.models.serving.policy import Policy
from streamapp.models.serving.scheduler import Scheduler
from streamapp.models.session import Tensor

WAIT_S = 20
GROW_S, IDLE_S = 1 / 64, 30.0  # sums of these are exact
ROW = {"x": np.zeros((1, 1), np.float32)}


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def monotonic_s(self):
        return self.now_s


class Model:
    """Counts calls that run at the same time; none ends before the test says so."""

    inputs = outputs = (Tensor("x", "float32", (-1, 1)),)
    ref = ModelRef("tensor", "slow", 1, "0" * 64)
    memory_bytes = 100

    def __init__(self, load):
        self.load = load
        self.closed = False

    def run(self, feeds, outputs=None):
        assert not self.closed
        with self.load.changed:
            self.load.running.append(self)
            self.load.changed.notify_all()
        assert self.load.let.acquire(timeout=WAIT_S)
        with self.load.changed:
            self.load.running.remove(self)
            self.load.changed.notify_all()
        return dict(feeds)

    def close(self):
        self.closed = True


class Load:
    """Callers, the clock, and what runs now."""

    def __init__(self):
        self.changed = threading.Condition()
        self.running = []
        self.let = threading.Semaphore(0)
        self.clock = Clock()
        self.opened = []
        self.closed = []

    def scheduler(self, replicator=None, **policy):
        limits = {"batch_rows_max": 1, "grow_ms": GROW_S * 1000, "idle_s": IDLE_S, **policy}
        return Scheduler(Model(self), Policy(**limits), replicator, clock=self.clock)

    def until(self, condition):
        with self.changed:
            assert self.changed.wait_for(condition, WAIT_S), (len(self.running), self.opened)

    def step(self, scheduler, seconds):
        self.clock.now_s += seconds
        scheduler.tick()

    def end(self, scheduler, futures):
        self.let.release(len(futures))
        for future in futures:
            future.result(WAIT_S)


class Copies:
    """Each replica a session of its own, as far as memory goes."""

    def __init__(self, load, budget):
        self.load, self.budget = load, budget
        self.refused = threading.Semaphore(0)

    def open(self):
        if not self.budget.take(Model.memory_bytes):
            self.refused.release()
            return None
        self.load.opened.append(Model(self.load))
        return self.load.opened[-1]

    def close(self, session):
        session.close()
        self.load.closed.append(session)
        self.budget.give(session.memory_bytes)


@pytest.fixture
def load():
    return Load()


def settle(load, scheduler, count):
    """Until so many replicas are there: shrinking is done by the replica that ends."""
    tick_until(scheduler, lambda: scheduler.replicas == count)


def tick_until(scheduler, condition):
    pause = threading.Event()
    for _ in range(WAIT_S * 100):
        if condition():
            return
        scheduler.tick()
        pause.wait(0.01)
    raise AssertionError(scheduler.replicas)


def test_a_step_of_load_opens_replicas_and_its_end_closes_them(load):
    scheduler = load.scheduler(replicas_min=1, replicas_max=3)
    futures = [scheduler.submit(ROW) for _ in range(8)]
    load.until(lambda: len(load.running) == 1)
    for count in (2, 3):
        load.step(scheduler, GROW_S)
        load.until(lambda count=count: len(load.running) == count)
    for _ in range(5):
        load.step(scheduler, GROW_S)  # no more than there may be
    assert scheduler.replicas == len(load.running) == 3
    load.end(scheduler, futures)
    load.step(scheduler, IDLE_S - GROW_S)
    assert scheduler.replicas == 3
    load.step(scheduler, GROW_S)
    settle(load, scheduler, 2)
    load.step(scheduler, IDLE_S)
    settle(load, scheduler, 1)
    load.step(scheduler, 10 * IDLE_S)
    assert scheduler.replicas == 1
    load.end(scheduler, [scheduler.submit(ROW)])  # the last one serves
    scheduler.close()


def test_short_waits_open_nothing(load):
    scheduler = load.scheduler(replicas_max=3)
    for _ in range(20):
        futures = [scheduler.submit(ROW), scheduler.submit(ROW)]
        load.until(lambda: len(load.running) == 1)
        load.step(scheduler, GROW_S / 2)
        load.end(scheduler, futures)
    assert scheduler.replicas == 1
    scheduler.close()


def test_long_calls_of_many_rows_open_a_replica_that_takes_half(load):
    scheduler = load.scheduler(batch_rows_max=64, replicas_max=2)
    many = {"x": np.zeros((32, 1), np.float32)}
    first = scheduler.submit(ROW)  # while it runs the others gather
    load.until(lambda: len(load.running) == 1)
    futures = [scheduler.submit(many) for _ in range(2)]
    load.end(scheduler, [first])
    load.until(lambda: len(load.running) == 1)
    load.clock.now_s += GROW_S  # nobody waits, but the call is long
    load.let.release()
    for future in futures:
        future.result(WAIT_S)
    settle(load, scheduler, 2)
    futures = [scheduler.submit(many) for _ in range(2)]
    load.until(lambda: len(load.running) == 2)
    load.end(scheduler, futures)
    scheduler.close()


def test_replicas_keep_within_memory(load):
    budget = Budget(2 * Model.memory_bytes)
    assert budget.take(Model.memory_bytes)  # the first one's
    copies = Copies(load, budget)
    scheduler = load.scheduler(copies, replicas_max=4)
    futures = [scheduler.submit(ROW) for _ in range(6)]
    load.until(lambda: len(load.running) == 1)
    load.step(scheduler, GROW_S)
    load.until(lambda: len(load.running) == 2)
    assert scheduler.memory_bytes == budget.taken == budget.bytes_max
    for _ in range(3):
        load.step(scheduler, GROW_S)
        tick_until(scheduler, lambda: copies.refused.acquire(blocking=False))
    assert len(load.running) == scheduler.replicas == 2
    load.end(scheduler, futures)
    load.step(scheduler, IDLE_S)
    settle(load, scheduler, 1)
    assert load.closed == load.opened
    assert budget.taken == Model.memory_bytes
    scheduler.close()


def test_a_replica_that_cannot_be_opened_leaves_the_others_at_work(load):
    asked = threading.Semaphore(0)

    class Away:
        def open(self):
            asked.release()
            raise Retry("x", "the server is away")

    scheduler = load.scheduler(Away(), replicas_max=2)
    futures = [scheduler.submit(ROW) for _ in range(3)]
    load.until(lambda: len(load.running) == 1)
    for _ in range(2):  # it is tried again
        load.step(scheduler, GROW_S)
        tick_until(scheduler, lambda: asked.acquire(blocking=False))
    load.end(scheduler, futures)
    assert scheduler.replicas == 1
    scheduler.close()


def test_the_fewest_are_there_from_the_start(load):
    scheduler = load.scheduler(replicas_min=2, replicas_max=2)
    futures = [scheduler.submit(ROW) for _ in range(2)]
    load.until(lambda: len(load.running) == 2)
    load.end(scheduler, futures)
    scheduler.close()
