"""Who, what and where a text speaks of, and fields of documents made of that.

Labels are words of any language; a model of GLiNER's kind looks for whatever they name.  Each type
of event may have its own, and fields that are filled from them::

    [stages.entities]
    model = "entities/gliner"
    labels = ["person", "organization", "location"]

    [stages.entities.types.invoice.fields]
    number = "Número da Nota"
    total = { label = "Valor Total", kind = "number" }
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.plugin import (
    ROUTE,
    Answered,
    Batch,
    Columns,
    Event,
    Extractor,
    Halt,
    Models,
    Refuse,
    Routed,
    Router,
    State,
    StatefulStage,
    float32,
    int32,
    string,
)
from streamapp.stages.fields import filled, refuse
from streamapp.stages.wanted import Answer, How, Wanted, Wants, extracted

ENTITY = pa.struct(
    [("text", string), ("label", string), ("start", int32), ("end", int32), ("score", float32)]
)
ENTITIES_MAX = 128


class Entities(StatefulStage):
    """Texts to entities.

    Writes ``entities``, a list of {text, label, start, end, score} in the order of the text: places
    in characters, ``text[start:end]``; null where there is no text or the type has no labels.
    ``entities_truncated``: the text was too long to be read whole, or more was found than is kept.
    With fields for some type, ``fields``: a JSON object of what was found for each, null for
    nothing.  By a route, ``entities_route``: who answered and why.

    Options: ``model``, the routed default of ``entities`` when absent, or ``route``, which chooses
    one of several for each event (``by_language``: one that speaks its language); ``labels``;
    ``threshold`` and ``thresholds`` (label to threshold), the model's own when absent; ``nested``:
    entities may lie inside others; ``multi_label``: the same words may have several labels;
    ``entities_max``: of one text, the surest are kept; ``column``: what is read, ``text`` when
    absent; ``types``: event type (``*`` stands for anything) to ``labels``, ``threshold``,
    ``thresholds``, ``fields``.
    """

    name = "entities"
    accepts: Mapping[str, type] = {
        "model": str,
        "route": str,
        "by_language": bool,
        "labels": list,
        "threshold": float,
        "thresholds": dict,
        "nested": bool,
        "multi_label": bool,
        "entities_max": int,
        "column": str,
        "types": dict,
    }

    _extractor: Extractor
    _router: Router | None = None

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        self._column = self.options.get("column", "text")
        self._how = How(
            nested=self.options.get("nested", False),
            multi_label=self.options.get("multi_label", False),
            most=self.options.get("entities_max", ENTITIES_MAX),
        )
        if self._how.most < 1:
            raise refuse(f"entities_max is {self._how.most}", "give 1 or more")
        self._wants = Wants(self.options)
        self.reads = (self._column, "type")
        self.writes = {"entities": pa.list_(ENTITY), "entities_truncated": pa.bool_()}
        if any(wanted.fields for wanted in self._wants.all()):
            self.writes["fields"] = string
        if "route" in self.options:
            more = ["language"] if self.options.get("by_language") else []
            self.reads = (*self.reads, "conversation", "id", *more)
            self.writes["entities_route"] = ROUTE
            if "model" in self.options:
                raise refuse("it has a model and a route", "remove one of them")
            self._check_labels((), "its route's models")

    def declare(self, models: Models) -> None:
        if "route" in self.options:
            self._router = models.router(self.options["route"])
            if self._router.task != "entities":
                why = f"{self.options['route']!r} is routed to models for {self._router.task}"
                raise refuse(why, "name a route for entities")

    def open(self, models: Models) -> None:
        if self._router is not None:
            self._router.open()
            self.models = self._router.models
            return
        self._extractor = models.extractor(self.options.get("model"))
        self._try_labels()
        self.models = (self._extractor.ref,)

    def enrich(self, batch: Batch, state: State | None = None) -> Columns:
        texts = [text if text and text.strip() else "" for text in batch.strings(self._column)]
        wanted = [self._wants.of(str(kind)) for kind in batch.strings("type")]
        fixed = () if self._router else self._extractor.labels
        rows = [row for row, text in enumerate(texts) if text and wanted[row].asks(fixed)]
        given = [(texts[row], wanted[row]) for row in rows]
        if self._router is None:
            self._follow()
            return self._columns(wanted, rows, extracted(self._extractor, given, self._how))
        if state is None:
            raise Halt("entities.state", "entities was called without state", "run it in a Plan")
        routed = self._routed(self._router, batch, rows, given, state)
        place = np.full(len(batch), -1)
        place[rows] = np.arange(len(rows))
        route = routed.routes.take(pa.array(place, mask=place < 0))
        return {**self._columns(wanted, rows, routed.answers), "entities_route": route}

    def _routed(
        self,
        router: Router,
        batch: Batch,
        rows: Sequence[int],
        given: Sequence[tuple[str, Wanted]],
        state: State,
    ) -> Routed:
        ids, conversations = batch.strings("id"), batch.strings("conversation")
        known = "language" in self.reads
        languages = batch.strings("language") if known else [None] * len(batch)
        events = [
            Event(conversations[row] or ids[row] or "", len(text), languages[row])
            for row, (text, _) in zip(rows, given, strict=True)
        ]

        def ask(model: Extractor, some: npt.NDArray[np.intp]) -> list[Answered | None]:
            answers = extracted(model, [given[place] for place in some], self._how)
            return [Answered(one, one.said(), one.confidence()) for one in answers]

        found = router.run(events, batch.offsets()[rows].tolist(), ask, state)
        self.models = router.models
        return found

    def _columns(
        self, wanted: Sequence[Wanted], rows: Sequence[int], answers: Sequence[Answer | None]
    ) -> dict[str, pa.Array]:
        """Of the whole batch; ``answers`` are those of ``rows``."""
        of_row = dict(zip(rows, answers, strict=True))
        all_ = [of_row.get(row) for row in range(len(wanted))]
        entities = [answer and [e._asdict() for e in answer.entities] for answer in all_]
        truncated = [answer and answer.truncated for answer in all_]
        columns = {
            "entities": pa.array(entities, self.writes["entities"]),
            "entities_truncated": pa.array(truncated, pa.bool_()),
        }
        if "fields" in self.writes:
            columns["fields"] = pa.array(map(_fields, wanted, all_), string)
        return columns

    def _follow(self) -> None:
        """The model may be another one than for the batch before."""
        if self.models == (self._extractor.ref,):
            return
        try:
            self._try_labels()
        except Refuse as error:
            raise Halt(error.code, error.message, error.fix) from error
        self.models = (self._extractor.ref,)

    def _try_labels(self) -> None:
        """Refuse labels that the model cannot look for, before there is a text."""
        self._check_labels(self._extractor.labels, str(self._extractor.ref))
        for wanted in self._wants.all():
            if wanted.labels:
                self._extractor.extract([], wanted.labels)

    def _check_labels(self, known: Sequence[str], who: str) -> None:
        if not known and not any(wanted.labels for wanted in self._wants.all()):
            raise refuse(
                f"it has no labels, and {who} must be told for what to look",
                'write labels = ["person", "organization"] in [stages.entities]',
            )


def _fields(wanted: Wanted, answer: Answer | None) -> str | None:
    return filled(wanted.fields, answer.entities) if wanted.fields and answer else None
