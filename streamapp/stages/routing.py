"""What stages that label by a route share: what is routed, and what its models are given."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.plugin import (
    Answered,
    Batch,
    Classifier,
    Embedder,
    Event,
    ModelRef,
    Models,
    Refuse,
    State,
    labelled,
)

#: Texts, or vectors of the workflow's embedder, of the rows that are routed.
Inputs = Sequence[str | None] | npt.NDArray[np.float32]
#: What choices read of an event, beside its text.
READS = ("text", "conversation", "id")


class Labels(NamedTuple):
    """Of each row: what a classifier answered (``name``, ``confidence``), None; and who and why."""

    answers: Sequence[Any]
    routes: pa.Array


class LabelRoute:
    """A route of classifiers over batches; rows without text are asked of nobody.

    Args:
        stage: whose it is, for messages.
        name: of the route, or of a model.
        models: the registry.
        model: the embedder that the workflow's vectors are of; None: the default.
        by_language: whether choices depend on the column ``language``.

    Raises:
        Refuse: there is no such route, or its models give no labels.
    """

    def __init__(
        self, stage: str, name: str, models: Models, model: str | None, *, by_language: bool
    ) -> None:
        self._stage, self._name, self._model = stage, name, model
        self._router = models.router(name)
        self._by_language = by_language
        self._embedder: Embedder | None = None
        if self._router.task not in {"classify", "head"}:
            raise Refuse(
                "stage.option",
                f"stage {stage!r}: {name!r} is routed to models for {self._router.task}",
                "name a route for classify or head",
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that it needs."""
        more = ["language"] if self._by_language else []
        return (*READS, *more, *(["embedding"] if self._takes_vectors else []))

    @property
    def candidates(self) -> tuple[str, ...]:
        """The models that may answer, as the route names them."""
        return self._router.candidates

    @property
    def refs(self) -> tuple[ModelRef, ...]:
        """Who may have answered the last batch."""
        return self._router.models

    @property
    def vectors_of(self) -> ModelRef | None:
        """The model whose vectors it gives to heads; None: it gives texts."""
        return self._embedder.ref if self._embedder else None

    def open(self, models: Models) -> None:
        """Open every model."""
        if self._takes_vectors:
            self._embedder = models.embedder(self._model)
        self._router.open()

    def answer(self, batch: Batch, state: State) -> Labels:
        """Answers and routes of every row; None and null where a row has no text, or no vector."""
        texts = [text if text and text.strip() else None for text in batch.strings("text")]
        rows = [row for row, text in enumerate(texts) if text is not None]
        offsets = batch.offsets()[rows].tolist()
        given = self._inputs(batch, texts, rows)
        found = self._router.run(self._events(batch, texts, rows), offsets, self._ask(given), state)
        place = np.full(len(batch), -1)
        place[rows] = np.arange(len(rows))
        answers = [found.answers[at] if at >= 0 else None for at in place.tolist()]
        return Labels(answers, found.routes.take(pa.array(place, mask=place < 0)))

    @property
    def _takes_vectors(self) -> bool:
        return self._router.task == "head"

    def _events(
        self, batch: Batch, texts: Sequence[str | None], rows: Sequence[int]
    ) -> list[Event]:
        ids, conversations = batch.strings("id"), batch.strings("conversation")
        languages = batch.strings("language") if self._by_language else [None] * len(batch)
        return [
            Event(conversations[row] or ids[row] or "", len(texts[row] or ""), languages[row])
            for row in rows
        ]

    def _inputs(self, batch: Batch, texts: Sequence[str | None], rows: Sequence[int]) -> Inputs:
        if self._takes_vectors:
            return batch.vectors("embedding")[rows]
        return [texts[row] for row in rows]

    def _ask(self, inputs: Inputs) -> Any:
        def ask(model: Classifier, rows: npt.NDArray[np.intp]) -> list[Answered | None]:
            if isinstance(inputs, np.ndarray):
                self._check(model)
                return labelled(model, inputs[rows])
            return labelled(model, [inputs[row] for row in rows])

        return ask

    def _check(self, model: Classifier) -> None:
        """A head reads vectors of one model only; one of another is as good as broken."""
        ref = self._embedder.ref if self._embedder else None
        vectors = f"{ref.task}/{ref.name}@{ref.version}" if ref else ""
        if model.embedder != vectors:
            raise Refuse(
                "stage.head",
                f"stage {self._stage!r}: {model.ref} was trained on vectors of {model.embedder}, "
                f"the workflow's are of {vectors}",
                f"embed with {model.embedder}, or take it out of route {self._name}",
            )
