"""What a router is told of an event, and what it says of how the event was answered."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

#: Of one row: who answered and why, and the terms of the score (see ``models.routing.score``).
#: ``model`` is null where nobody did; ``arm`` is the conversation's in an experiment; ``epoch`` is
#: the number of what the choice was made by; ``shadow`` is what ``shadow_model`` would have said.
ROUTE = pa.struct(
    [
        pa.field("route", pa.string()),
        pa.field("model", pa.string()),
        pa.field("why", pa.string()),
        pa.field("arm", pa.string()),
        pa.field("epoch", pa.int64()),
        pa.field("score", pa.float32()),
        pa.field("performance", pa.float32()),
        pa.field("accuracy", pa.float32()),
        pa.field("compatibility", pa.float32()),
        pa.field("latency", pa.float32()),
        pa.field("shadow_model", pa.string()),
        pa.field("shadow", pa.string()),
        pa.field("shadow_confidence", pa.float32()),
    ]
)


class Event(NamedTuple):
    """What the choice of a model may depend on.

    ``key`` is the conversation, or the id of an event without one; ``chars`` the length of its
    text; ``language`` its ISO 639-1 code, None where it is not known.
    """

    key: str
    chars: int = 0
    language: str | None = None


class Answered(NamedTuple):
    """A model's answer about one event, and as text and confidence, as a shadow's is kept."""

    value: Any
    text: str
    confidence: float | None = None


class Routed(NamedTuple):
    """The answers to a batch, None where there is none, and the column of type ``ROUTE``."""

    answers: Sequence[Any]
    routes: pa.Array
