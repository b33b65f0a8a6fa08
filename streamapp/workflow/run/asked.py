"""Models as an operation gets them, with a note of which it asked for.

A result depends on the models that were used, which only the operation knows: what it asked for is
kept with the result, and looked at again before the result is used.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamapp.core.config import load
from streamapp.core.errors import StreamappError
from streamapp.workflow.data import declared_models

if TYPE_CHECKING:
    from streamapp.plugin import Models


class AskedModels:
    """Models that are made when first asked for; ``asked`` says of what became of each name.

    Args:
        make: gives the models.
    """

    def __init__(self, make: "Callable[[], Models]") -> None:
        self._make = make
        self.asked: dict[str, str] = {}

    @cached_property
    def _models(self) -> "Models":
        return self._make()

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._models, method)
        if not callable(found):
            return found

        def ask(*arguments: Any, **named: Any) -> Any:
            name = arguments[0] if arguments else named.get("name")
            what = f"{method}:{name or ''}"
            self.asked[what] = identity(self._models, what)
            return found(*arguments, **named)

        return ask


def identity(models: Any, what: str) -> str:
    """A digest of the model that ``METHOD:NAME`` stands for; empty where it cannot be said."""
    method, _, name = what.partition(":")
    say = getattr(models, "identity", None)
    if say is None:
        return ""
    try:
        return str(say(method, name or None))
    except StreamappError:
        return ""  # whatever is wrong with it, the operation will say


def make_models(where: str, folder: Path, environ: Mapping[str, str]) -> "Models":
    """The models for a workflow.

    Args:
        where: ``module:function``, called with the folder; empty: what the project declares.
        folder: of the workflow's file.
        environ: settings, as an environment.
    """
    if where:
        module, _, name = where.partition(":")
        made: Models = getattr(import_module(module), name)(folder)
        return made
    from streamapp.plugin.declared import declared_registry

    return declared_models(declared_registry(load(environ=environ, folder=folder)[0]), folder)
