"""Models as declared data.

Manifests say what a model is; the registry fetches, proves and opens it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamapp.models.manifest import Manifest
    from streamapp.models.pull import Progress
    from streamapp.models.registry import Registry
    from streamapp.models.session import Session, Tensor
    from streamapp.models.status import ModelStatus

__all__ = ["Manifest", "ModelStatus", "Progress", "Registry", "Session", "Tensor"]

#: Loaded when asked for: processes that only name models do without what fetches them.
_HOMES = {
    "Manifest": "streamapp.models.manifest",
    "ModelStatus": "streamapp.models.status",
    "Progress": "streamapp.models.pull",
    "Registry": "streamapp.models.registry",
    "Session": "streamapp.models.session",
    "Tensor": "streamapp.models.session",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
