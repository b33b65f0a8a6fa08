"""Scores to probabilities that mean what they say, and the threshold below which to say unknown.

Everything here is fitted on examples that the scored model was not trained on.  A temperature
divides the scores (Guo et al., ICML 2017); the threshold is the lowest at which answers are right
as often as was asked for.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streamapp.models.heads.logistic import Doubles, Floats, Places, softmax

#: The place of an example that belongs to no label.
UNKNOWN = -1
_TEMPERATURES = np.exp(np.linspace(np.log(1e-3), np.log(1e2), 40))
_FINER = 12


class Calibration(NamedTuple):
    """``threshold``: the least probability of an answer."""

    temperature: float
    threshold: float


class Judged(NamedTuple):
    """How a model did on examples it had not seen.

    ``accuracy``: of all that have a label, were there no unknown; ``coverage``: share of them that
    get an answer; ``precision``: share of the answers that are right, answers to examples without a
    label being wrong; ``refused``: share of the examples without a label that get none, NaN where
    there are none; ``error``: mean distance between probability and truth, in ten bins.
    """

    examples: int
    accuracy: float
    coverage: float
    precision: float
    refused: float
    error: float


def temperature_of(scores: Floats, places: Places) -> float:
    """The one at which the right labels are the likeliest.

    Args:
        scores: (n, labels).
        places: of the right labels, (n,); those without one do not count.
    """
    known = places != UNKNOWN
    scores, places = scores[known], places[known]
    grid = _TEMPERATURES
    for _ in range(2):
        losses = [_loss(scores, places, one) for one in grid]
        best = int(np.argmin(losses))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        grid = np.exp(np.linspace(np.log(low), np.log(high), _FINER))
    return float(grid[int(np.argmin([_loss(scores, places, one) for one in grid]))])


def threshold_of(shares: Floats, places: Places, precision: float) -> float | None:
    """The lowest probability at and above which this share of the answers is right.

    One right answer proves nothing of 95 in 100: as many are asked for as it takes to see one wrong
    one, but no more than half of the rows.  None when no probability parts right from wrong that
    well.
    """
    sure, right = _ordered(shares, places)
    least = min(math.ceil(1 / max(1 - precision, 1e-9)), max(len(sure) // 2, 1))
    enough = np.flatnonzero(right >= precision)
    enough = enough[enough >= least - 1]
    return float(sure[enough[-1]]) if len(enough) else None


def reach_of(scores: Floats, places: Places, parts: Places) -> float:
    """A precision that ``judge_across`` can keep: that of the surer half, in the worst turn."""
    reached = []
    for part in (None, *np.unique(parts)):
        rows = parts != part if part is not None else np.ones(len(parts), bool)
        shares = shares_of(scores[rows], temperature_of(scores[rows], places[rows]))
        reached.append(_ordered(shares, places[rows])[1][rows.sum() // 2 :].max())
    return float(min(reached))


def _ordered(shares: Floats, places: Places) -> tuple[Floats, Doubles]:
    """Probabilities of the answers, highest first, and the share that is right up to each.

    Rows of one probability are answered together or not at all: 0 up to all but the last of them.
    """
    best = shares.max(axis=1)
    order = np.argsort(-best, kind="stable")
    right = np.cumsum((shares.argmax(axis=1) == places)[order]) / np.arange(1, len(order) + 1)
    return best[order], np.where(np.append(np.diff(best[order]) != 0, True), right, 0)


def calibrate(scores: Floats, places: Places, precision: float) -> Calibration | None:
    """Both, from scores of held-out examples; None when ``precision`` is out of reach."""
    temperature = temperature_of(scores, places)
    threshold = threshold_of(shares_of(scores, temperature), places, precision)
    return None if threshold is None else Calibration(temperature, threshold)


def shares_of(scores: Floats, temperature: float) -> Floats:
    """Probabilities (n, labels)."""
    return softmax(scores / np.float32(temperature))


def judge(shares: Floats, places: Places, threshold: float | Floats) -> Judged:
    """Probabilities of examples beside the truth; at least one example has a label.

    Args:
        shares: (n, labels).
        places: of the right labels, (n,).
        threshold: one, or one for each row, (n,).
    """
    sure, right = shares.max(axis=1), shares.argmax(axis=1) == places
    known, answered = places != UNKNOWN, sure >= np.asarray(threshold, np.float32)
    return Judged(
        examples=len(places),
        accuracy=_share(right[known]),
        coverage=_share(answered[known]),
        precision=_share(right[answered]),
        refused=_share(~answered[~known]),
        error=_distance(sure[known], right[known]),
    )


def judge_across(scores: Floats, places: Places, parts: Places, precision: float) -> Judged | None:
    """What ``calibrate`` is worth: fitted on all parts but one, judged on that one, in turn.

    The rows that chose a threshold say nothing about it, so no row is judged by its own.  None when
    ``precision`` is out of reach in one of the turns.
    """
    shares, thresholds = np.empty_like(scores), np.empty(len(scores), np.float32)
    for part in np.unique(parts):
        inside = parts == part
        fitted = calibrate(scores[~inside], places[~inside], precision)
        if fitted is None:
            return None
        shares[inside] = shares_of(scores[inside], fitted.temperature)
        thresholds[inside] = fitted.threshold
    return judge(shares, places, thresholds)


def _share(of: npt.NDArray[np.bool_]) -> float:
    """NaN of nothing."""
    return float(of.mean()) if len(of) else float("nan")


def _loss(scores: Floats, places: Places, temperature: float) -> float:
    """Cross-entropy to targets a little short of certain, as Platt's (1999).

    Without that the best temperature of scores that are all right is nothing, every probability
    is 1, and nothing can be told apart by them any more.
    """
    scaled = scores.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    logs = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    right = logs[np.arange(len(places)), places]
    wrong = (logs.sum(axis=1) - right) / max(scores.shape[1] - 1, 1)
    doubt = 1 / (len(places) + 2)
    return float(-((1 - doubt) * right + doubt * wrong).mean())


def _distance(sure: Floats, right: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error: between how sure and how right, by tenths of being sure."""
    tenth = np.minimum((sure * 10).astype(int), 9)
    gaps = np.bincount(tenth, sure - right.astype(np.float64), minlength=10)
    return float(np.abs(gaps).sum() / len(sure))
