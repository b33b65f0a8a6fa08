"""Extractor: texts to entities, by any model."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from streamapp.core.entity import Entity
from streamapp.core.model import ModelRef


class Extractor(Protocol):
    """Texts to entities.  What is found in a text does not depend on its neighbours in the call."""

    @property
    def ref(self) -> ModelRef: ...
    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of a model that knows no others; empty: it looks for any."""
        ...

    def extract(
        self,
        texts: Sequence[str | None],
        labels: Sequence[str],
        *,
        threshold: float | Mapping[str, float] | None = None,
        flat: bool = True,
        multi_label: bool = False,
    ) -> tuple[list[list[Entity]], npt.NDArray[np.bool_]]:
        """The entities of each text by place, and whether it was too long to be read whole, (n,).

        Args:
            texts: None has no entities.
            labels: what to look for.
            threshold: a span counts when its score is above it; the model's own by default, and
                where labels have thresholds, for those that have none.
            flat: no two entities share a word; else one may lie inside another.
            multi_label: the same words may have several labels.

        Raises:
            Refuse: no labels, or one that the model cannot look for.
        """
        ...
