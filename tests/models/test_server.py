"""A server of models: opened on first use, closed by least recent use, swapped without a drop."""

import threading

import numpy as np
import pytest
from model_versions import NAME, Versions, vector

from streamapp.core.errors import Halt, Refuse, Reject, Retry
from streamapp.core.metrics import Metrics
from streamapp.models.serving.policy import Policy
from streamapp.models.serving.server import Server

WAIT_S = 20
ONE, TWO = f"{NAME}@1", f"{NAME}@2"


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def monotonic_s(self):
        return self.now_s


class Gated:
    """A registry whose sessions wait for the test where they are held."""

    def __init__(self, registry):
        self.registry = registry
        self.opened, self.closed = [], []
        self.gates = {}

    def __getattr__(self, name):
        return getattr(self.registry, name)

    def hold(self, name):
        self.gates[name] = threading.Event(), threading.Semaphore(0)
        return self.gates[name]

    def open(self, name):
        session, source = self.registry.open(name), self
        self.opened.append(name)

        class Session:
            ref, inputs, outputs = session.ref, session.inputs, session.outputs
            memory_bytes = session.memory_bytes

            def run(self, feeds, outputs=None):
                if name in source.gates:
                    gate, begun = source.gates[name]
                    begun.release()
                    assert gate.wait(WAIT_S)
                return session.run(feeds, outputs)

            def close(self):
                source.closed.append(name)
                session.close()

        return Session()


@pytest.fixture
def versions(tmp_path):
    return Versions(tmp_path).add(1).add(2).promote(1)


class Served:
    def __init__(self, versions, **options):
        self.source, self.clock = Gated(versions.registry()), Clock()
        self.metrics = Metrics()
        self.server = Server(
            self.source, lambda _: Policy(replicas_max=1, wait_ms_max=0),
            metrics=self.metrics, clock=self.clock, **options,
        )  # fmt: skip


@pytest.fixture
def served(versions):
    made = []

    def make(**options):
        made.append(Served(versions, **options))
        return made[-1]

    yield make
    for one in made:
        for gate, _ in one.source.gates.values():
            gate.set()
        one.server.close()


def feeds(letter="a"):
    ids = np.array([[2 + ord(letter) - ord("a")]])
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def version_of(answer, letter="a"):
    """Which version gave it."""
    [found] = answer.result(WAIT_S)["sentence_embedding"]
    unit = found / np.linalg.norm(found)
    return next(v for v in (1, 2) if np.allclose(unit, vector(v, letter), atol=1e-5))


def test_a_model_is_opened_by_its_first_request_and_once(served):
    one = served()
    answers = [one.server.submit(name, feeds()) for name in (ONE, f"{NAME}@champion", ONE)]
    assert [version_of(answer) for answer in answers] == [1, 1, 1]
    assert one.source.opened == [ONE]
    [standing] = one.server.standing()
    assert (standing.name, standing.replicas) == (ONE, 1)
    assert standing.memory_bytes == one.server.budget.taken > 0
    labels = {"model": ONE}
    rows = one.metrics.registry.get_sample_value("streamapp_model_rows_total", labels)
    assert rows == 3


@pytest.mark.parametrize(
    ("name", "given", "error", "says"),
    [
        ("embed/other", feeds(), Refuse, "no model is called"),
        (f"{NAME}@best", feeds(), Refuse, "no alias 'best'"),
        (ONE, {}, Reject, "no input"),
        (ONE, {**feeds(), "x": np.zeros(1)}, Reject, "'x'"),
    ],
)
def test_what_is_wrong_comes_by_the_answer(served, name, given, error, says):
    with pytest.raises(error, match=says):
        served().server.submit(name, given).result(WAIT_S)


def test_a_model_that_is_not_pulled_says_how_to(served, versions):
    versions.add(3, pull=False)
    one = served()
    for _ in range(2):
        with pytest.raises(Refuse, match="models pull"):
            one.server.submit(f"{NAME}@3", feeds()).result(WAIT_S)
    assert one.server.budget.taken == 0
    with pytest.raises(Refuse):
        one.server.session(f"{NAME}@3")


