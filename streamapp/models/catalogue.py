"""The catalogue: every model that is declared, by any of its names.

    embed/multilingual-e5-small@2           one version
    embed/multilingual-e5-small             the newest
    embed/multilingual-e5-small@champion    the version that this alias of the model points to
    e5                                      a short name of routes.toml, for any of those

Several folders are one catalogue; the first that says something wins.  A manifest, a file of
aliases or a route that is wrong does no harm to the others: it is refused where its name is used.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamapp.core.errors import Refuse
from streamapp.models import aliases, routes
from streamapp.models.aliases import Alias, Aliases
from streamapp.models.broken import Broken
from streamapp.models.declaration import read_manifest
from streamapp.models.manifest import TASKS, Manifest
from streamapp.models.routes import Routes

_SLUG = r"[a-z0-9][a-z0-9._-]*"
_NAME = re.compile(rf"^(?P<path>{_SLUG}/{_SLUG})(?:@(?P<version>\w[\w-]*))?$")
_NUMBER = re.compile(r"^[1-9][0-9]*$", re.ASCII)
MANIFEST = "manifest.toml"
#: Refuses a manifest.
Check = Callable[[Manifest], None]
#: A file's identity as far as a change is concerned: path, modified, size, inode.
Stamp = tuple[str, int, int, int]


def unchecked(_manifest: Manifest) -> None:
    """For who takes what the files say."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What was read at one moment: manifests by full name, aliases by ``task/name``, routes.

    ``check`` refuses a manifest for what the file alone does not say.
    """

    folders: tuple[Path, ...]
    manifests: dict[str, Manifest]
    places: dict[str, Path]
    aliases: dict[str, Aliases]
    routes: Routes
    broken: dict[str, Broken]
    check: Check

    @classmethod
    def read(cls, folders: Sequence[Path], check: Check = unchecked) -> "Catalogue":
        """Read every manifest, alias and route.

        Args:
            folders: where to look.
            check: refuses a manifest for what the file alone does not say.

        Raises:
            Refuse: a folder does not exist.
        """
        broken: dict[str, Broken] = {}
        manifests, places = read_manifests(folders, broken, check)
        named = _read_aliases(folders, broken)
        routed = routes.read_routes(folders, broken)
        found = cls(tuple(folders), manifests, places, named, routed, broken, check)
        found._part_from_nothing()
        return found

    def again(self) -> "Catalogue":
        """What is there now, in the same folders.

        Raises:
            Refuse: a folder does not exist any more.
        """
        return Catalogue.read(self.folders, self.check)

    def keep(self, before: "Catalogue") -> list[Broken]:
        """What is broken now and was good before stays as it was; gives what that is."""
        kept = []
        for name, one in self.broken.items():
            path, _, alias = name.partition("@")
            if name in before.manifests:
                self.manifests[name], self.places[name] = (
                    before.manifests[name],
                    before.places[name],
                )
            elif not alias and path in before.aliases:
                self.aliases[path] = before.aliases[path]
            elif alias in before.aliases.get(path, {}):
                self.aliases[path][alias] = before.aliases[path][alias]
            elif self.routes.keep(name, before.routes):
                pass
            else:
                continue
            kept.append(one)
        return kept

    def _part_from_nothing(self) -> None:
        """An alias of a version that does not exist is broken."""
        for path, known in self.aliases.items():
            for alias, target in list(known.items()):
                full_name = f"{path}@{target.version}"
                if full_name not in self.manifests and full_name not in self.broken:
                    name = f"{path}@{alias}"
                    self.broken[name] = _leads_nowhere(name, target)
                    del known[alias]

    def default(self, task: str) -> str:
        """The name of the model that serves a task when none is named.

        Raises:
            Refuse: routes.toml names none.
        """
        if (name := self.routes.defaults.get(task)) is None:
            self._check_routes(routes.DEFAULTS.name(task), routes.FILE)
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
        full_name = self.full_name(name)
        if full_name not in self.manifests:
            raise self.broken[full_name].error
        return self.manifests[full_name]

    def full_name(self, name: str) -> str:
        """The full name that a name of any kind leads to; its manifest may be broken.

        Raises:
            Refuse: as ``find``.
        """
        if name not in self.routes.aliases and name not in self.routes.route:
            self._check_routes(routes.ALIASES.name(name), routes.ROUTE.name(name))
        target = self.routes.aliases.get(name, name)
        if target in self.manifests or self._is_broken_version(target):
            return target
        if match := _NAME.match(target):
            path, version = match["path"], match["version"]
            if numbers := self.numbers(path):
                if version is None:
                    return f"{path}@{numbers[-1]}"
                if not version.isdigit():
                    return self._by_alias(path, version, numbers[-1])
        if target in self.broken:
            raise self.broken[target].error
        if "/" not in name:
            self._check_routes(routes.FILE)
        raise self._unknown(name, target)

    def _is_broken_version(self, name: str) -> bool:
        return name in self.broken and self.broken[name].file.endswith(MANIFEST)

    def place(self, full_name: str) -> Path:
        """The file of a version's manifest, sound or broken."""
        if full_name in self.places:
            return self.places[full_name]
        return Path(self.broken[full_name].file)

    def broken_routes(self) -> dict[str, Refuse]:
        """What is wrong in ``routes.toml``, by what it is called."""
        return {name: one.error for name, one in self.broken.items() if routes.is_of_routes(name)}

    def sound_routes(self) -> None:
        """Refuse what must know every route where one cannot be read."""
        self._check_routes(*self.broken_routes())

    def _check_routes(self, *names: str) -> None:
        for name in names:
            if name in self.broken:
                raise self.broken[name].error

    def versions(self, path: str) -> list[Manifest]:
        """All versions of ``task/name``, the newest last."""
        found = [m for m in self.manifests.values() if f"{m.task}/{m.name}" == path]
        return sorted(found, key=lambda manifest: manifest.version)

    def numbers(self, path: str) -> list[int]:
        """The numbers of all versions of ``task/name``, broken ones too, the largest last."""
        names = {*self.manifests, *self.broken}
        parts = (name.partition("@") for name in names)
        return sorted(int(n) for one, _, n in parts if one == path and _NUMBER.match(n))

    def sound(self, path: str) -> None:
        """Refuse what uses the aliases of ``task/name`` where they cannot be read."""
        if path in self.broken:
            raise self.broken[path].error

    def aliases_of(self, full_name: str) -> list[str]:
        """The aliases that point to a version now."""
        path, _, version = full_name.partition("@")
        known = self.aliases.get(path, {})
        return sorted(name for name, alias in known.items() if str(alias.version) == version)

    def routed(self, full_name: str) -> list[str]:
        """What leads to a version: ``default of embed``, ``short name e5``, ``route sales``."""
        said = self.routes
        ways = [(routes.DEFAULTS.name(task), name) for task, name in said.defaults.items()]
        ways += [(routes.ALIASES.name(short), name) for short, name in said.aliases.items()]
        for route, spec in said.route.items():
            ways += [(routes.ROUTE.name(route), name) for name in (*spec.models, spec.shadow)]
        return sorted({way for way, name in ways if name and self._leads(name, full_name)})

    def stamps(self) -> tuple[Stamp, ...]:
        """What changes when a route or an alias does: compare with that of an earlier moment."""
        models = {name.partition("@")[0] for name in (*self.manifests, *self.broken)}
        return tuple(_stamps(self.folders, sorted(models)))

    def _leads(self, name: str, full_name: str) -> bool:
        try:
            return self.full_name(name) == full_name
        except Refuse:
            return False

    def _by_alias(self, path: str, alias: str, newest: int) -> str:
        known = self.aliases.get(path, {})
        if (target := known.get(alias)) is not None:
            return f"{path}@{target.version}"
        for name in (path, f"{path}@{alias}"):
            if name in self.broken:
                raise self.broken[name].error
        has = f"it has {', '.join(sorted(known))}" if known else "it has none"
        raise Refuse(
            "models.alias",
            f"{path} has no alias {alias!r}; {has}",
            f"run `streamapp models promote {path}@{newest} --alias {alias}`",
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


def read_manifests(
    folders: Sequence[Path], broken: dict[str, Broken], check: Check = unchecked
) -> tuple[dict[str, Manifest], dict[str, Path]]:
    """Every manifest below the folders by full name, and its file; the first folder wins.

    The last one must be there; one before it may come into being later.

    Args:
        folders: where to look.
        broken: gets those that are wrong, or lie where another name is expected.
        check: refuses one for what its file alone does not say.

    Raises:
        Refuse: a folder does not exist.
    """
    found: dict[str, Manifest] = {}
    places: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir() and folder == folders[-1]:
            raise Refuse(
                "models.folder",
                f"no folder {folder}",
                "set models_dir to where manifests are, or add a model: streamapp models add",
            )
        for path in sorted(folder.glob(f"*/*/*/{MANIFEST}")):
            task, name, version = path.relative_to(folder).parts[:3]
            place = f"{task}/{name}@{version}"
            if place in found or place in broken:
                continue
            try:
                manifest = _read(path, folder)
                check(manifest)
                found[place], places[place] = manifest, path
            except Refuse as error:
                broken[place] = Broken(place, str(path), error)
    return found, places


def _read(path: Path, folder: Path) -> Manifest:
    if path.relative_to(folder).parts[0] not in TASKS:
        _refuse_task(path, folder)
    manifest = read_manifest(path)
    _check_place(manifest, path, folder)
    return manifest


def _read_aliases(folders: Sequence[Path], broken: dict[str, Broken]) -> dict[str, Aliases]:
    named: dict[str, Aliases] = {}
    for folder in folders:
        for path in sorted(folder.glob(f"*/*/{aliases.FILE}")):
            name = path.parent.relative_to(folder).as_posix()
            if name in named or name in broken:
                continue
            try:
                named[name] = aliases.read_aliases(path.parent)
            except Refuse as error:
                broken[name] = Broken(name, str(path), error)
    return named


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


def _leads_nowhere(name: str, target: Alias) -> Broken:
    path, _, alias = name.partition("@")
    error = Refuse(
        "models.alias",
        f"{name} is version {target.version}, which does not exist",
        f"run `streamapp models promote {path}@VERSION --alias {alias}`",
    )
    return Broken(name, f"{path}/{aliases.FILE}", error)


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
