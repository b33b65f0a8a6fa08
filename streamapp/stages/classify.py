"""Labels of a text by any classifiers, each chosen per event by a route.

A column names a route of ``models/routes.toml``, or a model.  What made each answer stands beside
it: the model, why it was that one, and the terms of its score.
"""

from collections.abc import Mapping, Sequence
from typing import Any

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
    Writes,
    float32,
    string,
)
from streamapp.stages.routing import READS, LabelRoute

_FIX = 'write [stages.classify.columns] topic = "ROUTE or MODEL"'


class Classify(StatefulStage):
    """Labels by routes.

    Writes for each COLUMN of the option ``columns`` (column to route or model): ``COLUMN``, the
    label, ``unknown`` where the classifier is not sure; ``COLUMN_confidence``; ``COLUMN_route``, a
    struct of who answered and why.  Null where a row has no text, or no model may take it.

    It reads ``embedding`` when a route's models are heads (trained on vectors of the option
    ``model``, the workflow's embedder), and ``language`` when the option ``by_language`` is true:
    a model is then asked about languages that it speaks only.
    """

    name = "classify"
    accepts: Mapping[str, type] = {"columns": dict, "by_language": bool, "model": str}

    _routes: Mapping[str, LabelRoute]

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        self._columns = self.options.get("columns", {})
        if not self._columns or not all(isinstance(v, str) for v in self._columns.values()):
            raise Refuse("stage.option", "stage 'classify' has no columns of routes", _FIX)
        written = [name.lower() for column in self._columns for name in _writes(column)]
        if "" in self._columns or len(set(written)) < len(written):
            what = f"stage 'classify' would write {', '.join(map(repr, written))}"
            raise Refuse("stage.option", what, "give each column a name of its own")
        self._routes = {}
        self.reads: Sequence[str] = READS
        self.writes: Writes = {}

    @property
    def vectors_of(self) -> ModelRef | None:
        refs = (route.vectors_of for route in self._routes.values())
        return next((ref for ref in refs if ref is not None), None)

    def declare(self, models: Models) -> None:
        model, by_language = self.options.get("model"), self.options.get("by_language", False)
        self._routes = {
            column: LabelRoute(self.name, name, models, model, by_language=by_language)
            for column, name in self._columns.items()
        }
        self.reads = tuple(dict.fromkeys(c for one in self._routes.values() for c in one.reads))
        self.writes = {
            name: kind for column in self._columns for name, kind in _writes(column).items()
        }

    def open(self, models: Models) -> None:
        for route in self._routes.values():
            route.open(models)
        self._follow()

    def enrich(self, batch: Batch, state: State | None = None) -> Columns:
        if state is None:
            raise Halt("classify.state", "classify was called without state", "run it in a Plan")
        columns: dict[str, pa.Array] = {}
        for column, route in self._routes.items():
            found = route.answer(batch, state)
            names = [None if each is None else each.name for each in found.answers]
            sure = [None if each is None else each.confidence for each in found.answers]
            columns[column] = pa.array(names, string)
            columns[f"{column}_confidence"] = pa.array(sure, float32)
            columns[f"{column}_route"] = found.routes
        self._follow()
        return columns

    def _follow(self) -> None:
        """Who may have answered is another one when a name leads elsewhere."""
        refs = (ref for route in self._routes.values() for ref in route.refs)
        self.models = tuple(dict.fromkeys(refs))


def _writes(column: str) -> dict[str, pa.DataType]:
    return {column: string, f"{column}_confidence": float32, f"{column}_route": ROUTE}
