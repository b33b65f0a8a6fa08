"""``infer.infer``: what models say of each row's text."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from msgspec import Meta

from streamapp.plugin import ROUTE, BaseOperation, Config, Refuse, Sources, Work, column
from streamapp.services.infer.merging import Answer, merged
from streamapp.services.infer.scoring import Scorer

Share = Annotated[float, Meta(ge=0, le=1)]
Name = Annotated[str, Meta(min_length=1)]

#: Every one of them is asked about every row.
MODELS_MAX = 16


class InferConfig(Config, frozen=True, kw_only=True):
    """Who is asked about which column, and what is written.

    Attributes:
        model: a model, an alias or a route of ``models/routes.toml``, or what ``[models.NAME]`` of
            ``streamapp.toml`` declares; ``models`` in its place is an ensemble of such names.
        ensemble: ``mean`` of all probabilities, or the ``vote`` of the labels.
        weights: of the ensemble's models, in order; equal ones by default.
        text: the column that they read.
        threshold: the least probability of a label; a model's own by default.
        label: the column of the label, null where it is not sure or there is no text.
        probability: the column of its probability, also where it is below the threshold.
        probabilities: a column of every label's probability.
        route: a column of who answered and why; for one ``model`` only.
        key: the column by which routes split rows between models; the text by default.
        batch_rows: how many rows a model gets in one call.
    """

    model: str = ""
    models: Annotated[tuple[Name, ...], Meta(max_length=MODELS_MAX)] = ()
    ensemble: Literal["mean", "vote"] = "mean"
    weights: tuple[Annotated[float, Meta(gt=0)], ...] = ()
    text: Name = "text"
    threshold: Share | None = None
    label: Name = "label"
    probability: Name = "probability"
    probabilities: str = ""
    route: str = ""
    key: str = ""
    batch_rows: Annotated[int, Meta(ge=1, le=65_536)] = 256


class Infer(BaseOperation):
    """Adds the likeliest label of each row and its probability.

    A model is opened through the registry and asked through its route, so that one that fails is
    replaced by the next of its route.  What is measured while it runs changes no choice: the same
    rows get the same labels, however they are cut into chunks.
    """

    Config: ClassVar[type[Config]] = InferConfig
    version = 1
    scope = "row"

    config: InferConfig
    _scorers: Sequence[Scorer] = ()

    def __init__(self, config: InferConfig) -> None:
        super().__init__(config)
        _check(config)

    def schema(
        self,
        inputs: Mapping[str, pa.Schema],
        sources: Sources,  # noqa: ARG002  # the contract's
    ) -> pa.Schema:
        """The input's columns and those that are written.

        Raises:
            Refuse: there is no text to read, or a column would be written twice.
        """
        [(origin, schema)] = inputs.items()
        found = column(schema, self.config.text, origin, "config.text")
        if not _is_text(found.type):
            raise Refuse(
                "operation.type",
                f"config.text: column {found.name!r} of {origin!r} is {found.type}, not text",
                "name a column of strings",
            )
        if self.config.key:
            column(schema, self.config.key, origin, "config.key")
        for key, field in self._written().items():
            if field.name in schema.names:
                raise Refuse(
                    "operation.column",
                    f"config.{key}: {origin!r} has a column {field.name!r} already",
                    f"write {key}: ANOTHER_NAME",
                )
            schema = schema.append(field)
        return schema

    def open(self, work: Work) -> None:
        """Open every model.

        Raises:
            Refuse: one is unknown, not pulled, or gives no labels.
            Retry: its server is away.
        """
        super().open(work)
        names = self.config.models or [self.config.model]
        self._scorers = [Scorer(name, work.models, self.config.threshold) for name in names]

    def run(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        """The rows with their labels.

        Raises:
            Retry: nobody answers now.
            Reject: a model takes none of the inputs.
        """
        [table] = inputs.values()
        written: dict[str, list[Any]] = {key: [] for key in self._written()}
        routes: list[pa.Array] = []
        for first in range(0, table.num_rows, self.config.batch_rows):
            batch = table.slice(first, self.config.batch_rows)
            answers, route = self._answers(batch)
            for key, values in written.items():
                values.extend(self._values(key, answers))
            routes.append(route)
            self.work.advance(batch.num_rows)
        for key, field in self._written().items():
            values = (
                pa.chunked_array(routes, ROUTE)
                if key == "route"
                else pa.array(written[key], field.type)
            )
            table = table.append_column(field, values)
        return table

    def _answers(self, batch: pa.Table) -> tuple[list[Answer | None], pa.Array]:
        texts = [_or_none(text) for text in batch.column(self.config.text).to_pylist()]
        keys = batch.column(self.config.key).to_pylist() if self.config.key else texts
        each = [scorer.score(texts, keys) for scorer in self._scorers]
        if len(each) == 1:
            return each[0].answers, each[0].routes
        weights = self.config.weights or [1.0] * len(each)
        rows = zip(*(scores.answers for scores in each), strict=True)
        return [merged(self.config.ensemble, row, weights) for row in rows], each[0].routes

    def _written(self) -> dict[str, pa.Field]:
        """The columns that are written, by the key that names them."""
        types = {
            "label": pa.string(),
            "probability": pa.float32(),
            "probabilities": pa.map_(pa.string(), pa.float32()),
            "route": ROUTE,
        }
        named = {key: getattr(self.config, key) for key in types}
        return {key: pa.field(name, types[key]) for key, name in named.items() if name}

    def _values(self, key: str, answers: Sequence[Answer | None]) -> list[Any]:
        if key == "label":
            return [self._label(answer) for answer in answers]
        if key == "probability":
            return [answer and answer.confidence for answer in answers]
        if key == "probabilities":
            return [answer and list(answer.shares.items()) for answer in answers]
        return []

    def _label(self, answer: Answer | None) -> str | None:
        """The name, where it is sure enough."""
        least = self.config.threshold or 0.0
        return answer.name if answer is not None and answer.confidence >= least else None


def _check(config: InferConfig) -> None:
    """What types cannot say."""
    written = [config.label, config.probability, config.probabilities, config.route]
    names = [name for name in written if name]
    wrong = {
        "config.model: no model is named": not config.model and not config.models,
        "config.models: there is a config.model, too": bool(config.model and config.models),
        "config.models: it names a model twice": len(set(config.models)) < len(config.models),
        "config.models: an ensemble of one model is none": len(config.models) == 1,
        "config.weights: there are not as many as models": bool(config.weights)
        and len(config.weights) != len(config.models),
        "config.route: an ensemble's models have a route each": bool(
            config.route and config.models
        ),
        f"config.label: {names} names a column twice": len(set(names)) < len(names),
    }
    for why, is_so in wrong.items():
        if is_so:
            fix = "write model: NAME, or models: [NAME, NAME], and each column once"
            raise Refuse("operation.config", why, fix)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _or_none(text: str | None) -> str | None:
    return text if text and text.strip() else None