def test_the_one_used_longest_ago_makes_room(served, versions):
    versions.add(3)
    size = versions.registry().size(ONE)
    one = served(memory_bytes_max=2 * size + 10)
    for version in (1, 2, 1, 3):
        one.server.submit(f"{NAME}@{version}", feeds()).result(WAIT_S)
    assert one.source.closed == [TWO]
    assert {standing.name for standing in one.server.standing()} == {ONE, f"{NAME}@3"}
    assert one.server.budget.taken <= one.server.budget.bytes_max
    assert version_of(one.server.submit(TWO, feeds())) == 2  # it comes back
    assert one.source.closed == [TWO, ONE]


def test_what_is_in_use_is_not_closed(served, versions):
    one = served(memory_bytes_max=versions.registry().size(ONE) + 10)
    gate, begun = one.source.hold(ONE)
    busy = one.server.submit(ONE, feeds())
    assert begun.acquire(timeout=WAIT_S)
    with pytest.raises(Retry, match="all in use"):
        one.server.submit(TWO, feeds()).result(WAIT_S)
    gate.set()
    assert version_of(busy) == 1


def test_a_model_that_could_never_fit_is_refused(served):
    with pytest.raises(Refuse, match="takes"):
        served(memory_bytes_max=10).server.submit(ONE, feeds()).result(WAIT_S)


def test_a_session_of_it_comes_back_after_it_was_unloaded(served):
    one = served()
    session = one.server.session(f"{NAME}@champion")
    assert [tensor.name for tensor in session.inputs] == ["input_ids", "attention_mask"]
    session.run(feeds())
    assert one.server.unload(ONE)
    assert not one.server.unload(ONE)
    assert one.source.closed == [ONE]
    assert session.run(feeds())["sentence_embedding"].shape == (1, 8)
    assert one.source.opened == [ONE, ONE]


def test_an_alias_that_moves_is_followed_without_a_dropped_call(served, versions):
    one = served()
    name = f"{NAME}@champion"
    assert version_of(one.server.submit(name, feeds())) == 1
    gate, begun = one.source.hold(ONE)
    under_way = one.server.submit(name, feeds())
    assert begun.acquire(timeout=WAIT_S)
    versions.promote(2)
    one.clock.now_s += 2
    answers = [one.server.submit(name, feeds())]  # the other is opened meanwhile
    one.server.load(TWO)
    answers += [one.server.submit(name, feeds())]
    assert version_of(answers[1]) == 2
    gate.set()
    assert [version_of(under_way), version_of(answers[0])] == [1, 1]
    assert one.source.opened == [ONE, TWO]


def test_an_alias_of_what_cannot_be_opened_leaves_the_one_before(served, versions, caplog):
    one = served()
    name = f"{NAME}@champion"
    one.server.submit(name, feeds()).result(WAIT_S)
    model = versions.cache / "models" / NAME / "2" / "model.onnx"
    content = model.read_bytes()
    model.write_bytes(b"damaged")
    versions.promote(2)
    one.clock.now_s += 2
    for _ in range(5):
        assert version_of(one.server.submit(name, feeds())) == 1
    with pytest.raises(Refuse, match="sha256"):
        one.server.load(TWO)
    assert "sha256" in caplog.text
    model.write_bytes(content)
    versions.promote(1)
    versions.promote(2)
    one.clock.now_s += 2
    assert version_of(one.server.submit(name, feeds())) == 1
    one.server.load(TWO)
    assert version_of(one.server.submit(name, feeds())) == 2


def test_closing_answers_what_was_asked(served):
    one = served()
    answers = [one.server.submit(ONE, feeds()) for _ in range(3)]
    one.server.close()
    assert [version_of(answer) for answer in answers] == [1, 1, 1]
    with pytest.raises(Halt):
        one.server.submit(ONE, feeds()).result(WAIT_S)
    assert one.source.closed == [ONE]
