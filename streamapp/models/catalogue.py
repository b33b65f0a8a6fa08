"""The catalogue: every model that is declared, by any of its names.

    embed/multilingual-e5-small@2           one version
    embed/multilingual-e5-small             the newest
    embed/multilingual-e5-small@champion    the version that this alias of the model points to
    e5                                      a short name of routes.toml, for any of those

Several folders are one catalogue; the first that says something wins.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamapp.core.errors import Refuse
from streamapp.models import aliases, routes
from streamapp.models.aliases import Aliases
from streamapp.models.manifest import TASKS, Manifest, read_manifest
from streamapp.models.routes import Routes

_SLUG = r"[a-z0-9][a-z0-9._-]*"
_NAME = re.compile(rf"^(?P<path>{_SLUG}/{_SLUG})(?:@(?P<version>\w[\w-]*))?$")
#: A file's identity as far as a change is concerned: path, modified, size, inode.
Stamp = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What was read at one moment: manifests by full name, aliases by ``task/name``, routes."""

    folders: tuple[Path, ...]
    manifests: dict[str, Manifest]
    places: dict[str, Path]
    aliases: dict[str, Aliases]
    routes: Routes

    @classmethod
    def read(cls, folders: Sequence[Path]) -> "Catalogue":
        """Read every manifest, alias and route.

        Raises:
            Refuse: a folder does not exist, or a file is wrong or lies where another is expected.
        """
        manifests, places = read_manifests(folders)
        named: dict[str, Aliases] = {}
        for folder in reversed(folders):
            for path in sorted(folder.glob(f"*/*/{aliases.FILE}")):
                named[_path_of(path, folder)] = aliases.read_aliases(path.parent)
        found = cls(tuple(folders), manifests, places, named, routes.read_routes(folders))
        found.check_aliases()
        return found

    def check_aliases(self) -> None:
        """Refuse an alias of a version that does not exist."""
        for path, known in self.aliases.items():
            for alias, target in known.items():
                if f"{path}@{target.version}" not in self.manifests:
                    raise Refuse(
                        "models.alias",
                        f"{path}@{alias} is version {target.version}, which does not exist",
                        f"run `streamapp models promote {path}@VERSION --alias {alias}`",
                    )

    def default(self, task: str) -> str:
        """The name of the model that serves a task when none is named.

        Raises:
            Refuse: routes.toml names none.
        """
        if (name := self.routes.defaults.get(task)) is None:
            raise Refuse(
                "models.route",
                f"routes.toml has no default for {task}",
                f"set [defaults] {task}, or name a model",
            )
        return name

    def find(self, name: str) -> Manifest:
        """The manifest of a name of any kind.

        Raises:
            Refuse: there is no such model, version or alias; the fix names the nearest.
        """
        target = self.routes.aliases.get(name, name)
        if target in self.manifests:
            return self.manifests[target]
        if match := _NAME.match(target):
            path, version, versions = match["path"], match["version"], self.versions(match["path"])
            if versions and version is None:
                return versions[-1]
            if versions and not version.isdigit():
                return self._by_alias(path, version, versions)
        raise self._unknown(name, target)

    def versions(self, path: str) -> list[Manifest]:
        """All versions of ``task/name``, the newest last."""
        found = [m for m in self.manifests.values() if f"{m.task}/{m.name}" == path]
        return sorted(found, key=lambda manifest: manifest.version)

    def aliases_of(self, manifest: Manifest) -> list[str]:
        """The aliases that point to this version now."""
        known = self.aliases.get(f"{manifest.task}/{manifest.name}", {})
        return sorted(name for name, alias in known.items() if alias.version == manifest.version)

    def routed(self, manifest: Manifest) -> list[str]:
        """What leads to this version: ``default of embed``, ``short name e5``, ``route sales``."""
        routes_ = self.routes
        ways = [(f"default of {task}", name) for task, name in routes_.defaults.items()]
        ways += [(f"short name {short}", name) for short, name in routes_.aliases.items()]
        for route, spec in routes_.route.items():
            ways += [(f"route {route}", name) for name in (*spec.models, spec.shadow) if name]
        return sorted({way for way, name in ways if self._leads(name, manifest)})

    def stamps(self) -> tuple[Stamp, ...]:
        """What changes when a route or an alias does: compare with that of an earlier moment."""
        models = {f"{manifest.task}/{manifest.name}" for manifest in self.manifests.values()}
        return tuple(_stamps(self.folders, sorted(models)))

    def _leads(self, name: str, manifest: Manifest) -> bool:
        try:
            return self.find(name) is manifest
        except Refuse:
            return False

    def _by_alias(self, path: str, alias: str, versions: Sequence[Manifest]) -> Manifest:
        known = self.aliases.get(path, {})
        if (target := known.get(alias)) is not None:
            return self.manifests[f"{path}@{target.version}"]
        has = f"it has {', '.join(sorted(known))}" if known else "it has none"
        newest = f"{path}@{versions[-1].version}"
        raise Refuse(
            "models.alias",
            f"{path} has no alias {alias!r}; {has}",
            f"run `streamapp models promote {newest} --alias {alias}`",
        )

    def _unknown(self, name: str, target: str) -> Refuse:
        from difflib import get_close_matches

        known = [*self.routes.aliases, *self.manifests]
        if name in self.routes.aliases:
            what = f"{name!r} is short for {target!r}, and no model is called so"
            return Refuse("models.unknown", what, "correct [aliases] in routes.toml")
        near = get_close_matches(name, known, 1, 0.4)
        fix = f"did you mean {near[0]}?" if near else "see `streamapp models list`"
        return Refuse("models.unknown", f"no model is called {name!r}", fix)


