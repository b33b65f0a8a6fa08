"""A route over models that are given, opened, by name: without a registry."""

from collections.abc import Mapping

from streamapp.core.errors import Refuse
from streamapp.core.model import ModelRef
from streamapp.models.routing.epoch import Candidate
from streamapp.models.routing.spec import Facts, RouteSpec, check_route
from streamapp.models.routing.standing import Opened


class Given:
    """The source of a route in a test, or in a program of one's own.

    Args:
        spec: its ``facts`` are all that is known of the models.
        models: by the names that the route has; may be changed meanwhile.
    """

    def __init__(self, spec: RouteSpec, models: Mapping[str, Opened]) -> None:
        check_route("given", spec)
        self._spec = spec
        self._models = models

    def spec(self) -> RouteSpec:
        """As it was given."""
        return self._spec

    def is_ready(self, spec: RouteSpec) -> bool:  # noqa: ARG002  # the protocol's
        """They are open."""
        return True

    def open(self, name: str) -> Opened:
        """The model of a name.

        Raises:
            Refuse: none was given under it.
        """
        if name not in self._models:
            raise Refuse("models.unknown", f"no model is called {name!r}", "give it")
        return self._models[name]

    def try_open(self, name: str) -> Opened | None:
        """As ``open``."""
        return self.open(name)

    def candidate(self, name: str, ref: ModelRef) -> Candidate:
        """What the spec says of it."""
        facts = self._spec.facts.get(name, Facts())
        return Candidate(
            name=name,
            model=f"{ref.task}/{ref.name}@{ref.version}",
            sha256=ref.sha256[:12],
            texts_per_s=facts.texts_per_s,
            accuracy=facts.accuracy,
            p95_ms=facts.p95_ms,
            languages=facts.languages or [],
            chars_max=facts.chars_max or 0,
        )
