"""Examples to a calibrated head.

The examples are dealt into folds, repeats of one text into the same; each fold is scored by a model
that was trained on the others.  On those scores temperature and threshold are fitted and what the
head is worth is measured; the head itself is trained on all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from streamapp.core.counted import counted
from streamapp.core.errors import Refuse
from streamapp.models.heads.calibration import (
    UNKNOWN,
    Judged,
    calibrate,
    judge_across,
    reach_of,
)
from streamapp.models.heads.logistic import Floats, Linear, Places, fit

Kind = Literal["linear", "prototypes"]
#: Told how many of how many models are trained.
Trained = Callable[[int, int], None]

FOLDS_MAX = 5
LABELS_MAX = 10_000
#: Of squared weights on columns of unit variance.  Chosen within BANKING77's train.csv, on examples
#: that were held out: 0.003 when trained on all others; 0.03 with five of each label, where any
#: from 0.001 to 0.1 is within 0.2 points (three draws, 2,471 texts held out).
PENALTY, PENALTY_FEW = 0.003, 0.03
FEW = 20


class Head(NamedTuple):
    """A trained head; ``linear`` gives scores that a softmax makes probabilities of.

    ``measured`` is what was found on held-out examples at ``threshold``.
    """

    kind: Kind
    labels: tuple[str, ...]
    linear: Linear
    temperature: float
    threshold: float
    measured: Judged


def train(
    vectors: Floats,
    labels: Sequence[str | None],
    kind: Kind = "linear",
    precision: float = 0.95,
    seed: int = 0,
    trained: Trained = lambda _done, _all: None,
    groups: Places | None = None,
) -> Head:
    """Train and calibrate.

    Args:
        vectors: of the examples, (n, dim), unit length.
        labels: of the examples; None for one that belongs to no label: nothing is learnt from it
            but where to say unknown.
        kind: ``linear``, or ``prototypes``: the nearest mean.
        precision: the share of answers that shall be right; the rest is unknown.
        seed: by which examples are dealt into folds.
        trained: told of progress.
        groups: a number for each example, (n,): those of one number are one text, and no model is
            measured by a text that it learnt from; default: each is another.

    Raises:
        Refuse: too few labels or different texts, or the precision is out of reach.
    """
    groups = np.arange(len(labels)) if groups is None else groups
    names = _checked(labels, groups)
    place_of = {name: place for place, name in enumerate(names)}
    places = np.array([UNKNOWN if one is None else place_of[one] for one in labels])
    folds = deal(places, groups, seed)
    make = _makers(len(names), _penalty(_texts(places, groups)))[kind]
    held_out = _held_out(make, vectors, places, folds, trained)
    fitted = calibrate(held_out, places, precision)
    measured = fitted and judge_across(held_out, places, folds, precision)
    if fitted is None or measured is None:
        raise _out_of_reach(held_out, places, folds, precision)
    known = places != UNKNOWN
    linear = make(vectors[known], places[known])
    trained(folds.max() + 2, folds.max() + 2)
    return Head(kind, names, linear, fitted.temperature, fitted.threshold, measured)


def deal(places: Places, groups: Places, seed: int) -> Places:
    """The fold of each example, (n,): each label is spread over all folds as evenly as can be.

    A group goes whole into the fold that has the least of its labels, in an order that the seed
    gives; first those of several labels, which are the hardest to place, and large ones before
    small ones.  A label of fewer groups than there are folds has none in some.  Each fold is scored
    by models that know every label, since each has two groups at least; only labels that share all
    their texts with others may go without.

    Args:
        places: of the labels, (n,).
        groups: a number for each example, (n,); those of one number stay together.
        seed: of the order.
    """
    chance = np.random.default_rng(seed)
    count = max(2, min(FOLDS_MAX, int(_texts(places, groups).max())))
    members: dict[int, list[int]] = {}
    for place in np.unique(places):
        own = groups[places == place]
        for group in chance.permutation(own[np.sort(np.unique(own, return_index=True)[1])]):
            members.setdefault(int(group), [])
    for row, group in enumerate(groups.tolist()):
        members[group].append(row)
    order = sorted(members.values(), key=lambda rows: (len({*places[rows]}) == 1, -len(rows)))
    folds = np.empty(len(places), np.intp)
    totals = np.bincount(places - UNKNOWN)
    dealt = np.zeros((count, len(totals)), np.intp)
    for rows in order:
        columns = places[rows] - UNKNOWN
        fold = int((dealt[:, columns] / totals[columns]).sum(axis=1).argmin())
        folds[rows] = fold
        np.add.at(dealt[fold], columns, 1)
    return folds


def centroids(vectors: Floats, places: Places, labels: int) -> Linear:
    """The direction of each label's mean: scores are cosines."""
    sums = np.zeros((labels, vectors.shape[1]), np.float32)
    np.add.at(sums, places, vectors)
    lengths = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return Linear(sums / lengths, np.zeros(labels, np.float32))


