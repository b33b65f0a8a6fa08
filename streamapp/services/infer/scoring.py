"""One model, or one route of models, asked about texts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.plugin import Answered, Classifier, Event, ModelRef, Models, Refuse, labelled
from streamapp.services.infer.merging import Answer

#: What a route says where its models are not sure.
UNKNOWN = "unknown"

Floats = npt.NDArray[np.float32]


class Scores(NamedTuple):
    """Of each row: the answer, None without a text; and who answered and why (``ROUTE``)."""

    answers: list[Answer | None]
    routes: pa.Array


class Scorer:
    """Asks a model or a route of the registry.

    Args:
        name: of it.
        models: the registry.
        threshold: takes the place of the models' own.

    Raises:
        Refuse: it is unknown, not pulled, or gives no labels.
        Retry: a server is away.
    """

    def __init__(self, name: str, models: Models, threshold: float | None) -> None:
        self._models, self._threshold = models, threshold
        self._router = models.router(name)
        if self._router.task not in {"classify", "head"}:
            raise Refuse(
                "models.task",
                f"{name!r} is for {self._router.task}, which gives no labels",
                "name a model or a route for classify or head",
            )
        self._router.open()

    def score(self, texts: Sequence[str | None], keys: Sequence[object]) -> Scores:
        """Answers about texts; nobody is asked about None.

        Args:
            texts: n of them.
            keys: n values by which a route splits rows between models.

        Raises:
            Retry: nobody answers now.
            Reject: from a model.
        """
        rows = [row for row, text in enumerate(texts) if text is not None]
        given = [texts[row] or "" for row in rows]
        events = [Event(str(keys[row]), len(text)) for row, text in zip(rows, given, strict=True)]
        ask = _Ask(given, self._models, self._threshold)
        found = self._router.run(events, range(len(rows)), ask, _AsDeclared())
        answers: list[Answer | None] = [None] * len(texts)
        for row, said in zip(rows, found.answers, strict=True):
            answers[row] = said and _answer(said)
        place = np.full(len(texts), -1)
        place[rows] = np.arange(len(rows))
        return Scores(answers, found.routes.take(pa.array(place, mask=place < 0)))


class _Ask:
    """Asks one model about some of the texts; heads get vectors of the embedder they know."""

    def __init__(self, texts: Sequence[str], models: Models, threshold: float | None) -> None:
        self._texts, self._models, self._threshold = texts, models, threshold
        self._vectors: dict[str, Floats] = {}

    def __call__(self, model: Classifier, rows: npt.NDArray[np.intp]) -> list[Answered | None]:
        judged = model if self._threshold is None else _Judged(model, self._threshold)
        if model.embedder:
            return labelled(judged, self._embedded(model.embedder)[rows])
        return labelled(judged, [self._texts[row] for row in rows.tolist()])

    def _embedded(self, name: str) -> Floats:
        if name not in self._vectors:
            self._vectors[name], _ = self._models.embedder(name).embed(self._texts)
        return self._vectors[name]


class _Judged:
    """A classifier with another threshold."""

    def __init__(self, model: Classifier, threshold: float) -> None:
        self._model, self.threshold = model, threshold
        self.labels, self.embedder = model.labels, model.embedder
        self.margin_min = model.margin_min

    @property
    def ref(self) -> ModelRef:
        return self._model.ref

    def classify(self, inputs: Sequence[str | None] | Floats) -> Floats:
        """As the model."""
        return self._model.classify(inputs)


class _AsDeclared:
    """A route's state that forgets: every batch is ruled by what is declared.

    What a route measures would make a row's model depend on the rows before it and on this
    machine's load; a table's rows must not.
    """

    def get(self, kind: str, key: str) -> None:
        """Nothing was measured."""

    def put(self, kind: str, key: str, source_offset: int, value: Any) -> None:
        """Let it go."""


def _answer(said: Any) -> Answer:
    name = None if said.name == UNKNOWN else said.name
    return Answer(name, said.confidence, said.shares)
