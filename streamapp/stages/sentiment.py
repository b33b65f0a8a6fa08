"""How a text feels, by the rules and the lexicon of VADER (Hutto & Gilbert, ICWSM 2014).

Rules are explainable and need no training; they get about 70 % of movie reviews right.  The lexicon
is English: any other language gets null rather than a guess.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from streamapp.plugin import BaseStage, Batch, Columns, Models, float32, string

if TYPE_CHECKING:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

#: VADER takes time with the square of the words; what is said first is judged.
CHARS_MAX = 4000
LANGUAGE = "en"
SOURCE = "lexicon:en"


class Sentiment(BaseStage):
    """VADER's judgement.

    Writes ``sentiment`` (-1 to 1, VADER's compound), ``sentiment_confidence`` (0 to 1) and
    ``sentiment_source``.  The confidence is the share of the text's weight that is positive or
    negative: 0 when no word of it is in the lexicon.
    """

    name = "sentiment"
    reads = ("text", "language")
    writes: Mapping[str, pa.DataType] = {
        "sentiment": float32,
        "sentiment_confidence": float32,
        "sentiment_source": string,
    }
    accepts: Mapping[str, type] = {}

    _analyser: "SentimentIntensityAnalyzer"

    def open(self, models: Models) -> None:  # noqa: ARG002  # the contract's
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        self._analyser = SentimentIntensityAnalyzer()

    def enrich(self, batch: Batch) -> Columns:
        judged = [
            self._judge(text) if text and language == LANGUAGE else (None, None, None)
            for text, language in zip(batch.strings("text"), batch.strings("language"), strict=True)
        ]
        return {
            name: pa.array([row[place] for row in judged], kind)
            for place, (name, kind) in enumerate(self.writes.items())
        }

    def _judge(self, text: str) -> tuple[float, float, str]:
        scores = self._analyser.polarity_scores(text[:CHARS_MAX])
        return scores["compound"], min(1.0, scores["pos"] + scores["neg"]), SOURCE
