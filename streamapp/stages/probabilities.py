"""What stages that ask a classifier share: which one, with what, and when its answer counts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streamapp.plugin import Batch, Classifier, Embedder, Halt, ModelRef, Models, Refuse

Floats = npt.NDArray[np.float32]


def way_of(stage: str, options: Mapping[str, Any], ways: Sequence[str], default: str) -> str:
    """The one way that the options name.

    Raises:
        Refuse: they name two.
    """
    named = [way for way in ways if way in options]
    if len(named) > 1:
        raise Refuse(
            "stage.option",
            f"stage {stage!r}: options {named[0]!r} and {named[1]!r} are two ways to one answer",
            "keep one of them",
        )
    return named[0] if named else default


class Trained:
    """The classifier that the option ``head`` or ``classifier`` names, beside what it is fed with.

    Args:
        stage: whose option it is.
        way: which option.
        options: the stage's; ``model`` is the embedder that the workflow's vectors are of.
        models: the registry.

    Raises:
        Refuse: unknown, not pulled, of the other kind, or trained on another model's vectors.
    """

    def __init__(self, stage: str, way: str, options: Mapping[str, Any], models: Models) -> None:
        self.classifier = models.classifier(options[way])
        self._stage, self._named = stage, options[way]
        self._embedder: Embedder | None = None
        if bool(self.classifier.embedder) != (way == "head"):
            takes, other = ("vectors", "head") if way != "head" else ("texts", "classifier")
            raise Refuse(
                "stage.option",
                f"stage {stage!r}: {self._named} takes {takes}",
                f"name it with {other!r} instead of {way!r}",
            )
        if way == "head":
            self._embedder = models.embedder(options.get("model"))
            if why := self._mismatch():
                raise Refuse("stage.head", why, self._way_out())

    @property
    def vectors_of(self) -> ModelRef | None:
        """The model whose vectors it takes; None: it takes texts."""
        return self._embedder.ref if self._embedder else None

    def probabilities(self, batch: Batch) -> Floats:
        """Probabilities (n, labels) of a batch's rows; NaN without text or vector.

        Raises:
            Halt: head and embedder were swapped for ones that do not belong together.
        """
        if self._embedder is None:
            texts = batch.strings("text")
            return self.classifier.classify([one if one and one.strip() else None for one in texts])
        if why := self._mismatch():
            raise Halt("stage.head", why, self._way_out())
        vectors = batch.vectors("embedding")
        if vectors.shape[1] != self._embedder.dim:
            why = f"has vectors of {self._embedder.dim} numbers, the column embedding of"
            raise Halt(
                "stage.head",
                f"stage {self._stage!r} {why} {vectors.shape[1]}",
                f"give [stages.{self._stage}] and [stages.embed] the same model",
            )
        return self.classifier.classify(vectors)

    def _mismatch(self) -> str:
        """Why the head cannot read the vectors; empty when it can."""
        vectors = _full(self._embedder.ref) if self._embedder else ""
        if vectors == self.classifier.embedder:
            return ""
        trained = f"{self._named} was trained on vectors of {self.classifier.embedder}"
        return f"stage {self._stage!r}: {trained}, the workflow's are of {vectors}"

    def _way_out(self) -> str:
        return f"embed with {self.classifier.embedder}, or train a head on the workflow's model"


def undecided(
    found: Floats, classifier: Classifier, options: Mapping[str, Any]
) -> npt.NDArray[np.bool_]:
    """Which rows of probabilities (n, labels) are too low, or too close to the second, (n,)."""
    confidence_min = options.get("confidence_min", classifier.threshold)
    margin_min = options.get("margin_min", classifier.margin_min)
    best = found.max(axis=1)
    unsure: npt.NDArray[np.bool_] = best < np.float32(confidence_min)
    if margin_min > 0 and found.shape[1] > 1:
        unsure |= best - np.partition(found, -2, axis=1)[:, -2] < np.float32(margin_min)
    return unsure


def _full(ref: ModelRef) -> str:
    return f"{ref.task}/{ref.name}@{ref.version}"
