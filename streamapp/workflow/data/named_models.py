"""Models by the names that a project gives them: ``[models.NAME]`` of ``streamapp.toml``.

::

    [models.text-classifier-v2]
    model = "classify/reviews@2"            # any name that the registry knows

    [models.ours]
    path = "weights/classify/reviews/2"     # a folder as models/ has them
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Protocol

import msgspec

from streamapp.core.errors import Refuse
from streamapp.core.project import project_table
from streamapp.models.session import Session
from streamapp.plugin.chat import Chat
from streamapp.plugin.extractor import Extractor
from streamapp.plugin.routing import Router
from streamapp.plugin.stage import Classifier, Embedder, Models
from streamapp.workflow.data.model_identity import identity_of


class OwnModels(Models, Protocol):
    """A registry that can look into another folder, as ``Registry`` can."""

    def beside(self, folder: Path) -> "OwnModels": ...
    def pull(self, name: str) -> object: ...


class _Declared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[models.NAME]``: one of the two."""

    model: str | None = None
    path: str | None = None


@dataclass(frozen=True)
class NamedModels:
    """What ``models`` knows, and beside it the declared names.

    Attributes:
        models: a registry.
        folder: where declared paths begin.
    """

    models: Models
    folder: Path
    _declared: Mapping[str, _Declared]
    _own: dict[str, tuple[Models, str]] = field(default_factory=dict)
    _opening: Lock = field(default_factory=Lock)

    def resolve(self, name: str) -> str:
        """The registry's name for a declared one; any other as it is."""
        declared = self._declared.get(name)
        return declared.model or name if declared else name

    def identity(self, method: str, name: str | None) -> str:
        """Who ``METHOD(name)`` would give, without opening it; see ``identity_of``."""
        declared = self._declared.get(name) if name else None
        if name is None or declared is None or declared.path is None:
            return identity_of(self.models, method, self.resolve(name) if name else None)
        registry, known = self._place(name, declared.path)
        return identity_of(registry, method, known)

    def embedder(self, name: str | None = None) -> Embedder:
        models, known = self._find(name)
        return models.embedder(known)

    def embedding_dim(self, name: str | None = None) -> int:
        models, known = self._find(name)
        return models.embedding_dim(known)

    def session(self, name: str) -> Session:
        models, known = self._find(name)
        return models.session(known or name)

    def classifier(self, name: str | None = None) -> Classifier:
        models, known = self._find(name)
        return models.classifier(known)

    def labels(self, name: str | None = None) -> tuple[str, ...]:
        models, known = self._find(name)
        return models.labels(known)

    def router(self, name: str) -> Router:
        models, known = self._find(name)
        return models.router(known or name)

    def extractor(self, name: str | None = None) -> Extractor:
        models, known = self._find(name)
        return models.extractor(known)

    def chat(self, name: str | None = None) -> Chat:
        models, known = self._find(name)
        return models.chat(known)

    def _find(self, name: str | None) -> tuple[Models, str | None]:
        declared = self._declared.get(name) if name else None
        if name is None or declared is None:
            return self.models, name
        if declared.path is None:
            return self.models, declared.model
        with self._opening:
            if name not in self._own:
                self._own[name] = self._beside(name, declared.path)
            return self._own[name]

    def _beside(self, name: str, path: str) -> tuple[Models, str]:
        registry, known = self._place(name, path)
        registry.pull(known)  # its files are checked once, and nothing is done after that
        return registry, known

    def _place(self, name: str, path: str) -> tuple[OwnModels, str]:
        """The registry of a declared folder, and the model's name in it."""
        place = (self.folder / Path(path).expanduser()).absolute()
        if not (place / "manifest.toml").is_file():
            raise Refuse(
                "models.folder",
                f"[models.{name}]: {path} has no manifest.toml",
                "give the folder of one version, TASK/NAME/VERSION, as those of models/",
            )
        beside = getattr(self.models, "beside", None)
        if beside is None:
            raise Refuse(
                "models.folder", f"[models.{name}] names a folder, and there is no registry here",
                "give model = a name that is known",
            )  # fmt: skip
        registry: OwnModels = beside(place.parents[2])
        return registry, f"{place.parents[1].name}/{place.parents[0].name}@{place.name}"


def declared_models(models: Models, folder: Path) -> NamedModels:
    """The models of a registry and those that the nearest ``streamapp.toml`` declares.

    Args:
        models: a registry.
        folder: where the file is looked for, and then in those above.

    Raises:
        Refuse: the file cannot be parsed, or a table has not one of ``model`` and ``path``.
    """
    tables, home = project_table("models", folder)
    return NamedModels(models, home, {name: _read(name, table) for name, table in tables.items()})


def _read(name: str, table: dict[str, object]) -> _Declared:
    try:
        declared = msgspec.convert(table, _Declared)
    except msgspec.ValidationError as error:
        raise Refuse(
            "models.declaration", f"[models.{name}]: {error}", "it takes model, or path"
        ) from None
    if (declared.model is None) == (declared.path is None):
        raise Refuse(
            "models.declaration",
            f"[models.{name}] has {'both' if declared.model else 'neither of'} model and path",
            "give one of the two",
        )
    return declared
