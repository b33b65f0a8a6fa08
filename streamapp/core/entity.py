"""Entity: a piece of a text and what it is."""

from typing import NamedTuple


class Entity(NamedTuple):
    """``text[start:end]`` in characters, its label, and how sure the model is, 0 to 1."""

    start: int
    end: int
    text: str
    label: str
    score: float