def _makers(labels: int, penalty: float) -> Mapping[Kind, Callable[[Floats, Places], Linear]]:
    return {
        "linear": lambda vectors, places: fit(vectors, places, labels, penalty),
        "prototypes": lambda vectors, places: centroids(vectors, places, labels),
    }


def _penalty(texts: Places) -> float:
    return PENALTY if texts.mean() >= FEW else PENALTY_FEW


def _texts(places: Places, groups: Places) -> Places:
    """How many different texts each label has, (labels,)."""
    known = places != UNKNOWN
    pairs = np.unique(np.stack([places[known], groups[known]]), axis=1)
    return np.bincount(pairs[0])


def _held_out(
    make: Callable[[Floats, Places], Linear],
    vectors: Floats,
    places: Places,
    folds: Places,
    trained: Trained,
) -> Floats:
    """Scores (n, labels) of each example by a model that did not see it."""
    count = int(folds.max()) + 1
    parts = []
    for fold in range(count):
        inside = folds == fold
        seen = ~inside & (places != UNKNOWN)
        parts.append(make(vectors[seen], places[seen]).scores(vectors[inside]))
        trained(fold + 1, count + 1)
    scores = np.empty((len(vectors), parts[0].shape[1]), np.float32)
    for fold, part in enumerate(parts):
        scores[folds == fold] = part
    return scores


def _checked(labels: Sequence[str | None], groups: Places) -> tuple[str, ...]:
    """The labels' names, sorted."""
    texts: dict[str, set[int]] = {}
    for one, group in zip(labels, groups.tolist(), strict=True):
        if one is not None:
            texts.setdefault(one, set()).add(group)
    rare = [name for name, different in texts.items() if len(different) < 2]
    why = fix = ""
    if len(texts) < 2:
        why, fix = counted(len(texts), "label"), "give examples of at least two"
    elif len(texts) > LABELS_MAX:
        why = counted(len(texts), "label")
        fix = f"give at most {LABELS_MAX:,}; is it the right column?"
    elif rare:
        why = f"one text only of {', '.join(map(repr, rare[:5]))}"
        fix = "give two different texts at least of each label: one to learn from, one to "
        fix += "measure by; a text that is repeated counts once"
    if why:
        raise Refuse("intents.examples", f"the examples have {why}", fix)
    return tuple(sorted(texts))


def _out_of_reach(scores: Floats, places: Places, folds: Places, precision: float) -> Refuse:
    """Say what is within reach, if anything is."""
    share = np.floor(reach_of(scores, places, folds) * 100) / 100
    return Refuse(
        "intents.precision",
        f"no threshold makes {precision * 100:g}% of the answers to held-out examples right",
        f"ask for less (--precision {share:.2f} is within reach), or give more examples"
        if share
        else "give more examples of each label; is it the right column?",
    )
