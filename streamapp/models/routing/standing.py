"""What a router knows of its models: which they are now, how they do, and the epoch that makes."""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from streamapp.core.clock import Clock
from streamapp.core.errors import Refuse, Retry
from streamapp.core.model import ModelRef
from streamapp.models.routing.epoch import Candidate, Epoch, Epochs
from streamapp.models.routing.health import Health
from streamapp.models.routing.spec import RouteSpec

#: Measured times are looked at once in this time; what is up or out, after every batch.
EPOCH_S_MIN = 10.0
#: Of a stage's state; the key is the route.
KIND = "epochs"

_log = logging.getLogger("streamapp.models")


class Opened(Protocol):
    """What a candidate's name opens to."""

    @property
    def ref(self) -> ModelRef: ...


class Source(Protocol):
    """Where a route and its candidates come from."""

    def spec(self) -> RouteSpec:
        """The route as it is declared now."""
        ...

    def is_ready(self, spec: RouteSpec) -> bool:
        """Whether its models can be opened without a wait; if not, they are being opened."""
        ...

    def open(self, name: str) -> Opened:
        """The model of a name as it is now; cheap when it is open."""
        ...

    def try_open(self, name: str) -> Opened | None:
        """The same without a wait; None while it is being opened.

        Raises:
            Retry: its server is away.
        """
        ...

    def candidate(self, name: str, ref: ModelRef) -> Candidate:
        """What is declared of it."""
        ...


class Remembered(Protocol):
    """A stage's state (``plugin.State``)."""

    def get(self, kind: str, key: str) -> Any | None: ...
    def put(self, kind: str, key: str, source_offset: int, value: Any) -> None: ...


