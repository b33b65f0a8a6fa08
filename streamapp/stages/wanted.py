"""What the stage ``entities`` looks for in events of each type, and how it asks a model for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from streamapp.plugin import Entity, Extractor
from streamapp.stages.fields import Field, read_fields, refuse

_TAKES = ("labels", "threshold", "thresholds", "fields")
#: Types come from outside: so many are remembered.
_TYPES_MAX = 1024


class Wanted:
    """What is looked for in events of one type.

    Args:
        given: the table of options; ``labels``, ``threshold``, ``thresholds``, ``fields``.
        rest: the options that hold for every type, where this one says nothing.
        where: the table's name, for messages.

    Raises:
        Refuse: a value cannot be used.
    """

    def __init__(self, given: Mapping[str, Any], rest: Mapping[str, Any], where: str) -> None:
        self.fields: dict[str, Field] = read_fields(given.get("fields", {}), f"{where}.fields")
        named = given.get("labels", [] if self.fields else rest.get("labels", []))
        if not isinstance(named, list) or not all(isinstance(one, str) and one for one in named):
            raise refuse(f"{where}.labels is {named!r}", "give a list of words")
        of_fields = (field.label for field in self.fields.values())
        self.labels = tuple(dict.fromkeys([*named, *of_fields]))
        self.threshold = self._thresholds(given, rest, where)
        self._says_none = given.get("labels") == [] and not self.labels

    def asks(self, fixed: Sequence[str]) -> bool:
        """Whether a model is asked: for labels, or, where its own are ``fixed``, for all those."""
        return bool(self.labels or (fixed and not self._says_none))

    def _thresholds(
        self, given: Mapping[str, Any], rest: Mapping[str, Any], where: str
    ) -> float | dict[str, float] | None:
        """One for all labels, or one for each where some have their own; None: the model's."""
        for_all = given.get("threshold", rest.get("threshold"))
        each = {**rest.get("thresholds", {}), **given.get("thresholds", {})}
        for value in (*each.values(), *([] if for_all is None else [for_all])):
            if type(value) not in {float, int} or not 0 <= value <= 1:
                raise refuse(f"{where}: threshold {value!r}", "give a number from 0 to 1")
        if not each:
            return None if for_all is None else float(for_all)
        known = {label: float(each[label]) for label in self.labels if label in each}
        if for_all is None:
            return known
        return {label: known.get(label, float(for_all)) for label in self.labels}


class Wants:
    """What is looked for in events of every type, from the stage's options."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._rest = Wanted(options, {}, "[stages.entities]")
        self._types = {
            name: _of_table(name, given, options)
            for name, given in options.get("types", {}).items()
        }
        self._known: dict[str, Wanted] = {}

    def all(self) -> list[Wanted]:
        """Everything that may be looked for."""
        return [self._rest, *self._types.values()]

    def of(self, kind: str) -> Wanted:
        """For events of a type: its own table, else the first that it matches, else the rest."""
        known = self._known.get(kind)
        if known is None:
            match = (one for name, one in self._types.items() if fnmatchcase(kind, name))
            known = self._types.get(kind) or next(match, self._rest)
            if len(self._known) < _TYPES_MAX:
                self._known[kind] = known
        return known


@dataclass(frozen=True, slots=True)
class How:
    """What holds for every text: at most ``most`` entities, the surest."""

    nested: bool
    multi_label: bool
    most: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found in a text; ``truncated``: not all of it was read, or not all is kept."""

    entities: list[Entity]
    truncated: bool

    def said(self) -> str:
        """As text, by which two models' answers are compared."""
        return " ".join(f"{e.start}-{e.end}:{e.label}" for e in self.entities)

    def confidence(self) -> float | None:
        """The mean score; None when nothing was found."""
        scores = [entity.score for entity in self.entities]
        return sum(scores) / len(scores) if scores else None


def extracted(model: Extractor, given: Sequence[tuple[str, Wanted]], how: How) -> list[Answer]:
    """Ask a model: one call for all texts in which the same is looked for.

    Raises:
        Refuse: it cannot look for a label.
    """
    answers: dict[int, Answer] = {}
    for wanted in dict.fromkeys(wanted for _, wanted in given):
        places = [place for place, (_, one) in enumerate(given) if one is wanted]
        found, cut = model.extract(
            [given[place][0] for place in places],
            wanted.labels,
            threshold=wanted.threshold,
            flat=not how.nested,
            multi_label=how.multi_label,
        )
        for place, entities, was_cut in zip(places, found, cut, strict=True):
            truncated = bool(was_cut) or len(entities) > how.most
            answers[place] = Answer(_surest(entities, how.most), truncated)
    return [answers[place] for place in range(len(given))]


def _of_table(name: str, given: Any, options: Mapping[str, Any]) -> Wanted:
    where = f"[stages.entities.types.{name}]"
    if not isinstance(given, dict):
        raise refuse(f"{where} is {given!r}", f"it takes {', '.join(_TAKES)}")
    for key in given:
        if key not in _TAKES:
            raise refuse(f"{where} has no key {key!r}", f"it takes {', '.join(_TAKES)}")
    return Wanted(given, options, where)


def _surest(entities: list[Entity], most: int) -> list[Entity]:
    """The ``most`` entities of the highest scores, in the order of the text."""
    if len(entities) <= most:
        return entities
    order = sorted(range(len(entities)), key=lambda place: -entities[place].score)[:most]
    return [entities[place] for place in sorted(order)]
