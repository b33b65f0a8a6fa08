"""What a model says of an event, and one answer made of several."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

UNKNOWN = "unknown"


class Label(NamedTuple):
    """A classifier's answer.

    ``name`` is the likeliest label, ``unknown`` where it is not sure enough; ``confidence`` its
    probability; ``shares`` every label's.
    """

    name: str
    confidence: float
    shares: Mapping[str, float]


def labels_of(
    shares: npt.NDArray[np.float32], labels: Sequence[str], threshold: float, margin_min: float
) -> list[Label | None]:
    """The answers in a classifier's probabilities (n, labels); None for a row of NaN."""
    answers: list[Label | None] = []
    for row in shares:
        if np.isnan(row[0]):
            answers.append(None)
            continue
        order = np.argsort(-row, kind="stable")
        best = float(row[order[0]])
        lead = best - float(row[order[1]]) if len(order) > 1 else best
        sure = best >= threshold and lead >= margin_min
        name = labels[order[0]] if sure else UNKNOWN
        answers.append(Label(name, best, dict(zip(labels, row.tolist(), strict=True))))
    return answers


def vote(answers: Sequence[Label]) -> Label:
    """The label that most say; where as many say another, the one that is surer in sum.

    The confidence is the share of the votes.
    """
    counts: dict[str, tuple[int, float]] = {}
    for answer in answers:
        votes, sure = counts.get(answer.name, (0, 0.0))
        counts[answer.name] = votes + 1, sure + answer.confidence
    name = max(counts, key=lambda each: counts[each])
    return Label(name, counts[name][0] / len(answers), _mean(answers))


def mean(answers: Sequence[Label]) -> Label:
    """The likeliest label by the mean of all probabilities; unknown when all say so.

    A label that a model does not know has probability 0 there.
    """
    shares = _mean(answers)
    name = max(shares, key=lambda each: shares[each])
    sure = any(answer.name != UNKNOWN for answer in answers)
    return Label(name if sure else UNKNOWN, shares[name], shares)


MERGES: Mapping[str, Callable[[Sequence[Label]], Label]] = {"vote": vote, "mean": mean}


def _mean(answers: Sequence[Label]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for answer in answers:
        for name, share in answer.shares.items():
            sums[name] = sums.get(name, 0.0) + share
    return {name: total / len(answers) for name, total in sums.items()}
