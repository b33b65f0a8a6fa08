"""Shadows beside those that answer: what is late, hangs or is away delays and stops nothing."""

import subprocess
import sys
import threading

import pytest
from routing_bench import Bench, by, column

from streamapp.core.errors import Halt, Reject, Retry
from streamapp.models.beside import FAILURES_MAX, Beside
from streamapp.plugin.testing import HashEmbedder, HashModels
from streamapp.stages.embed import Embed
from streamapp.stages.shadow import Shadow
from streamapp.testing.clock import FakeClock
from streamapp.testing.pipeline import Pipeline

SOON_S = 60.0


class Gate:
    """A call that goes on until it is let go."""

    def __init__(self):
        self.calls = 0
        self.released = threading.Event()

    def __call__(self):
        self.calls += 1
        assert self.released.wait(SOON_S)
        return self.calls


@pytest.fixture
def gate():
    one = Gate()
    yield one
    one.released.set()


def test_a_call_gives_what_it_found():
    beside = Beside("it", "wait")
    assert beside.ask(lambda: "found", 1)
    assert beside.answer(SOON_S) == "found"


def test_a_call_that_is_late_is_not_waited_for_and_nothing_else_is_asked(gate, caplog):
    beside = Beside("route r: its shadow", "raise shadow_wait_ms_max")
    assert beside.ask(gate, 1)
    for _ in range(3):
        assert beside.answer(0) is None
        assert not beside.ask(gate, 1)
    assert gate.calls == 1
    assert [record.getMessage() for record in caplog.records] == [
        "route r: its shadow is late and not waited for: raise shadow_wait_ms_max"
    ]
    call = beside._call
    gate.released.set()
    assert call.done.wait(SOON_S)
    assert beside.ask(lambda: 7, 1)
    assert beside.answer(SOON_S) == 7


class Panic(BaseException):
    """What a library in Rust raises where it meant never to be."""


@pytest.mark.parametrize(
    "error",
    [RuntimeError("x"), Retry("x", "x"), Reject("x", "x"), Halt("x", "x"), SystemExit(), Panic()],
)
def test_one_that_fails_is_left_alone_for_a_while(error, caplog):
    clock = FakeClock()
    beside = Beside("it", "wait", clock)

    def fails():
        raise error

    for _ in range(FAILURES_MAX):
        assert beside.ask(fails, 1)
        assert beside.answer(SOON_S) is None
    assert not beside.ask(fails, 1)
    assert len(caplog.records) == FAILURES_MAX
    clock.advance(31)
    assert beside.ask(lambda: 1, 1)
    assert beside.answer(SOON_S) == 1


def test_a_machine_that_has_no_thread_left_is_a_failure_of_that_call_alone(monkeypatch, caplog):
    def start(_thread):
        raise RuntimeError("can't start new thread")

    beside = Beside("it", "wait")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert beside.ask(lambda: 1, 1)
        assert beside.answer(SOON_S) is None
    assert "can't start new thread" in caplog.text
    assert beside.ask(lambda: 1, 1)
    assert beside.answer(SOON_S) == 1


def test_a_call_that_hangs_keeps_no_process_from_ending():
    program = (
        "import threading\n"
        "from streamapp.models import beside\n"
        "beside.END_S_MAX = 0.1\n"
        "beside.Beside('it', 'wait').ask(threading.Event().wait, 1)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=SOON_S)


class Slow(Bench):
    """A route whose shadow hangs until it is let go, and is waited for no time at all."""

    def __init__(self, gate, **declared):
        declared = {"shadow_wait_ms_max": 0, **declared}
        super().__init__(models=["a"], facts={}, shadow="b", **declared)
        ask = self.models.ask

        def asked(model, rows):
            if model.ref.name == "b":
                gate()
            return ask(model, rows)

        self.models.ask = asked


def test_a_shadow_that_hangs_delays_no_batch(gate):
    bench = Slow(gate)
    counted = []
    bench.router._on_shadow = lambda *told: counted.append(told)
    for _ in range(3):
        found = bench.run(2)
        assert by(found) == ["a", "a"]
        assert column(found, "shadow") == [None, None]
        assert column(found, "shadow_model") == ["classify/b@1"] * 2  # it was to be compared
    assert gate.calls == 1
    assert counted == [("r", "b", "compared", 0), ("r", "b", "missed", 2)] * 3


@pytest.mark.parametrize(
    ("declared", "answers_s", "wait_s"),
    [(None, 0.001, 0.25), (None, 4.0, 4.0), (None, 900.0, 60.0), (100.0, 4.0, 0.1)],
)
def test_a_shadow_is_waited_for_as_long_as_the_answers_took(gate, declared, answers_s, wait_s):
    bench = Slow(gate, shadow_wait_ms_max=declared)
    bench.models.seconds["a"] = answers_s
    waits = []
    bench.router._beside.answer = waits.append
    assert by(bench.run(1)) == ["a"]
    assert waits == pytest.approx([wait_s])


def test_a_shadow_that_fails_late_cools_down(gate):
    bench = Slow(gate, failures_max=1)
    bench.run(1)
    bench.models.errors["b"] = Retry("x", "away")
    gate.released.set()
    assert bench.router._beside._call.done.wait(SOON_S)
    bench.run(1)
    assert gate.calls == 1
    bench.clock.advance(31)
    bench.run(1)
    assert gate.calls == 2


class Away:
    """A route's source whose shadow is on a server that does not answer at first."""

    def __init__(self, bench):
        self.given, self.tries, self.is_away = bench.router._standing._source, 0, True

    def __getattr__(self, name):
        return getattr(self.given, name)

    def open(self, name):
        if name == "b":
            self.tries += 1
            if self.is_away:
                raise Retry("models.remote", "b does not answer")
        return self.given.open(name)

    def try_open(self, name):
        return self.open(name)


def test_a_shadow_whose_server_is_away_is_opened_later():
    bench = Bench(models=["a"], facts={}, shadow="b", shadow_wait_ms_max=60_000)
    source = Away(bench)
    bench.router = type(bench.router)("r", source, bench.clock)
    bench.router.open()
    for _ in range(3):
        found = bench.run(1)
        assert by(found) == ["a"]
        assert column(found, "shadow_model") == [None]
    assert source.tries == 1
    bench.clock.advance(31)
    source.is_away = False
    assert column(bench.run(1), "shadow") == ["b"]
    assert bench.epochs().newest.shadow.name == "b"


class Hanging(HashEmbedder):
    def __init__(self, gate):
        super().__init__(16)
        self.gate = gate

    def embed(self, texts, kind="query", out=None):
        self.gate()
        return super().embed(texts, kind, out)


def test_a_second_embedder_that_hangs_delays_no_batch(gate):
    models = HashModels(16)
    models.embedder = lambda name=None: Hanging(gate) if name else HashEmbedder(16)
    options = {"model": "far", "wait_ms_max": 0.0}
    pipeline = Pipeline(models=models).use(Embed, Shadow, shadow=options)
    for number in range(3):
        pipeline.send({"id": str(number), "message": "where is it"})
    assert [row["shadow_embedding"] for row in pipeline.rows()] == [None] * 3
    assert gate.calls == 1
    assert pipeline.rejects() == []
