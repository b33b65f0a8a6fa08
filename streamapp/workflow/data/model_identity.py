"""Who a model is, without opening it: a result that it made is good as long as that stays."""

import hashlib
from typing import Any

import msgspec

from streamapp.core.errors import StreamappError
from streamapp.models.receipt import read_receipt, sha256_of_manifest
from streamapp.models.registry import Registry

#: What the registry calls an opened model to the task whose default it is without a name.
_TASKS = {
    "embedder": "embed",
    "embedding_dim": "embed",
    "classifier": "classify",
    "labels": "classify",
    "extractor": "entities",
    "chat": "chat",
}


def identity_of(registry: object, method: str, name: str | None) -> str:
    """A digest of what ``registry.METHOD(name)`` would answer with, in hex.

    Args:
        registry: a Registry; of any other nothing can be said.
        method: of ``Models``.
        name: of a model or a route; None: the default of the method's task.

    Returns:
        Of a model: its full name, its manifest and the files that were pulled.  Of a route: what
        is declared of it, and its models.  Empty where it cannot be said.
    """
    if not isinstance(registry, Registry):
        return ""
    try:
        if method == "router" and name is not None:
            return _route(registry, name)
        return _model(registry, name, _TASKS.get(method))
    except StreamappError:  # what is wrong with it is said when it is opened
        return ""


def _route(registry: Registry, name: str) -> str:
    spec = registry.catalogue.routes.route.get(name)
    if spec is None:
        return _model(registry, name, None)
    models = [_model(registry, model, None) for model in (*spec.models, spec.shadow) if model]
    return _digest(name, spec, models) if all(models) else ""


def _model(registry: Registry, name: str | None, task: str | None) -> str:
    manifest = registry.manifest(name, None if name else task)
    receipt = read_receipt(registry.folder(manifest.full_name))
    return _digest(
        manifest.full_name, sha256_of_manifest(manifest), receipt.files if receipt else {}
    )


def _digest(*values: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(values, order="deterministic")).hexdigest()
