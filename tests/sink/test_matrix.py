"""The matrix holds the last vectors, whatever the sizes of what is added."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamapp.sink.matrix import Hit, Matrix, best, unit


def add(matrix, rows, vectors):
    matrix.add(("t", 0), rows, rows, vectors)


@given(st.lists(st.integers(0, 25), max_size=12), st.integers(1, 20))
def test_the_matrix_holds_the_last(sizes, rows_max):
    matrix, seen = Matrix(rows_max, 3), []
    for size in sizes:
        rows = np.arange(len(seen), len(seen) + size)
        vectors = np.random.default_rng(size).normal(size=(size, 3)).astype(np.float32)
        add(matrix, rows, vectors)
        seen.extend(vectors)
        found = matrix.nearest(unit([1, 2, 3]), 1000, last_row=10**9)
        kept = range(max(0, len(seen) - rows_max), len(seen))
        assert sorted(hit.offset for hit in found) == list(kept)
        assert matrix.first_row == (kept[0] if len(seen) > rows_max else 0)


def test_vectors_without_direction_are_not_added():
    matrix = Matrix(10, 2)
    vectors = np.array([[1, 1], [0, 0], [np.nan, 1], [np.inf, 1], [2, 2]], np.float32)
    add(matrix, np.arange(5), vectors)
    found = matrix.nearest(unit([1, 1]), 5, last_row=4)
    assert [hit.offset for hit in found] == [0, 4]
    assert np.allclose([hit.cosine for hit in found], 1)


def test_the_best_of_several_has_each_event_once():
    hits = [Hit("t", 0, 1, 0.5), Hit("t", 0, 2, 0.75), Hit("t", 0, 1, 0.5), Hit("t", 1, 1, 0.25)]
    assert best(hits, 5) == [hits[1], hits[0], hits[3]]
    assert best(hits, 1) == [hits[1]]


def test_what_has_no_direction():
    assert unit([0, 0]) is None
    assert unit([np.nan, 1]) is None
    assert np.allclose(unit([3, 4]), [0.6, 0.8])
