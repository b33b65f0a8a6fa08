"""Where vectors gather: found again, the same each time, and never more than there is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from streamapp.ring.centroids import centroids


def clouds(sizes, dim=32, spread=0.05):
    """Vectors round ``len(sizes)`` orthogonal directions, of lengths that must not matter."""
    generator = np.random.default_rng(3)
    rows = [np.eye(dim)[i] + spread * generator.normal(size=(n, dim)) for i, n in enumerate(sizes)]
    vectors = np.concatenate(rows) * generator.uniform(0.1, 9, size=(sum(sizes), 1))
    return generator.permutation(vectors).astype(np.float32)


def test_clouds_are_found_with_their_shares():
    centres, shares = centroids(clouds([50, 30, 15, 5]), 4)
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.15, 0.05])
    np.testing.assert_array_equal(np.argmax(centres, axis=1), [0, 1, 2, 3])
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-5)
    assert (np.max(centres, axis=1) > 0.95).all()


def test_every_run_gives_the_same():
    vectors = clouds([20, 20, 20])
    one, other = centroids(vectors, 5), centroids(vectors, 5)
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize(("rows", "expected"), [([], 0), ([[0, 0]], 0), ([[1, 0]] * 5, 1)])
def test_there_are_no_more_than_differ(rows, expected):
    centres, shares = centroids(np.array(rows, np.float32).reshape(-1, 2), 3)
    assert (len(centres), len(shares)) == (expected, expected)


numbers = st.floats(-100, 100, width=32).map(lambda x: np.float32(round(x, 2)))


@given(
    arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 6)), elements=numbers),
    st.integers(1, 8),
)
def test_centres_are_unit_vectors_and_shares_add_up(vectors, k):
    centres, shares = centroids(vectors, k)
    assert len(centres) <= k
    if (np.linalg.norm(vectors, axis=1) > 0).any():
        np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-4)
        assert shares.sum() == pytest.approx(1, abs=1e-5)
        assert (np.diff(shares) <= 0).all()


def test_what_has_no_direction_is_left_out():
    nan, inf = np.nan, np.inf
    vectors = np.array([[0, 0], [nan, 1], [inf, 0], [3e38, 3e38], [2, 0]], np.float32)
    centres, shares = centroids(vectors, 5)
    np.testing.assert_allclose(centres, [[1, 0], [0.5**0.5, 0.5**0.5]], atol=1e-6)
    assert shares.tolist() == [0.5, 0.5]
