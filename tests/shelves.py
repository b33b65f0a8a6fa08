"""A folder of manifests whose files lie on this disk, and a registry that reads it."""

import hashlib

import msgspec

from streamapp.models import Registry
from streamapp.models.toml import write_toml


class Shelf:
    """``put`` declares a model made of files; ``registry`` has pulled them."""

    def __init__(self, folder):
        self.models_dir, self.cache = folder / "models", folder / "cache"
        self.models_dir.mkdir()

    def put(self, manifest, folder, *names):
        """Write ``manifest`` with these files of ``folder``."""
        files = []
        for name in names:
            content = (folder / name).read_bytes()
            digest, source = hashlib.sha256(content).hexdigest(), f"file:{folder / name}"
            files.append(
                {"name": name, "sha256": digest, "bytes": len(content), "sources": [source]}
            )
        said = msgspec.to_builtins(manifest) | {"files": files}
        place = self.models_dir / manifest.task / manifest.name / str(manifest.version)
        place.mkdir(parents=True)
        (place / "manifest.toml").write_text(write_toml(said))
        return manifest.full_name

    def registry(self, *pulled):
        registry = Registry(self.models_dir, self.cache, threads=1)
        for name in pulled:
            registry.pull(name)
        return registry