class Standing:
    """The models of a route in this process, for all source partitions.

    Args:
        name: of the route.
        source: of its declaration and its models.
        clock: for cool-downs, and how often what was measured is looked at.
    """

    def __init__(self, name: str, source: Source, clock: Clock) -> None:
        self.spec = source.spec()
        self.models: dict[str, Opened] = {}
        self.health: dict[str, Health] = {}
        self._name = name
        self._source = source
        self._clock = clock
        self._refs: dict[str, ModelRef] = {}
        self._said = ""
        self._again_s = float("-inf")
        self._shadow_again_s = float("-inf")
        self._out: dict[str, str] = {}
        self._times: dict[str, float | None] = {}
        self._timed_s = float("-inf")
        self._plain: Epoch

    def refresh(self) -> None:
        """Open what the names mean now; another version starts with a clean record.

        What is wrong with a declaration that changed is logged, and the one before stays: events
        must not suffer for it.

        Raises:
            Refuse: at the start: a model is unknown, not pulled, or not what its manifest says.
            Retry: at the start: the server of a model that may answer is away.
        """
        try:
            self._follow(self._spec_now())
        except (Refuse, Retry) as error:
            if not self._refs:
                raise
            if str(error) != self._said:
                _log.warning("route %s stays as it was: %s", self._name, error)
            self._said = str(error)
            self._again_s = self._clock.monotonic_s() + EPOCH_S_MIN

    def _spec_now(self) -> RouteSpec:
        """The declaration to go by: another one when its models are open, and it was not wrong."""
        if self._clock.monotonic_s() < self._again_s:
            return self.spec
        spec = self._source.spec()
        is_new = bool(self._refs) and spec != self.spec
        return self.spec if is_new and not self._source.is_ready(spec) else spec

    def _follow(self, spec: RouteSpec) -> None:
        models = {name: self._source.open(name) for name in spec.models}
        if spec.shadow and (shadow := self._shadow(spec)) is not None:
            models[spec.shadow] = shadow
        refs = {name: model.ref for name, model in models.items()}
        if refs != self._refs or spec != self.spec:
            known = {name: self._source.candidate(name, ref) for name, ref in refs.items()}
            plain = first_epoch(self._name, spec, known)
            new = [name for name, ref in refs.items() if self._refs.get(name) != ref]
            for name in new:
                self.health[name] = Health(spec.failures_max, spec.cool_down_s, self._clock)
            self._out = {n: why for n, why in self._out.items() if n in refs and n not in new}
            self.spec, self._refs, self._plain = spec, refs, plain
            self._timed_s = float("-inf")
        self.models = models

    def _shadow(self, spec: RouteSpec) -> Opened | None:
        """The shadow; None while its server is away: nobody who is answered waits for that."""
        name = spec.shadow
        if name in self.models:
            return self._source.open(name)
        if self._clock.monotonic_s() < self._shadow_again_s:
            return None
        open_ = self._source.try_open if self._refs else self._source.open
        try:
            return open_(name)
        except Retry as error:
            _log.warning("route %s goes on without its shadow: %s", self._name, error)
            self._shadow_again_s = self._clock.monotonic_s() + spec.cool_down_s
            return None

    def begun(self, first: int, state: Remembered) -> Epochs:
        """The epochs that rule a batch; a new one at once when the declaration is another.

        That one is of what is declared and what the log has, and of nothing measured here: a
        worker that is killed before it publishes leaves another to choose the same.
        """
        epochs = Epochs.of(state.get(KIND, self._name))
        if len(epochs) and epochs.newest.declared == self._plain.declared:
            for each in epochs.newest.candidates:  # as the owner before found
                if each.out and self._may_go(each.name):
                    self._out[each.name] = each.out
            if epochs.has(first):
                return epochs
        before = epochs.newest if len(epochs) else None
        begun = epochs.with_(self._plain.begun(first, before))
        state.put(KIND, self._name, first, begun.plain())
        return begun

    def measured(self, epochs: Epochs, last: int, state: Remembered) -> None:
        """Record what holds after a batch, to rule when the log has it."""
        self._guard()
        newest = epochs.newest
        now = self._now(newest.number + 1, last + 1 + self.spec.ahead_events)
        if not now.says_the_same_as(newest):
            state.put(KIND, self._name, last, epochs.with_(now).plain())

    def _now(self, number: int, first: int) -> Epoch:
        """What holds now."""
        now_s = self._clock.monotonic_s()
        if now_s - self._timed_s >= EPOCH_S_MIN:
            self._timed_s = now_s
            self._times = {name: health.p95_ms for name, health in self.health.items()}
        candidates = [self._as_it_is(each) for each in self._plain.candidates]
        return msgspec.structs.replace(
            self._plain, number=number, first=first, candidates=candidates
        )

    def _as_it_is(self, candidate: Candidate) -> Candidate:
        late = self._times.get(candidate.name)
        return msgspec.structs.replace(
            candidate,
            p95_ms=candidate.p95_ms if late is None else late,
            up=self.health[candidate.name].is_up,
            out=self._out.get(candidate.name, ""),
        )

    def _guard(self) -> None:
        """Take out what is broken, the last declared first."""
        for name in reversed(self.spec.models):
            if self._may_go(name) and (why := self.health[name].broken(self.spec.guard)):
                self._out[name] = why
                _log.warning("route %s: %s %s", self._name, name, why)

    def _may_go(self, name: str) -> bool:
        """Whether a model may be taken out: it is not, and not the last that is left."""
        return name not in self._out and len(self._out) < len(self.spec.models) - 1


def first_epoch(name: str, spec: RouteSpec, known: Mapping[str, Candidate]) -> Epoch:
    """An epoch of nothing but what is declared of a route and its candidates, by name."""
    weights = spec.weights
    return Epoch(
        number=0,
        first=0,
        candidates=[known[each] for each in spec.models],
        weights=(weights.alpha, weights.beta, weights.gamma, weights.delta),
        deadline_ms=spec.deadline_ms,
        salt=spec.salt or name,
        shares=list(spec.shares.items()),
        shadow=known.get(spec.shadow),
        shadow_percent=spec.shadow_percent,
        ensemble=spec.ensemble,
    )