def read_manifests(folders: Sequence[Path]) -> tuple[dict[str, Manifest], dict[str, Path]]:
    """Every manifest below the folders by full name, and its file; the first folder wins.

    The last one must be there; one before it may come into being later.

    Raises:
        Refuse: a folder does not exist, a manifest is wrong or lies where another name is expected.
    """
    found: dict[str, Manifest] = {}
    places: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir() and folder == folders[-1]:
            raise Refuse(
                "models.folder", f"no folder {folder}", "set models_dir to where manifests are"
            )
        for path in sorted(folder.glob("*/*/*/manifest.toml")):
            if path.relative_to(folder).parts[0] not in TASKS:
                _refuse_task(path, folder)
            manifest = read_manifest(path)
            _check_place(manifest, path, folder)
            if manifest.full_name not in found:
                found[manifest.full_name], places[manifest.full_name] = manifest, path
    return found, places


def _refuse_task(path: Path, folder: Path) -> None:
    task = path.relative_to(folder).parts[0]
    raise Refuse(
        "models.declaration",
        f"{path}: {task!r} is no task",
        f"tasks are {', '.join(TASKS)}: move it to {folder}/TASK/NAME/VERSION/",
    )


def _check_place(manifest: Manifest, path: Path, folder: Path) -> None:
    declared = f"{manifest.task}/{manifest.name}/{manifest.version}"
    place = path.parent.relative_to(folder).as_posix()
    if declared != place:
        raise Refuse(
            "models.declaration",
            f"{path}: says it is {declared} but lies in {place}",
            "correct the manifest, or move it",
        )


def _path_of(aliases_file: Path, folder: Path) -> str:
    return aliases_file.parent.relative_to(folder).as_posix()


def _stamps(folders: Iterable[Path], models: Iterable[str]) -> Iterator[Stamp]:
    for folder in folders:
        paths = [folder / routes.FILE, *(folder / path / aliases.FILE for path in models)]
        for path in paths:
            try:
                stat = path.stat()
            except OSError:
                yield str(path), 0, 0, 0
            else:
                yield str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino
