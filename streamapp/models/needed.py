"""Which models a workflow needs, by what its stages are told."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamapp.models.registry import Registry

#: What a stage uses when none of its options names a model: the default of a task.
DEFAULTS = {"embed": "embed", "intent": "embed", "entities": "entities"}
#: Options of the built-in stages that name a model, or a route of several.
NAMING = ("model", "head", "classifier", "route")
_STAGES = ("embed", "intent", "sentiment", "entities", "shadow", "classify")


def needed(
    registry: "Registry", stages: Mapping[str, Mapping[str, Any]], *, has_own: bool
) -> list[str]:
    """Full names of the models that stages need.

    Args:
        registry: knows names and routes.
        stages: name to options.
        has_own: a model of the user's own is the default embedder.

    Raises:
        Refuse: a name is unknown, or there is no default.
    """
    found = {
        name
        for stage in _STAGES
        if stage in stages
        for name in _named(registry, stage, stages[stage], has_own=has_own)
    }
    return sorted({registry.manifest(name).full_name for name in found})


def _named(
    registry: "Registry", stage: str, options: Mapping[str, Any], *, has_own: bool
) -> Iterator[str]:
    names = [options[option] for option in NAMING if option in options]
    names += options.get("columns", {}).values()
    routes = registry.catalogue.routes.route
    for name in names:
        spec = routes.get(name)
        yield from filter(None, (*spec.models, spec.shadow)) if spec else (name,)
    task = DEFAULTS.get(stage)
    named = "model" in options or (task == "entities" and "route" in options)
    if task is not None and not named and not (has_own and task == "embed"):
        yield registry.catalogue.default(task)
