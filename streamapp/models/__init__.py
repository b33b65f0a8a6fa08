"""Models as declared data.

Manifests say what a model is; the registry fetches, proves and opens it.
"""

from typing import TYPE_CHECKING

from streamapp._lazy import lazy

if TYPE_CHECKING:
    from streamapp.models.manifest import Manifest
    from streamapp.models.pull import Progress
    from streamapp.models.registry import Registry
    from streamapp.models.session import Session, Tensor
    from streamapp.models.status import ModelStatus

__all__ = ["Manifest", "ModelStatus", "Progress", "Registry", "Session", "Tensor"]

#: Loaded when asked for: processes that only name models do without what fetches them.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "Manifest": "streamapp.models.manifest",
        "ModelStatus": "streamapp.models.status",
        "Progress": "streamapp.models.pull",
        "Registry": "streamapp.models.registry",
        "Session": "streamapp.models.session",
        "Tensor": "streamapp.models.session",
    },
)
