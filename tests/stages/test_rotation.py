"""Directions and turns: what a quaternion promises."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from streamapp.stages.rotation import IDENTITY, directions, projection, turn

coordinates = st.floats(-1, 1, allow_nan=False)
triples = st.tuples(coordinates, coordinates, coordinates)


def unit(triple):
    length = math.sqrt(sum(one * one for one in triple))
    assume(length > 1e-3)
    return tuple(one / length for one in triple)


def rotated(quaternion, vector):
    w, axis = quaternion[0], np.array(quaternion[1:])
    crossed = np.cross(axis, vector)
    return np.array(vector) + 2 * w * crossed + 2 * np.cross(axis, crossed)


@given(triples, triples)
def test_a_turn_takes_one_direction_to_the_other(before, after):
    before, after = unit(before), unit(after)
    quaternion = turn(before, after)
    assert math.hypot(*quaternion) == pytest.approx(1)
    np.testing.assert_allclose(rotated(quaternion, before), after, atol=1e-6)


@given(triples)
def test_opposites_turn_half_round_an_orthogonal_axis(triple):
    before = unit(triple)
    quaternion = turn(before, tuple(-one for one in before))
    assert quaternion[0] == 0
    np.testing.assert_allclose(np.dot(quaternion[1:], before), 0, atol=1e-9)
    np.testing.assert_allclose(rotated(quaternion, before), np.negative(before), atol=1e-9)


@given(triples)
def test_no_turn_is_the_identity(triple):
    assert turn(unit(triple), unit(triple)) == pytest.approx(IDENTITY, abs=1e-7)


def test_opposites_along_an_axis():
    assert turn((1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("dim", [3, 16, 384])
def test_the_projection_is_orthonormal(dim):
    axes = projection(dim)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)


def test_the_projection_never_changes():
    rounded = np.round(projection(384), 9) + 0.0
    assert (
        hashlib.sha256(rounded.tobytes()).hexdigest()
        == "93be32d5ade5740b8c1f15bf33b35345d3332d419e1fd020b298f4991d98c296"
    )


def test_rows_without_a_direction_have_none():
    vectors = np.stack([np.full(16, np.nan), np.zeros(16), np.ones(16)]).astype(np.float32)
    found = directions(vectors)
    assert found[:2] == [None, None]
    assert math.hypot(*found[2]) == pytest.approx(1)


@given(st.integers(1, 40), st.integers(0, 39))
def test_a_row_does_not_know_its_neighbours(rows, at):
    vectors = np.random.default_rng(rows).standard_normal((rows, 384)).astype(np.float32)
    at %= rows
    assert directions(vectors[at : at + 1])[0] == directions(vectors)[at]
