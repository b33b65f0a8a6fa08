"""How a text feels: by a lexicon's rules, by a head on the embedding, or by a model that reads it.

The lexicon is VADER's: explainable, no training, about 70 % of movie reviews right; it is English,
and any other language gets null rather than a guess.  A head that ``streamapp intents train`` made
of labelled texts is right more often, in every language that the embedder knows.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamapp.plugin import (
    BaseStage,
    Batch,
    Columns,
    ModelRef,
    Models,
    Refuse,
    float32,
    string,
)
from streamapp.plugin.words import groups
from streamapp.stages.probabilities import Trained, way_of

if TYPE_CHECKING:
    from streamapp.plugin.vader import Vader

#: What is said first is judged.
CHARS_MAX = 4000
LANGUAGE = "en"
SOURCE = "lexicon:en"
#: What labels that data sets use are worth.
VALUES: Mapping[str, float] = {
    **dict.fromkeys(("negative", "neg", "very negative", "1 star"), -1.0),
    **dict.fromkeys(("somewhat negative", "2 stars"), -0.5),
    **dict.fromkeys(("neutral", "neu", "mixed", "3 stars"), 0.0),
    **dict.fromkeys(("somewhat positive", "4 stars"), 0.5),
    **dict.fromkeys(("positive", "pos", "very positive", "5 stars"), 1.0),
}


class Sentiment(BaseStage):
    """One number for how a text feels.

    Writes ``sentiment`` (-1 to 1), ``sentiment_confidence`` (0 to 1) and ``sentiment_source``.

    By the lexicon ``sentiment`` is VADER's compound, and the confidence the share of the text's
    weight that is positive or negative: 0 when no word of it is in the lexicon.  By a model it is
    the mean of its labels' values by their probabilities, and the confidence the probability of the
    likeliest label; the source is ``head:NAME`` or ``classifier:NAME``.

    Options: ``head`` or ``classifier``, a model's name; without one the lexicon judges.  ``model``
    (the one that ``embed`` uses).  ``values``: label to -1 to 1, where the labels are not the usual
    ones (``negative``, ``neutral``, ``positive``, ``1 star`` to ``5 stars``).
    """

    name = "sentiment"
    writes: Mapping[str, pa.DataType] = {
        "sentiment": float32,
        "sentiment_confidence": float32,
        "sentiment_source": string,
    }
    accepts: Mapping[str, type] = {"head": str, "classifier": str, "model": str, "values": dict}

    _vader: "Vader"
    _trained: Trained

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        self._way = way_of(self.name, self.options, ("head", "classifier"), "lexicon")
        self._named = _checked(self.options.get("values", {}))
        reads = {"lexicon": ("text", "language"), "head": ("embedding",), "classifier": ("text",)}
        self.reads: Sequence[str] = reads[self._way]

    @property
    def vectors_of(self) -> ModelRef | None:
        return self._trained.vectors_of if self._way != "lexicon" else None

    def declare(self, models: Models) -> None:
        if self._way != "lexicon":
            name = self.options[self._way]
            _values(models.labels(name), self._named, name)

    def open(self, models: Models) -> None:
        if self._way == "lexicon":
            from streamapp.plugin.vader import Vader

            self._vader = Vader()
            return
        self._trained = Trained(self.name, self._way, self.options, models)
        self.models = (self._trained.classifier.ref,)

    def enrich(self, batch: Batch) -> Columns:
        if self._way != "lexicon":
            return self._weighed(batch)
        heard = [
            text[:CHARS_MAX] if text and language == LANGUAGE else None
            for text, language in zip(batch.strings("text"), batch.strings("language"), strict=True)
        ]
        texts = [text for text in heard if text is not None]
        scores = [
            one for first, end in groups(texts) for one in self._vader.judge(texts[first:end])
        ]
        rows = ((one.compound, min(1.0, one.pos + one.neg), SOURCE) for one in scores)
        judged = [(None, None, None) if text is None else next(rows) for text in heard]
        return {
            name: pa.array([row[place] for row in judged], kind)
            for place, (name, kind) in enumerate(self.writes.items())
        }

    def _weighed(self, batch: Batch) -> Columns:
        found = self._trained.probabilities(batch)
        ref, labels = self._trained.classifier.ref, self._trained.classifier.labels
        self.models = (ref,)
        missing = np.isnan(found[:, 0])
        totals = np.maximum(found.sum(axis=1), np.float32(1e-12))  # a sigmoid's do not sum to 1
        values = np.array(_values(labels, self._named, str(ref)), np.float32)
        source = np.full(len(batch), f"{self._way}:{ref.name}", object)
        return {
            "sentiment": pa.array(found @ values / totals, float32, mask=missing),
            "sentiment_confidence": pa.array(found.max(axis=1), float32, mask=missing),
            "sentiment_source": pa.array(source, string, mask=missing),
        }


def _values(labels: Sequence[str], named: Mapping[str, float], model: str) -> list[float]:
    """What each label is worth."""
    known = named or VALUES
    missing = [label for label in labels if _plain(label, known) not in known]
    if missing:
        raise Refuse(
            "stage.option",
            f"stage 'sentiment': label {missing[0]!r} of {model} has no value",
            f"say what labels are worth: values = {{ {missing[0]!r} = -1.0, ... }}",
        )
    return [known[_plain(label, known)] for label in labels]


def _plain(label: str, known: Mapping[str, float]) -> str:
    return label if label in known else label.lower().replace("_", " ")


def _checked(values: Mapping[str, Any]) -> dict[str, float]:
    for label, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value <= 1:
            raise Refuse(
                "stage.option",
                f"stage 'sentiment': the value of {label!r} is {value!r}",
                "give a number from -1 to 1",
            )
    return {label: float(value) for label, value in values.items()}
