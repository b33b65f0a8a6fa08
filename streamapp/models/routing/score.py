"""S = alpha P + beta A + gamma C + delta L, per candidate and event, and the choice it leads to.

- P, performance: texts per second, of the fastest candidate's.
- A, accuracy: measured, 0 to 1.
- C, compatibility: 1 for a model made for the event's language, 0.5 for one of any language or an
  event whose language is not known.  It is a gate before it is a term: a model that does not speak
  the language, that the text is too long for, that cools down or was taken out is not chosen at any
  score.
- L, latency: 1 - p95 / deadline, at least -1.

What was not measured counts 0, as the worst does.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from streamapp.core.route import Event
from streamapp.models.routing.epoch import Candidate, Epoch
from streamapp.models.routing.sticky import arm_of, place_of

ANY = "*"
#: The gate of a model that failed: it is asked when nobody else is left.
COOLING = "cooling down"
#: Characters of a token, for a text's length before it is tokenised: few, so that it does fit.
CHARS_PER_TOKEN = 3


class Terms(NamedTuple):
    """A candidate's score for an event; ``gate`` says why it cannot be chosen, "" that it can."""

    name: str
    gate: str
    performance: float
    accuracy: float
    compatibility: float
    latency: float
    score: float


class Choice(NamedTuple):
    """What an event gets.

    ``order`` are the candidates that may answer, the chosen one first, then by falling score, those
    that cool down last.  ``why`` it is that one: ``score``, ``split`` (the conversation's arm),
    ``ensemble``, ``truncated`` (too long for all: the one that takes the most sees its beginning),
    or ``none`` when the gate is closed to all.  ``terms`` has every candidate's, in
    declared order.  ``arm`` is the conversation's in the split, "" outside of it.  ``shadow`` says
    whether the epoch's shadow is asked, too.
    """

    order: tuple[str, ...]
    why: str
    terms: tuple[Terms, ...]
    arm: str
    shadow: bool


class Chooser:
    """Choices under one epoch; scores are computed once for events that cannot differ in them."""

    def __init__(self, epoch: Epoch) -> None:
        self._epoch = epoch
        known = [*epoch.candidates, *([epoch.shadow] if epoch.shadow else [])]
        self._widths = sorted({each.chars_max for each in known if each.chars_max})
        self._shares = dict(epoch.shares)
        self._ranked: dict[tuple[str | None, int], _Ranked] = {}

    def choose(self, event: Event) -> Choice:
        """Which models answer."""
        alike = event.language, bisect_left(self._widths, event.chars)
        ranked = self._ranked.get(alike)
        if ranked is None:
            ranked = self._ranked[alike] = _rank(self._epoch, event)
        order, why = ranked.order, ranked.why
        arm = arm_of(place_of(event.key, self._epoch.salt), self._shares) if self._shares else ""
        if arm in ranked.open:
            order = (arm, *(name for name in order if name != arm))
            why = "split"
        return Choice(order, why, ranked.terms, arm, ranked.shadow and self._is_shadowed(event))

    def _is_shadowed(self, event: Event) -> bool:
        """Whether the shadow is asked about a conversation; those are not the split's."""
        percent = self._epoch.shadow_percent
        return percent >= 100 or place_of(event.key, f"{self._epoch.salt}\0shadow") * 100 < percent


def choose(epoch: Epoch, event: Event) -> Choice:
    """Which models answer.  The same for the same epoch and event, anywhere and at any time."""
    return Chooser(epoch).choose(event)


class _Ranked(NamedTuple):
    """What events of one language and width have in common."""

    order: tuple[str, ...]
    open: frozenset[str]
    why: str
    terms: tuple[Terms, ...]
    shadow: bool


def _rank(epoch: Epoch, event: Event) -> _Ranked:
    scored = terms(epoch, event)
    by_score = sorted(scored, key=lambda each: -each.score)  # stable: equals as they are declared
    order = [each.name for each in by_score if not each.gate]
    open_ = frozenset(order)
    why = "ensemble" if epoch.ensemble else "score"
    order += [each.name for each in by_score if each.gate == COOLING]
    if not order and (widest := _widest(epoch, event)):
        order, why = [widest], "truncated"
    shadow = epoch.shadow is not None and not gate(epoch.shadow, event)
    return _Ranked(tuple(order), open_, why if order else "none", scored, shadow)


def terms(epoch: Epoch, event: Event) -> tuple[Terms, ...]:
    """Every candidate's score, in declared order."""
    fastest = max((each.texts_per_s or 0.0 for each in epoch.candidates), default=0.0)
    return tuple(_terms(epoch, each, event, fastest) for each in epoch.candidates)


def gate(candidate: Candidate, event: Event) -> str:
    """Why a model cannot be asked about an event; "" when it can."""
    if candidate.out:
        return candidate.out
    if event.language and not _speaks(candidate.languages, event.language):
        return f"language {event.language}, it speaks {', '.join(candidate.languages)}"
    if candidate.chars_max and event.chars > candidate.chars_max:
        return f"text longer than {candidate.chars_max} characters"
    return "" if candidate.up else COOLING


def _terms(epoch: Epoch, candidate: Candidate, event: Event, fastest: float) -> Terms:
    performance = (candidate.texts_per_s or 0.0) / fastest if fastest else 0.0
    accuracy = candidate.accuracy or 0.0
    closed = gate(candidate, event)
    made_for_it = event.language is not None and event.language in candidate.languages
    compatibility = 0.0 if closed else 1.0 if made_for_it else 0.5
    late = candidate.p95_ms
    latency = 0.0 if late is None else max(-1.0, 1 - late / epoch.deadline_ms)
    alpha, beta, gamma, delta = epoch.weights
    score = alpha * performance + beta * accuracy + gamma * compatibility + delta * latency
    return Terms(candidate.name, closed, performance, accuracy, compatibility, latency, score)


def _widest(epoch: Epoch, event: Event) -> str:
    """The candidate that sees most of a text that is too long for all; "" without any."""
    short = event._replace(chars=0)
    may = [each for each in epoch.candidates if gate(each, short) in {"", COOLING}]
    return max(may, key=lambda each: each.chars_max).name if may else ""


def _speaks(languages: Sequence[str], language: str) -> bool:
    return not languages or ANY in languages or language in languages
