"""``[route.NAME]`` of ``models/routes.toml``: candidates for one task, and how one is chosen."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from streamapp.core.errors import Refuse

Percent = Annotated[float, Meta(ge=0, le=100)]
Share = Annotated[float, Meta(ge=0, le=1)]
#: No infinity: it makes scores that are no numbers, and state that cannot be read again.
NUMBER_MAX = 1e9
NotNegative = Annotated[float, Meta(ge=0, le=NUMBER_MAX)]
Above0 = Annotated[float, Meta(gt=0, le=NUMBER_MAX)]
Positive = Annotated[int, Meta(ge=1, le=2**31)]
#: Of a batch for a shadow: no allowance makes a server that hangs worth it.
WAIT_MS_MAX = 60_000
WaitMs = Annotated[float, Meta(ge=0, le=WAIT_MS_MAX)]
#: The least for a shadow where nothing is declared: the answers to one event are soon there.
WAIT_MS_MIN = 250.0
#: Calls of a model that are remembered; a guard judges by no more.
CALLS_KEPT = 256

#: Each of them is asked about every event that it is meant for.
MODELS_MAX = 16


class Weights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the score S = alpha P + beta A + gamma C + delta L."""

    alpha: NotNegative = 0.2
    beta: NotNegative = 0.4
    gamma: NotNegative = 0.2
    delta: NotNegative = 0.2


class Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said of a candidate here instead of in its manifest.

    ``texts_per_s``, ``accuracy`` (0 to 1) and ``p95_ms`` (of one event) as measured elsewhere;
    ``languages`` that it is good at; ``chars_max``, the longest text that it is asked about.
    """

    texts_per_s: NotNegative | None = None
    accuracy: Share | None = None
    p95_ms: NotNegative | None = None
    languages: list[str] | None = None
    chars_max: Positive | None = None


class Canary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``percent`` of the conversations are answered by ``model``."""

    model: str
    percent: Percent


class Guard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a candidate of an experiment is taken out, after at least ``calls_min`` calls.

    ``error_rate_max``: share of its last calls that failed; ``p95_ms_max``: of one event.
    """

    error_rate_max: Share = 0.1
    p95_ms_max: NotNegative | None = None
    calls_min: Annotated[int, Meta(ge=1, le=CALLS_KEPT)] = 20


class RouteSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A route.

    ``models``: names or aliases; where scores are equal the first wins.  ``deadline_ms``: what one
    event may take.  ``split``: model to percent of the conversations; what is left is decided by
    score.  ``canary`` is such a split of one.  ``shadow``: a model that is asked, too, about
    ``shadow_percent`` of the conversations, and answers nobody; a batch that has its answers waits
    ``shadow_wait_ms_max`` for it (see ``shadow_wait_s``).  ``ensemble``: all candidates answer, and
    ``vote`` or ``mean`` makes one answer.  A model that fails ``failures_max`` times in a row is
    left alone for ``cool_down_s``.  When all have failed: ``exhausted`` = ``wait``
    keeps the events until one answers, ``null`` goes on without.  What was measured rules from
    ``ahead_events`` source offsets on, so that it is in the log by then.
    """

    task: Literal["classify", "head", "entities"]
    models: Annotated[list[str], Meta(min_length=1, max_length=MODELS_MAX)]
    about: str = ""
    weights: Weights = Weights()
    facts: dict[str, Facts] = {}
    deadline_ms: Above0 = 50.0
    split: dict[str, Percent] = {}
    canary: Canary | None = None
    shadow: str = ""
    shadow_percent: Percent = 100.0
    shadow_wait_ms_max: WaitMs | None = None
    ensemble: Literal["", "vote", "mean"] = ""
    guard: Guard | None = None
    failures_max: Positive = 3
    cool_down_s: Above0 = 30.0
    exhausted: Literal["wait", "null"] = "wait"
    ahead_events: Annotated[int, Meta(ge=0, le=2**31)] = 2048
    salt: str = ""

    @property
    def shares(self) -> dict[str, float]:
        """Model to its percent of the conversations, of the split or the canary."""
        return {self.canary.model: self.canary.percent} if self.canary else dict(self.split)

    def shadow_wait_s(self, answers_s: float) -> float:
        """Seconds that a batch waits for the shadow; undeclared: as long as its answers took.

        Args:
            answers_s: what those of the batch took.
        """
        if self.shadow_wait_ms_max is not None:
            return self.shadow_wait_ms_max / 1000
        return min(max(answers_s * 1000, WAIT_MS_MIN), WAIT_MS_MAX) / 1000


def check_route(name: str, spec: RouteSpec) -> None:
    """What types cannot say.

    Raises:
        Refuse: the declaration contradicts itself.
    """
    if why := _contradiction(spec):
        raise Refuse("models.route", f"[route.{name}] {why}", "correct it in routes.toml")


def _contradiction(spec: RouteSpec) -> str:
    named = [*spec.shares, *spec.facts]
    unknown = [model for model in named if model not in [*spec.models, spec.shadow]]
    percent = sum(spec.shares.values())
    wrong = {
        "names a model twice": len(set(spec.models)) < len(spec.models),
        f"says something of {unknown[:1]}, which is none of its models": bool(unknown),
        f"has {spec.shadow!r} both among its models and as the shadow": spec.shadow in spec.models,
        "has both a split and a canary": spec.canary is not None and bool(spec.split),
        "has an ensemble and a split; take one of them": bool(spec.ensemble and spec.shares),
        "has an ensemble of one model": bool(spec.ensemble) and len(spec.models) < 2,
        "has an ensemble of spans; vote and mean are for labels": bool(spec.ensemble)
        and spec.task == "entities",
        f"splits {percent:g} percent": percent > 100,
        "has no weight above 0": not any(msgspec.structs.astuple(spec.weights)),
    }
    return next((why for why, is_so in wrong.items() if is_so), "")
