"""The pull of this host's attractors: the formula, and a plane that nobody trusts."""

import logging

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from mirroring import Event, Log, enriched, mirroring, vector_of

from streamapp.agents.pull import NEAR_COSINE, AttractorPull
from streamapp.core.errors import Refuse
from streamapp.core.metrics import Metrics
from streamapp.ring import new_records, presence
from streamapp.ring.control import (
    HEADER_BYTES,
    Attractor,
    Control,
    ControlPlane,
    control_path,
)

DIM = 4
BIT = presence("attractor_pull")


@pytest.fixture
def ring(tmp_path):
    return tmp_path / "x.ring"


@pytest.fixture
def plane(ring):
    with ControlPlane.create(control_path(ring), DIM) as opened:
        yield opened


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def pull(ring, plane, metrics):
    made = AttractorPull(ring, DIM, metrics)
    yield made
    made.close()


def pulled(pull, vectors, known=None):
    """Pulls, None where the presence bit is off."""
    vectors = np.asarray(vectors, np.float32)
    known = np.ones(len(vectors), bool) if known is None else np.asarray(known)
    records = new_records(len(vectors))
    pull.into(records, vectors, known)
    return [r["attractor_pull"].item() if r["presence"] & BIT else None for r in records]


def ignored(metrics):
    return metrics.control_ignored._value.get()


vector = st.lists(st.integers(-9, 9), min_size=DIM, max_size=DIM).filter(any)
weights = st.floats(-5, 5, width=32)


@given(
    gravity=weights,
    attractors=st.lists(st.tuples(weights, vector), max_size=5),
    rows=st.lists(vector, min_size=1, max_size=5),
)
def test_the_formula(tmp_path_factory, gravity, attractors, rows):
    ring = tmp_path_factory.mktemp("ring") / "r"
    named = tuple(
        Attractor(str(i), mass, np.array(place, np.float32))
        for i, (mass, place) in enumerate(attractors)
    )
    with ControlPlane.create(control_path(ring), DIM) as plane:
        plane.write(Control(gravity, named))
    pull = AttractorPull(ring, DIM, Metrics())
    found = pulled(pull, rows)
    pull.close()
    for row, value in zip(rows, found, strict=True):
        lengths = [np.linalg.norm(row) * np.linalg.norm(place) for _, place in attractors]
        cosines = [
            np.dot(row, place) / n for n, (_, place) in zip(lengths, attractors, strict=True)
        ]
        assume(
            all(abs(cosine - NEAR_COSINE) > 1e-5 for cosine in cosines)
        )  # where rounding decides
        pairs = zip(cosines, attractors, strict=True)
        expected = sum(mass * cosine for cosine, (mass, _) in pairs if cosine > NEAR_COSINE)
        assert value == pytest.approx(gravity * expected, rel=1e-4, abs=1e-4)


def test_no_plane_is_no_pull_and_a_row_without_vector_has_none(pull, ring, plane):
    plane.close()
    assert pulled(pull, [[1, 0, 0, 0]]) == [0.0], "a plane without attractors: nothing pulls"
    control_path(ring).unlink()
    pull.look()
    assert pulled(pull, [[1, 0, 0, 0]]) == [None]
    with ControlPlane.create(control_path(ring), DIM) as anew:
        anew.write(Control(2, (Attractor("a", 3, np.array([5, 0, 0, 0], np.float32)),)))
    pull.look()
    rows = [[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    assert pulled(pull, rows, [True, False, True]) == [6.0, None, 0.0]


def test_changes_are_seen_by_the_next_batch(pull, plane):
    for mass in (1.0, 2.0):
        plane.write(Control(1, (Attractor("a", mass, np.array([1, 0, 0, 0], np.float32)),)))
        assert pulled(pull, [[1, 0, 0, 0]]) == [mass]


def test_half_precision_rows(pull, plane):
    plane.write(Control(1, (Attractor("a", 1, np.array([1, 0, 0, 0], np.float32)),)))
    records = new_records(1)
    pull.into(records, np.array([[2, 0, 0, 0]], np.float16), np.ones(1, bool))
    assert records["attractor_pull"] == 1


def test_a_plane_that_turns_bad_is_said_once_and_the_last_good_one_holds(
    pull, plane, ring, metrics, caplog
):
    plane.write(Control(1, (Attractor("a", 1, np.array([1, 0, 0, 0], np.float32)),)))
    assert pulled(pull, [[1, 0, 0, 0]]) == [1.0]
    with control_path(ring).open("r+b") as file:
        for slot in range(2):
            file.seek(HEADER_BYTES + slot * plane._slot_bytes + 4)
            file.write(np.float32("nan").tobytes())
        file.seek(64)
        file.write((100).to_bytes(8, "little"))
    for _ in range(3):
        assert pulled(pull, [[1, 0, 0, 0]]) == [1.0]
        pull.look()
    assert ignored(metrics) == 1
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "gravity nan" in caplog.text
    with pytest.raises(Refuse, match="remove it and set it anew"):
        plane.write(Control(2))


def test_a_plane_of_another_dim_is_ignored_with_one_warning(ring, metrics, caplog):
    ControlPlane.create(control_path(ring), DIM + 1).close()
    pull = AttractorPull(ring, DIM, metrics)
    for _ in range(3):
        pull.look()
        assert pulled(pull, [[1, 0, 0, 0]]) == [None]
    assert ignored(metrics) == 1
    assert "vectors of 5 values, the ring's have 4" in caplog.text


async def test_the_mirror_fills_it_in_and_leaves_velocity_alone(ring):
    place = Attractor("near 3", 2.0, vector_of(3))
    async with mirroring(ring, Log()) as mirror:
        await mirror.feed(Event(enriched(0, 0, 3)))
        with ControlPlane.create(control_path(ring), DIM) as plane:
            plane.write(Control(0.5, (place,)))
        await mirror.until(
            lambda: mirror.agent._feed.pull._plane is not None, "the plane to be seen"
        )
        await mirror.feed(Event(enriched(1, 3, 5)))
        frames = mirror.frames()
    known = (frames.presence & BIT) != 0
    assert known.tolist() == [False] * 3 + [True] * 2
    assert frames.attractor_pull[3] == pytest.approx(1.0)
    assert 0.8 < frames.attractor_pull[4] < 1
    assert np.isnan(frames.velocity).all()
