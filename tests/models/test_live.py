"""Handles that follow a name: warm before they change, only in a turn, and never to what fails."""

import threading

import numpy as np
import pytest
from model_versions import NAME, Versions, vector

from streamapp.core.metrics import Metrics
from streamapp.models.serving import live as live_module
from streamapp.models.serving.live import Live

WAIT_S = 20


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def monotonic_s(self):
        return self.now_s


@pytest.fixture
def versions(tmp_path):
    return Versions(tmp_path).add(1).promote(1)


class Followed:
    """A live registry, its clock, and turns until something changed."""

    def __init__(self, versions):
        self.metrics, self.clock = Metrics(), Clock()
        self.live = Live(versions.registry(), self.metrics, clock=self.clock)

    def settle(self):
        """One look, then turns until nothing is being opened."""
        self.clock.now_s += 1
        changed = self.live.turn()
        pause = threading.Event()
        for _ in range(WAIT_S * 100):
            if not self.live._opening:
                return changed
            pause.wait(0.01)
            changed = self.live.turn() or changed
        raise AssertionError("still opening")

    def count(self, result):
        return self.metrics.registry.get_sample_value(
            "streamapp_model_swaps_total", {"result": result}
        )


@pytest.fixture
def followed(versions):
    made = Followed(versions)
    yield made
    made.live.close()


def embedded(handle, text="a"):
    return handle.embed([text])[0][0]


def test_a_handle_is_the_model_of_its_name(followed):
    handle = followed.live.embedder()
    assert followed.live.embedder() is handle
    assert (handle.dim, handle.ref.version) == (8, 1)
    np.testing.assert_allclose(embedded(handle), vector(1, "a"), atol=1e-6)
    assert followed.live.embedding_dim() == 8  # the rest is the registry's own
    assert followed.settle() is False


def test_a_promoted_version_takes_over_in_a_turn_and_not_before(followed, versions, monkeypatch):
    let = threading.Event()  # it is opened no sooner than the first turn is over
    monkeypatch.setattr(live_module, "warm", lambda *_: let.wait(WAIT_S))
    handle, named = followed.live.embedder(), followed.live.embedder(f"{NAME}@1")
    versions.add(2).promote(2)
    assert handle.ref.version == 1
    assert followed.live.turn() is False  # it is not looked at more than once a second
    assert not followed.live._opening
    followed.clock.now_s += 1
    followed.live.turn()
    [(_, opened)] = followed.live._opening.values()
    let.set()
    opened.result(WAIT_S)
    assert handle.ref.version == 1  # ready, and still no turn
    np.testing.assert_allclose(embedded(handle), vector(1, "a"), atol=1e-6)
    assert followed.live.turn() is True
    assert handle.ref.version == 2
    np.testing.assert_allclose(embedded(handle), vector(2, "a"), atol=1e-6)
    assert named.ref.version == 1  # a version that is named stays
    assert followed.count("changed") == 1


def test_the_other_is_warm_before_it_takes_over(followed, versions, monkeypatch):
    warmed = []
    monkeypatch.setattr(live_module, "warm", lambda kind, model: warmed.append((kind, model.ref)))
    handle = followed.live.embedder()
    versions.add(2).promote(2)
    assert followed.settle()
    assert warmed == [("embedder", handle.ref)]


def test_rollback_and_routes_are_followed_too(followed, versions):
    from streamapp.models.aliases import rollback

    handle = followed.live.embedder()
    versions.add(2).promote(2)
    assert followed.settle()
    rollback(versions.models_dir / NAME, "champion")
    assert followed.settle()
    assert handle.ref.version == 1
    (versions.models_dir / "routes.toml").write_text(f'[defaults]\nembed = "{NAME}@2"\n')
    assert followed.settle()
    assert handle.ref.version == 2


def test_names_of_one_model_change_together(followed, versions):
    one, other = followed.live.embedder(), followed.live.embedder(f"{NAME}@champion")
    versions.add(2).promote(2)
    seen = set()
    followed.clock.now_s += 1
    pause = threading.Event()
    while one.ref.version == 1:
        followed.live.turn()
        seen.add((one.ref.version, other.ref.version))
        pause.wait(0.005)
    assert seen <= {(1, 1), (2, 2)}


@pytest.mark.parametrize("flaw", ["dim", "not pulled", "damaged"])
def test_what_cannot_take_over_leaves_the_one_before(followed, versions, flaw, caplog):
    handle = followed.live.embedder()
    versions.add(2, dim=16 if flaw == "dim" else 8, pull=flaw != "not pulled")
    if flaw == "damaged":
        (versions.cache / "models" / NAME / "2" / "model.onnx").write_bytes(b"x")
    versions.promote(2)
    assert followed.settle() is False
    assert handle.ref.version == 1
    assert followed.count("refused") == 1
    assert {"dim": "dim 16", "not pulled": "models pull", "damaged": "sha256"}[flaw] in caplog.text
    versions.add(3).promote(3)  # and the next one is followed
    assert followed.settle()
    assert handle.ref.version == 3


def test_a_half_written_route_changes_nothing_until_it_is_whole(followed, versions):
    handle = followed.live.embedder()
    versions.add(2)
    routes = versions.models_dir / "routes.toml"
    routes.write_text("[defaults\n")
    assert followed.settle() is False
    routes.write_text(f'[defaults]\nembed = "{NAME}@2"\n')
    assert followed.settle()
    assert handle.ref.version == 2


def test_who_changed_his_mind_gets_the_last_one(followed, versions):
    handle = followed.live.embedder()
    versions.add(2).add(3).promote(2)
    followed.clock.now_s += 1
    followed.live.turn()
    versions.promote(3)
    assert followed.settle()
    followed.settle()
    assert handle.ref.version == 3
