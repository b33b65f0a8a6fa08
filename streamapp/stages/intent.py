"""What a message wants: the label of a declared set, or ``unknown``.

Four ways, by what there is to learn from:

- ``labels``: no examples at all.  Each label has descriptions in plain words, in any languages; a
  label's score is the cosine of the nearest one.  Embedding models put all short texts at similar
  cosines (e5: 0.8 to 0.9), so the **margin** between the best two decides what is unknown.
- ``head``: a model that ``streamapp intents train`` made of examples, on the vectors of ``embed``.
- ``classifier``: a model that reads the text itself.
- ``route``: a route of such models, of which one is chosen for each event (see ``classify``).

Models give probabilities, and their manifests a threshold calibrated on held-out examples.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.plugin import (
    ROUTE,
    Batch,
    Columns,
    Halt,
    ModelRef,
    Models,
    Refuse,
    State,
    StatefulStage,
    float32,
    int32,
    string,
)
from streamapp.stages.probabilities import Trained, undecided, way_of
from streamapp.stages.routing import LabelRoute

UNKNOWN = "unknown"
SOURCE = "prototype"

Floats = npt.NDArray[np.float32]


class Answers(NamedTuple):
    """One batch's: the best label's place, its share, and which rows are unsure; each (n,)."""

    labels: tuple[str, ...]
    best: npt.NDArray[np.intp]
    share: Floats
    unsure: npt.NDArray[np.bool_]
    missing: npt.NDArray[np.bool_]


class Judge(Protocol):
    """One way to answer; ``source`` is what ``intent_source`` says."""

    source: str

    @property
    def refs(self) -> tuple[ModelRef, ...]: ...
    @property
    def vectors_of(self) -> ModelRef | None: ...
    def answer(self, batch: Batch) -> Answers: ...


class Intent(StatefulStage):
    """The nearest or likeliest label.

    Writes ``intent``, ``intent_id`` (the label's place, -1 for unknown), ``intent_confidence`` and
    ``intent_source`` (``prototype``, ``head``, ``classifier`` or ``route``); null where there is no
    embedding, or no text.  With ``route``, ``intent_route``: who answered, and why.

    ``intent_confidence`` is a calibrated probability with ``head``.  With ``labels`` it is the
    share of the best one in a softmax of the cosines divided by ``temperature``: comparable within
    one workflow, no probability.

    Options: one of ``labels`` (name to descriptions, in order), ``head``, ``classifier`` (names of
    models), ``route`` (whose models have the same labels); ``model`` (the one that ``embed`` uses).
    With ``labels``: ``margin_min``, ``temperature``, ``kind`` (which prefix the descriptions get:
    ``query`` or ``passage``), ``confidence_min``.  With ``head`` and ``classifier``
    ``confidence_min`` and ``margin_min`` take the place of the manifest's.
    """

    name = "intent"
    version = 1
    writes: Mapping[str, pa.DataType] = {
        "intent": string,
        "intent_id": int32,
        "intent_confidence": float32,
        "intent_source": string,
    }
    accepts: Mapping[str, type] = {
        "labels": dict,
        "head": str,
        "classifier": str,
        "route": str,
        "margin_min": float,
        "confidence_min": float,
        "temperature": float,
        "model": str,
        "kind": str,
    }

    #: What may be answered beside unknown; known once declared.
    labels: tuple[str, ...] = ()

    _judge: Judge
    _routed: "ByRoute"

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        self._way = way_of(
            self.name, self.options, ("labels", "head", "classifier", "route"), "labels"
        )
        self.reads = ("text",) if self._way == "classifier" else ("embedding",)
        if self._way == "labels":
            self._descriptions = _checked(self.options.get("labels", {}))
            if not self.options.get("temperature", 1) > 0:
                raise Refuse(
                    "stage.option", "stage 'intent': temperature is not above 0", "give 0.01"
                )

    @property
    def vectors_of(self) -> ModelRef | None:
        return (self._routed if self._way == "route" else self._judge).vectors_of

    def declare(self, models: Models) -> None:
        if self._way == "route":
            self._routed = ByRoute(self.name, self.options, models)
            self.labels, self.reads = self._routed.labels, self._routed.reads
            self.writes = {**Intent.writes, "intent_route": ROUTE}
            return
        named = self._way == "labels"
        self.labels = tuple(self._descriptions) if named else models.labels(self.options[self._way])

    def open(self, models: Models) -> None:
        if self._way == "route":
            self._routed.open(models)
            self.models = self._routed.refs
            return
        if self._way == "labels":
            self._judge = _Nearest(self._descriptions, self.options, models)
        else:
            self._judge = _Likeliest(self._way, self.options, models)
        self.models = self._judge.refs

    def enrich(self, batch: Batch, state: State | None = None) -> Columns:
        if self._way == "route":
            found, routes = self._routed.answer(batch, state)
            self.models = self._routed.refs
            return {**self._columns(found, self._way), "intent_route": routes}
        found = self._judge.answer(batch)
        self.models = self._judge.refs
        return self._columns(found, self._judge.source)

    def _columns(self, found: Answers, source: str) -> dict[str, pa.Array]:
        labels = np.array([*found.labels, UNKNOWN], object)
        best = np.where(found.unsure, len(found.labels), found.best)
        ids = np.where(found.unsure, -1, found.best).astype(np.int32)
        sources = np.full(len(best), source, object)
        return {
            "intent": pa.array(labels[best], string, mask=found.missing),
            "intent_id": pa.array(ids, int32, mask=found.missing),
            "intent_confidence": pa.array(found.share, float32, mask=found.missing),
            "intent_source": pa.array(sources, string, mask=found.missing),
        }


class _Nearest:
    """The label with the nearest description."""

    source = SOURCE

    def __init__(
        self, descriptions: Mapping[str, list[str]], options: Mapping[str, Any], models: Models
    ) -> None:
        self._embedder = models.embedder(options.get("model"))
        self._labels = tuple(descriptions)
        self._margin_min = float(options.get("margin_min", 0.006))
        self._confidence_min = np.float32(options.get("confidence_min", 0))
        self._temperature = np.float32(options.get("temperature", 0.01))
        self._kind = options.get("kind", "query")
        self._texts = [text for texts in descriptions.values() for text in texts]
        counts = [len(texts) for texts in descriptions.values()]
        self._first_of_label = np.cumsum([0, *counts[:-1]])
        self._place()

    @property
    def refs(self) -> tuple[ModelRef, ...]:
        return (self._placed_by,)

    @property
    def vectors_of(self) -> ModelRef | None:
        return self._embedder.ref

    def _place(self) -> None:
        """The descriptions' vectors, by the model that is in use now."""
        self._placed_by = self._embedder.ref
        self._prototypes, _ = self._embedder.embed(self._texts, self._kind)

    def answer(self, batch: Batch) -> Answers:
        if self._embedder.ref != self._placed_by:
            self._place()
        vectors = batch.vectors("embedding")
        if vectors.shape[1] != self._prototypes.shape[1]:
            raise Halt(
                "intent.model",
                f"stage 'intent' has vectors of {self._prototypes.shape[1]} numbers, "
                f"the column embedding of {vectors.shape[1]}",
                "give [stages.intent] and [stages.embed] the same model",
            )
        missing = np.isnan(vectors[:, 0])
        cosines = np.where(missing[:, None], np.float32(0), vectors) @ self._prototypes.T
        scores = np.maximum.reduceat(cosines, self._first_of_label, axis=1)
        two = np.partition(scores, -2, axis=1)[:, -2:]
        weights = np.exp((scores - two[:, 1:]) / self._temperature)
        share = 1 / weights.sum(axis=1)
        unsure = two[:, 1] - two[:, 0] < self._margin_min
        unsure |= share < self._confidence_min
        return Answers(self._labels, scores.argmax(axis=1), share, unsure, missing)


class _Likeliest:
    """The label with the highest probability."""

    def __init__(self, way: str, options: Mapping[str, Any], models: Models) -> None:
        self.source = way
        self._options = options
        self._trained = Trained(Intent.name, way, options, models)

    @property
    def refs(self) -> tuple[ModelRef, ...]:
        return (self._trained.classifier.ref,)

    @property
    def vectors_of(self) -> ModelRef | None:
        return self._trained.vectors_of

    def answer(self, batch: Batch) -> Answers:
        found = self._trained.probabilities(batch)
        missing = np.isnan(found[:, 0])
        known = np.where(missing[:, None], np.float32(0), found)
        unsure = undecided(known, self._trained.classifier, self._options)
        labels = self._trained.classifier.labels
        return Answers(labels, known.argmax(axis=1), known.max(axis=1), unsure, missing)


class ByRoute:
    """The answer of whichever model a route chooses; all of them have the same labels."""

    def __init__(self, stage: str, options: Mapping[str, Any], models: Models) -> None:
        name = options["route"]
        self._route = LabelRoute(stage, name, models, options.get("model"), by_language=False)
        sets = {candidate: models.labels(candidate) for candidate in self._route.candidates}
        self.labels = next(iter(sets.values()))
        if other := [candidate for candidate, has in sets.items() if has != self.labels]:
            raise Refuse(
                "stage.option",
                f"stage {stage!r}: the models of route {name!r} have other labels ({other[0]})",
                "route among models with the same labels in the same order",
            )
        self.reads = self._route.reads

    @property
    def refs(self) -> tuple[ModelRef, ...]:
        return self._route.refs

    @property
    def vectors_of(self) -> ModelRef | None:
        return self._route.vectors_of

    def open(self, models: Models) -> None:
        """Open every model."""
        self._route.open(models)

    def answer(self, batch: Batch, state: State | None) -> tuple[Answers, pa.Array]:
        if state is None:
            raise Halt("intent.state", "intent was called without state", "run it in a Plan")
        answers, routes = self._route.answer(batch, state)
        places = {label: place for place, label in enumerate(self.labels)}
        best = [places.get(each.name, -1) if each else 0 for each in answers]
        share = [each.confidence if each else 0 for each in answers]
        found = Answers(
            self.labels,
            np.array(best, np.intp),
            np.array(share, np.float32),
            np.array([place < 0 for place in best], np.bool_),
            np.array([each is None for each in answers], np.bool_),
        )
        return found, routes


def _checked(labels: Mapping[str, Any]) -> dict[str, list[str]]:
    """Label to descriptions; a single description may stand without a list."""
    if len(labels) < 2:
        raise Refuse(
            "stage.option",
            f"stage 'intent' has {len(labels)} labels",
            "name at least two in [stages.intent.labels], or give it a head",
        )
    checked: dict[str, list[str]] = {}
    for name, texts in labels.items():
        checked[name] = [texts] if isinstance(texts, str) else texts
        good = checked[name] and all(isinstance(text, str) and text for text in checked[name])
        if name == UNKNOWN or not good:
            raise Refuse(
                "stage.option",
                f"stage 'intent': label {name!r} cannot be used",
                f"give it texts that describe it, and any name but {UNKNOWN!r}",
            )
    return checked
