"""Epochs: what choices depend on beside the event, as plain data that goes into the log."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

#: Epochs of one value: those that ruled last, the one that rules, and those that will.
EPOCHS_MAX = 32


class Candidate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model as it stands in an epoch.

    ``name`` is the one that the route knows it by, an alias perhaps; ``model`` what that means,
    ``task/name@version``; ``sha256`` the first twelve digits of its main file's.  ``up`` is false
    while it cools down; ``out`` says why it was taken out of the route for good.
    """

    name: str
    model: str
    sha256: str
    texts_per_s: float | None = None
    accuracy: float | None = None
    p95_ms: float | None = None
    languages: list[str] = []
    chars_max: int = 0
    up: bool = True
    out: str = ""


class Epoch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that a choice needs.

    ``number`` counts from 1 in a source partition; ``first`` is the source offset from which it
    rules.  ``weights`` are alpha to delta; ``shares`` are pairs of candidate and percent, in order.
    """

    number: int
    first: int
    candidates: list[Candidate]
    weights: tuple[float, float, float, float]
    deadline_ms: float
    salt: str
    shares: list[tuple[str, float]] = []
    shadow: Candidate | None = None
    shadow_percent: float = 100.0
    ensemble: str = ""

    @property
    def declared(self) -> str:
        """A digest of all that was not measured."""
        fixed = msgspec.structs.replace(
            self,
            number=0,
            first=0,
            candidates=[_unmeasured(each) for each in self.candidates],
            shadow=_unmeasured(self.shadow) if self.shadow else None,
        )
        return hashlib.sha256(msgspec.json.encode(fixed)).hexdigest()

    def begun(self, first: int, before: "Epoch | None") -> "Epoch":
        """This one from an offset on, with what the one before knew of the same models."""
        if before is None:
            return msgspec.structs.replace(self, number=1, first=first)
        known = {(each.name, each.sha256): each for each in before.candidates}
        candidates = [_as_before(each, known) for each in self.candidates]
        number = before.number + 1
        return msgspec.structs.replace(self, number=number, first=first, candidates=candidates)

    def says_the_same_as(self, other: "Epoch") -> bool:
        """Whether every choice is the same under both."""
        return msgspec.structs.replace(self, number=other.number, first=other.first) == other


class Epochs:
    """The epochs of one route in one source partition, the oldest first.

    They are one value of a stage's state: the epoch that rules now, some before it, and any that
    were measured and begin to rule later.
    """

    def __init__(self, epochs: Sequence[Epoch] = ()) -> None:
        self._epochs = list(epochs)

    @classmethod
    def of(cls, value: Any) -> "Epochs":
        """From what ``plain`` gave, or None for none."""
        return cls(msgspec.convert(value or [], list[Epoch], strict=False))

    def plain(self) -> list[dict[str, Any]]:
        """As plain data."""
        return [msgspec.to_builtins(epoch) for epoch in self._epochs]

    def __len__(self) -> int:
        return len(self._epochs)

    @property
    def newest(self) -> Epoch:
        """The last that was made; it may not rule yet."""
        return self._epochs[-1]

    def at(self, offset: int) -> Epoch:
        """The one that rules an event; there must be one."""
        found = [epoch for epoch in self._epochs if epoch.first <= offset]
        return max(found, key=lambda epoch: (epoch.first, epoch.number))

    def has(self, offset: int) -> bool:
        """Whether any rules it."""
        return any(epoch.first <= offset for epoch in self._epochs)

    def with_(self, epoch: Epoch) -> "Epochs":
        """With one more; those that were to begin at its offset or later never do.

        Earlier ones stay for a while: a batch may be run in parts, and its record has one value.
        """
        kept = [each for each in self._epochs if each.first < epoch.first]
        return Epochs([*kept, epoch][-EPOCHS_MAX:])


def _unmeasured(candidate: Candidate) -> Candidate:
    return msgspec.structs.replace(candidate, p95_ms=None, up=True, out="")


def _as_before(candidate: Candidate, known: Mapping[tuple[str, str], Candidate]) -> Candidate:
    last = known.get((candidate.name, candidate.sha256))
    if last is None:
        return candidate
    return msgspec.structs.replace(candidate, p95_ms=last.p95_ms, up=last.up, out=last.out)
