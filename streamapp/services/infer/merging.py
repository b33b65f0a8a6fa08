"""One answer made of several models' about the same row."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Answer(NamedTuple):
    """What is said of a row.

    ``name`` is the likeliest label, None where the model is not sure; ``confidence`` its
    probability; ``shares`` every label's.
    """

    name: str | None
    confidence: float
    shares: Mapping[str, float]


def merged(how: str, answers: Sequence[Answer | None], weights: Sequence[float]) -> Answer | None:
    """The ensemble's answer; None where no model had one.

    Args:
        how: ``mean`` or ``vote``.
        answers: of each model.
        weights: of each model, above 0.
    """
    pairs = [
        (answer, weight)
        for answer, weight in zip(answers, weights, strict=True)
        if answer is not None
    ]
    if not pairs:
        return None
    shares = _mean(pairs)
    if how == "vote":
        return _vote(pairs, shares)
    name = max(shares, key=lambda each: shares[each])
    sure = any(answer.name is not None for answer, _ in pairs)
    return Answer(name if sure else None, shares[name], shares)


def _vote(pairs: Sequence[tuple[Answer, float]], shares: Mapping[str, float]) -> Answer:
    """The label with most of the weight; between equals the likelier one.

    The confidence is its share of the weight.  A model that is not sure votes for no label.
    """
    votes: dict[str | None, float] = {}
    for answer, weight in pairs:
        votes[answer.name] = votes.get(answer.name, 0.0) + weight
    name = max(votes, key=lambda each: (votes[each], shares.get(each or "", 0.0)))
    return Answer(name, votes[name] / sum(weight for _, weight in pairs), shares)


def _mean(pairs: Sequence[tuple[Answer, float]]) -> dict[str, float]:
    """The weighted mean of the probabilities; a label that a model does not know has 0 there."""
    total = sum(weight for _, weight in pairs)
    shares: dict[str, float] = {}
    for answer, weight in pairs:
        for name, share in answer.shares.items():
            shares[name] = shares.get(name, 0.0) + share * weight / total
    return shares
