"""Multinomial logistic regression on vectors, by L-BFGS (Liu & Nocedal 1989) in NumPy.

The objective, cross-entropy plus a square penalty, is convex: there is one answer, and it
does not depend on a seed.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
#: Of a point: the objective's value and gradient.
Objective = Callable[[Doubles], tuple[float, Doubles]]

#: Added to a column's standard deviation: one that never varies must not be divided by nothing.
DEVIATION_MIN = 1e-4
ITERATIONS_MAX = 300
_SLOPE_MAX = 1e-4
_PAIRS = 10
_DECREASE = 1e-4
_HALVINGS_MAX = 30


class Linear(NamedTuple):
    """Scores of labels: ``vectors @ weight.T + bias``; weight (labels, dim), bias (labels,)."""

    weight: Floats
    bias: Floats

    def scores(self, vectors: Floats) -> Floats:
        """(n, dim) to (n, labels)."""
        scores: Floats = vectors @ self.weight.T + self.bias
        return scores


def fit(vectors: Floats, places: Places, labels: int, penalty: float) -> Linear:
    """The linear map whose softmax gives the labels the likeliest.

    Args:
        vectors: (n, dim).
        places: of each row's label, (n,), from 0.
        labels: how many there are.
        penalty: of squared weights, on columns of unit variance; the bias is not penalised.
    """
    mean = vectors.mean(axis=0)
    deviation = vectors.std(axis=0) + np.float32(DEVIATION_MIN)
    columns = (vectors - mean) / deviation
    found = minimise(_cross_entropy(columns, places, labels, penalty), _start(columns, labels))
    weight, bias = found[:-labels].reshape(labels, -1), found[-labels:]
    weight = weight / deviation
    return Linear(weight.astype(np.float32), (bias - weight @ mean).astype(np.float32))


def _start(columns: Floats, labels: int) -> Doubles:
    return np.zeros(labels * (columns.shape[1] + 1))


def _cross_entropy(columns: Floats, places: Places, labels: int, penalty: float) -> Objective:
    """The mean over rows; matrices are multiplied in float32 and summed up in float64."""
    rows = np.arange(len(columns))

    def objective(point: Doubles) -> tuple[float, Doubles]:
        weight = point[:-labels].reshape(labels, -1)
        scores = columns @ weight.astype(np.float32).T + point[-labels:].astype(np.float32)
        shares = softmax(scores)
        loss = -np.log(np.maximum(shares[rows, places], 1e-30)).mean(dtype=np.float64)
        shares[rows, places] -= 1
        slope = (shares.T @ columns).astype(np.float64) / len(rows) + penalty * weight
        bias_slope = shares.mean(axis=0, dtype=np.float64)
        value = float(loss) + penalty / 2 * float((weight**2).sum())
        return value, np.concatenate([slope.ravel(), bias_slope])

    return objective


def softmax(scores: Floats) -> Floats:
    """Shares of each row, which sum to 1; (n, labels)."""
    shares: Floats = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def minimise(objective: Objective, start: Doubles) -> Doubles:
    """Where a smooth convex objective is least, to a slope of ``_SLOPE_MAX`` in any direction."""
    point, (value, slope) = start, objective(start)
    pairs: deque[tuple[Doubles, Doubles]] = deque(maxlen=_PAIRS)
    for _ in range(ITERATIONS_MAX):
        if np.abs(slope).max() <= _SLOPE_MAX:
            break
        direction = -_scaled(slope, pairs)
        step = 1.0 if pairs else min(1.0, 1 / float(np.linalg.norm(slope)))
        fall = _dot(slope, direction)
        for _ in range(_HALVINGS_MAX):
            next_point = point + step * direction
            next_value, next_slope = objective(next_point)
            if next_value <= value + _DECREASE * step * fall:
                break
            step /= 2
        else:
            break  # float32 cannot tell a better point from this one
        moved, turned = next_point - point, next_slope - slope
        if _dot(moved, turned) > 0:
            pairs.append((moved, turned))
        point, value, slope = next_point, next_value, next_slope
    return point


def _scaled(slope: Doubles, pairs: "deque[tuple[Doubles, Doubles]]") -> Doubles:
    """The gradient times the inverse curvature that the last steps have shown."""
    result = slope.copy()
    shares = []
    for moved, turned in reversed(pairs):
        share = _dot(moved, result) / _dot(moved, turned)
        result -= share * turned
        shares.append(share)
    if pairs:
        moved, turned = pairs[-1]
        result *= _dot(moved, turned) / _dot(turned, turned)
    for (moved, turned), share in zip(pairs, reversed(shares), strict=True):
        back = _dot(turned, result) / _dot(moved, turned)
        result += (share - back) * moved
    return result


def _dot(one: Doubles, other: Doubles) -> float:
    """Not by BLAS, whose threads wait for each other longer than this takes on a busy machine."""
    return float(np.einsum("i,i->", one, other))
