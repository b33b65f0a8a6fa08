"""The router of one route: choices made, models asked, fallbacks taken."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamapp.core.clock import SYSTEM, Clock
from streamapp.core.errors import Halt, Reject, Retry, StreamappError
from streamapp.core.model import ModelRef
from streamapp.core.route import ROUTE, Answered, Event, Routed
from streamapp.models.beside import Beside
from streamapp.models.routing.answers import MERGES
from streamapp.models.routing.epoch import Epoch
from streamapp.models.routing.score import Choice, Chooser
from streamapp.models.routing.spec import RouteSpec
from streamapp.models.routing.standing import Remembered, Source, Standing

#: Asks a model about some rows of the batch: one answer each, None for none.
Ask = Callable[[Any, npt.NDArray[np.intp]], Sequence[Answered | None]]
#: Told of answers: the route, who gave them, why it was that one, and how many.  Of a shadow:
#: which, whether it was ``compared`` or ``missed``, and how many events.
OnAnswer = Callable[[str, str, str, int], None]

_log = logging.getLogger("streamapp.models")


class _Row(NamedTuple):
    """How a row was answered, and by which candidates."""

    answer: Answered | None
    by: tuple[str, ...]
    why: str


class Router:
    """Answers batches by the models of a route; one call at a time.

    One serves all source partitions: what is measured is measured for all, what was chosen by is
    remembered for each.

    Args:
        name: of the route.
        source: of its declaration and its models.
        clock: for latencies, cool-downs and how often epochs change.
        on_answer: told of every answer.
        on_shadow: told of every event that the shadow is asked about.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        clock: Clock = SYSTEM,
        on_answer: OnAnswer | None = None,
        on_shadow: OnAnswer | None = None,
    ) -> None:
        self.name = name
        self._clock = clock
        self._on_answer, self._on_shadow = on_answer, on_shadow
        self._standing = Standing(name, source, clock)
        self._beside: Beside[Sequence[Answered | None]] = Beside(
            f"route {name}: its shadow",
            "lower shadow_percent, or declare a longer shadow_wait_ms_max",
            clock,
        )

    @property
    def spec(self) -> RouteSpec:
        """The route as it was declared when the last batch began."""
        return self._standing.spec

    @property
    def task(self) -> str:
        """What its models are for."""
        return self.spec.task

    @property
    def candidates(self) -> tuple[str, ...]:
        """The models that may answer, as the route names them."""
        return tuple(self.spec.models)

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """Who may have answered the last batch."""
        return tuple(dict.fromkeys(model.ref for model in self._standing.models.values()))

    def open(self) -> None:
        """Open every model.

        Raises:
            Refuse: one is unknown, not pulled, or not what its manifest says.
        """
        self._standing.refresh()

    def run(
        self, events: Sequence[Event], offsets: Sequence[int], ask: Ask, state: Remembered
    ) -> Routed:
        """Answer every event by the model that its epoch chooses, or one that it falls back to.

        Args:
            events: of the batch's rows.
            offsets: their source offsets, rising.
            ask: asks one model about some of them; an ensemble's answers are ``answers.Label``.
            state: the stage's; one key of the kind ``epochs``.

        Raises:
            Retry: nobody answers some of them now, and the route waits.
            Reject: from a model; or every model failed at a row.
            Halt: from a model.
        """
        if not events:
            return Routed([], pa.array([], ROUTE))
        self._standing.refresh()
        epochs = self._standing.begun(offsets[0], state)
        ruling = [epochs.at(offset) for offset in offsets]
        distinct = {epoch.number: epoch for epoch in ruling}
        choosers = {number: Chooser(epoch) for number, epoch in distinct.items()}
        pairs = zip(ruling, events, strict=True)
        choices = [choosers[epoch.number].choose(event) for epoch, event in pairs]
        answered = self._together if self.spec.ensemble else self._one_by_one
        shadowed = [row for row, choice in enumerate(choices) if choice.shadow]
        asked, started_s = self._shadow_asked(shadowed, ask), self._clock.monotonic_s()
        rows = answered(choices, ask)
        wait_s = self.spec.shadow_wait_s(self._clock.monotonic_s() - started_s)
        shadows = self._shadowed(shadowed, wait_s if asked else None)
        self._standing.measured(epochs, offsets[-1], state)
        self._tell(rows)
        columns = zip(ruling, choices, rows, strict=True)
        routes = [self._route(*each, shadows.get(at)) for at, each in enumerate(columns)]
        values = [row.answer.value if row.answer is not None else None for row in rows]
        return Routed(values, pa.array(routes, ROUTE))

    def _one_by_one(self, choices: Sequence[Choice], ask: Ask) -> list[_Row]:
        """Each row by the first of its candidates that answers; one call for all rows of one."""
        found: list[_Row | None] = [None] * len(choices)
        tried = [0] * len(choices)
        waiting = list(range(len(choices)))
        while waiting:
            groups: dict[str, list[int]] = {}
            for row in waiting:
                order = choices[row].order
                if tried[row] < len(order):
                    groups.setdefault(order[tried[row]], []).append(row)
                else:
                    found[row] = self._none(choices[row])
            waiting = []
            for name, rows in groups.items():
                answers = self._asked(name, rows, ask)
                for row, answer in zip(rows, answers or (), strict=False):
                    found[row] = _Row(
                        answer, (name,), "fallback" if tried[row] else choices[row].why
                    )
                if answers is None:
                    waiting += rows
                    for row in rows:
                        tried[row] += 1
        return [row for row in found if row is not None]

    def _together(self, choices: Sequence[Choice], ask: Ask) -> list[_Row]:
        """Every candidate's answer about the rows that it is meant for, made one."""
        given: list[dict[str, Answered]] = [{} for _ in choices]
        silent: list[set[str]] = [set(choice.order) for choice in choices]
        for name in self.spec.models:
            rows = [row for row, choice in enumerate(choices) if name in choice.order]
            answers = self._asked(name, rows, ask) if rows else None
            for row, answer in zip(rows, answers or (), strict=False):
                silent[row].discard(name)
                if answer is not None:
                    given[row][name] = answer
        found = []
        for choice, answers_, failed in zip(choices, given, silent, strict=True):
            if len(failed) == len(choice.order):
                found.append(self._none(choice))
            else:
                found.append(self._merged(answers_))
        return found

    def _merged(self, answers: Mapping[str, Answered]) -> _Row:
        if not answers:
            return _Row(None, (), "ensemble")
        merge = MERGES[self.spec.ensemble]
        label = merge([answer.value for answer in answers.values()])
        return _Row(Answered(label, label.name, label.confidence), tuple(answers), "ensemble")

    def _none(self, choice: Choice) -> _Row:
        """A row that nobody answered.

        Raises:
            Retry: somebody who is away may, later.
            Reject: nobody will.
        """
        if not choice.order or self.spec.exhausted == "null":
            return _Row(None, (), "exhausted" if choice.order else "none")
        errors = {name: self._standing.health[name].error for name in choice.order}
        said = "; ".join(f"{name}: {_said(error)}" for name, error in errors.items())
        kind = Retry if any(isinstance(each, Retry) for each in errors.values()) else Reject
        raise kind(
            "models.route_exhausted",
            f"route {self.name}: nobody answers ({said})",
            'mend one of its models, or set exhausted = "null" to go on without an answer',
        )

    def _asked(self, name: str, rows: Sequence[int], ask: Ask) -> Sequence[Answered | None] | None:
        """A model's answers; None when it fails, or failed lately."""
        health = self._standing.health[name]
        if not health.is_up:
            return None
        started_s = self._clock.monotonic_s()
        try:
            answers = ask(self._standing.models[name], np.array(rows, np.intp))
        except (Reject, Halt):
            raise
        except Exception as error:  # noqa: BLE001  # whatever a model raises: the next is asked
            health.failed(error)
            _log.warning("route %s: %s failed: %s", self.name, name, _said(error))
            return None
        health.answered(len(rows), self._clock.monotonic_s() - started_s)
        return answers

    def _shadow_asked(self, rows: Sequence[int], ask: Ask) -> bool:
        """Whether the shadow is being asked about some rows, beside those that answer."""
        name = self.spec.shadow
        model = self._standing.models.get(name)
        if not rows or model is None:
            return False
        places = np.array(rows, np.intp)
        return self._beside.ask(lambda: ask(model, places), len(rows), self._standing.health[name])

    def _shadowed(self, rows: Sequence[int], wait_s: float | None) -> dict[int, Answered]:
        """The shadow's answers by row, as many as there are in this time; None: it is not asked."""
        found = (None if wait_s is None else self._beside.answer(wait_s)) or ()
        answers = {
            row: answer for row, answer in zip(rows, found, strict=False) if answer is not None
        }
        if self._on_shadow is not None and rows:
            name, compared = self.spec.shadow, len(answers)
            self._on_shadow(self.name, name, "compared", compared)
            self._on_shadow(self.name, name, "missed", len(rows) - compared)
        return answers

    def _tell(self, rows: Iterable[_Row]) -> None:
        counts: dict[tuple[str, str], int] = {}
        for row in rows:
            key = "+".join(row.by), row.why
            counts[key] = counts.get(key, 0) + 1
        for (by, why), count in counts.items():
            if self._on_answer is not None:
                self._on_answer(self.name, by, why, count)

    def _route(
        self, epoch: Epoch, choice: Choice, row: _Row, shadow: Answered | None
    ) -> dict[str, Any]:
        """The row of the column; one that the shadow missed says which shadow that was."""
        known = {each.name: each.model for each in epoch.candidates}
        told: dict[str, Any] = {
            "route": self.name,
            "model": "+".join(known[name] for name in row.by) or None,
            "why": row.why,
            "arm": choice.arm or None,
            "epoch": epoch.number,
        }
        if len(row.by) == 1:
            terms = next(each for each in choice.terms if each.name == row.by[0])
            told |= {name: getattr(terms, name) for name in _TERMS}
        if choice.shadow and epoch.shadow is not None:
            told["shadow_model"] = epoch.shadow.model
        if shadow is not None:
            told |= {"shadow": shadow.text, "shadow_confidence": shadow.confidence}
        return told


_TERMS = ("score", "performance", "accuracy", "compatibility", "latency")


def _said(error: Exception | None) -> str:
    if isinstance(error, StreamappError):
        return error.message
    return f"{type(error).__name__}: {error}" if error else "it cools down"
