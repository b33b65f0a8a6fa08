"""Routes of ``routes.toml`` over the registry's models."""

from typing import TYPE_CHECKING

from streamapp.core.clock import SYSTEM, Clock
from streamapp.core.errors import Refuse
from streamapp.core.model import ModelRef
from streamapp.models.declaration import converted
from streamapp.models.manifest import Manifest
from streamapp.models.routing.epoch import Candidate
from streamapp.models.routing.router import OnAnswer, Router
from streamapp.models.routing.score import CHARS_PER_TOKEN
from streamapp.models.routing.spec import Facts, RouteSpec, check_route
from streamapp.models.routing.standing import Opened

if TYPE_CHECKING:
    from streamapp.models.registry import Registry

#: Names in ``measured`` of a manifest that the router knows.
MEASURED = ("texts_per_s", "accuracy", "p95_ms")
#: Task to what the registry calls such models.
_KINDS = {"classify": "classifier", "head": "classifier", "entities": "extractor"}


class Registered:
    """A route, and its models as the registry has them.

    A name that is no route but a model is a route of that model alone.

    Raises:
        Refuse: neither, or a model for which there are no routes.
    """

    def __init__(self, name: str, registry: "Registry") -> None:
        self._name = name
        self._registry = registry
        self._task = self.spec().task

    def spec(self) -> RouteSpec:
        """The route as it is declared now.

        Raises:
            Refuse: it contradicts itself, its models are for other tasks, or its task changed.
        """
        found = self._registry.catalogue.routes.route.get(self._name)
        spec = found or self._alone()
        check_route(self._name, spec)
        for model in filter(None, (*spec.models, spec.shadow)):
            self._check(model, spec)
        if getattr(self, "_task", spec.task) != spec.task:
            why = f"[route.{self._name}] is for {spec.task} now, and was for {self._task}"
            raise Refuse("models.route", why, "restart the worker, or take another name")
        return spec

    def _check(self, model: str, spec: RouteSpec) -> None:
        """A model of the route must be there, and for its task."""
        try:
            self._registry.manifest(model, spec.task)
        except Refuse as error:
            place = self._registry.catalogue.routes.places.get(self._name)
            if place is None:  # a model alone
                raise
            message = f"{place}: [route.{self._name}] names {model!r}: {error.message}"
            raise Refuse(error.code, message, error.fix) from None

    def is_ready(self, spec: RouteSpec) -> bool:
        """Whether its models are open, where they can be opened while others answer."""
        prepare = getattr(self._registry, "prepare", None)
        names = filter(None, (*spec.models, spec.shadow))
        return prepare is None or bool(prepare(_KINDS[self._task], names))

    def open(self, name: str) -> Opened:
        """The model of a name as it is now."""
        opened: Opened = getattr(self._registry, _KINDS[self._task])(name)
        return opened

    def try_open(self, name: str) -> Opened | None:
        """The model of a name where it can be opened without a wait; None while it is opened.

        Raises:
            Retry: its server is away.
        """
        attempt = getattr(self._registry, "attempt", None)
        if attempt is None:  # no batch waits for a registry that is not live
            return self.open(name)
        opened: Opened | None = attempt(_KINDS[self._task], name)
        return opened

    def candidate(self, name: str, ref: ModelRef) -> Candidate:
        """What its manifest and the route say of it."""
        model = f"{ref.task}/{ref.name}@{ref.version}"
        return candidate_of(name, ref.sha256, self._registry.manifest(model), self.spec())

    def _alone(self) -> RouteSpec:
        manifest = self._registry.manifest(self._name)
        if manifest.task not in _KINDS:
            raise Refuse(
                "models.route",
                f"{manifest.full_name} is a model for {manifest.task}",
                f"routes are for {', '.join(_KINDS)}",
            )
        return RouteSpec(task=manifest.task, models=[self._name])  # type: ignore[arg-type]


def router_of(
    registry: "Registry",
    name: str,
    clock: Clock = SYSTEM,
    on_answer: OnAnswer | None = None,
    on_shadow: OnAnswer | None = None,
) -> Router:
    """The router of a route or a model; nothing is opened."""
    return Router(name, Registered(name, registry), clock, on_answer, on_shadow)


def candidate_of(name: str, sha256: str, manifest: Manifest, spec: RouteSpec) -> Candidate:
    """A candidate before anything is measured here.

    Args:
        name: as the route has it.
        sha256: of the model, "" where it is not known.
        manifest: what the model says of itself.
        spec: whose ``facts`` go before.
    """
    facts = spec.facts.get(name, Facts())
    window = manifest.tokens_max * CHARS_PER_TOKEN if manifest.task == "classify" else 0
    said = [_measured(key, facts, manifest) for key in MEASURED]
    return Candidate(
        name=name,
        model=manifest.full_name,
        sha256=sha256[:12],
        texts_per_s=said[0],
        accuracy=said[1],
        p95_ms=said[2],
        languages=list(manifest.languages if facts.languages is None else facts.languages),
        chars_max=facts.chars_max or window,  # long texts go to extractors in parts
    )


def _measured(key: str, facts: Facts, manifest: Manifest) -> float | None:
    """A fact of a candidate: what the route says, else what its manifest does.

    Raises:
        Refuse: the manifest says what no route may.
    """
    here: float | None = getattr(facts, key)
    if here is not None or key not in manifest.measured:
        return here
    said = {key: manifest.measured[key]}
    where, fix = f"{manifest.full_name} [measured]", "correct it, or say it in [route.NAME.facts]"
    there: float | None = getattr(converted(said, Facts, where, lambda *_: fix), key)
    return there
