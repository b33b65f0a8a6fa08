"""Models as declared data.

Manifests say what a model is; the registry fetches, proves and opens it.
"""

from streamapp.models.manifest import Manifest
from streamapp.models.pull import Progress
from streamapp.models.registry import Registry
from streamapp.models.session import Session, Tensor
from streamapp.models.status import ModelStatus

__all__ = ["Manifest", "ModelStatus", "Progress", "Registry", "Session", "Tensor"]
