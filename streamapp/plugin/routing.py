"""Routers, as stages see them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from streamapp.core.model import ModelRef
from streamapp.core.route import Answered, Event, Routed
from streamapp.models.beside import Beside
from streamapp.models.routing.answers import labels_of
from streamapp.models.routing.sticky import place_of as sticky_place

if TYPE_CHECKING:  # it knows us
    from streamapp.plugin.stage import Classifier, State

__all__ = ["Ask", "Beside", "Router", "labelled", "sticky_place"]

#: Asks a model about some rows of the batch: one answer each, None for none.
Ask = Callable[[Any, npt.NDArray[np.intp]], Sequence[Answered | None]]


class Router(Protocol):
    """Chooses a model for each event, asks it, and falls back when it fails.

    A choice depends on the event and on what the stage's ``state`` holds, so that the log has all
    that it was made by.
    """

    @property
    def task(self) -> str: ...
    @property
    def candidates(self) -> tuple[str, ...]:
        """The models that may answer, as the route names them."""
        ...

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """Who may have answered the last batch."""
        ...

    def open(self) -> None:
        """Open every model.

        Raises:
            Refuse: one is unknown, not pulled, or not what its manifest says.
        """
        ...

    def run(
        self, events: Sequence[Event], offsets: Sequence[int], ask: Ask, state: "State"
    ) -> Routed:
        """Answer every event; one call for all rows that a model gets.

        Raises:
            Retry: nobody answers some of them now.
            Reject: from a model, or all of them failed.
        """
        ...


def labelled(
    model: "Classifier", inputs: Sequence[str | None] | npt.NDArray[np.float32]
) -> list[Answered | None]:
    """A classifier's answers as a router takes them; ``value`` has ``name`` and ``confidence``.

    The name is ``unknown`` below the classifier's threshold, or where two labels are too near.
    """
    shares = model.classify(inputs)
    found = labels_of(shares, model.labels, model.threshold, model.margin_min)
    return [label and Answered(label, label.name, label.confidence) for label in found]
