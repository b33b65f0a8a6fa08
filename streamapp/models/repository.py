"""What changes a catalogue: models are added, promoted, rolled back and removed.

Changes are made in one folder, ``own``: the project's ``models/``, or one under the home where
models are used as installed.  One process at a time makes one, and what it goes by is read again
when its turn has come: what is in use is not removed, what was removed is not promoted.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from streamapp.core.errors import Refuse
from streamapp.models import aliases
from streamapp.models.aliases import Alias
from streamapp.models.manifest import Manifest
from streamapp.models.registry import Registry


@dataclass(frozen=True, slots=True)
class Promoted:
    """An alias as it is now; ``before`` is the version that it pointed to, None for a new one."""

    manifest: Manifest
    alias: str
    before: int | None


class Repository:
    """The changes.

    Args:
        registry: what there is.
        own: the folder that is written.
    """

    def __init__(self, registry: Registry, own: Path) -> None:
        self._registry, self._own = registry, own

    def promote(self, name: str, alias: str, *, unpulled: bool = False) -> Promoted:
        """Point an alias of a model to one of its versions; workers that run change over.

        Args:
            name: ``task/name@version``.
            alias: ``champion``, ``challenger`` or another word.
            unpulled: also to a version whose files are not on this machine.

        Raises:
            Refuse: no such version, it was not pulled, or the folder cannot be written.
        """
        with self._alone():
            manifest = self._registry.manifest(name)
            if not unpulled:
                self._check_pulled(manifest, alias)
            known = self._known(manifest)
            before = known.get(alias)
            aliases.promote(self._folder(manifest), alias, manifest.version, known)
        return Promoted(manifest, alias, before.version if before else None)

    def rollback(self, name: str, alias: str, *, unpulled: bool = False) -> Promoted:
        """Point an alias to the version that it pointed to before.

        Args:
            name: ``task/name``, without a version.
            alias: one that was promoted.
            unpulled: also to a version whose files are not on this machine.

        Raises:
            Refuse: no such model or alias, it never pointed elsewhere, that version was not
                pulled, or the name says a version.
        """
        if "@" in name:
            raise Refuse(
                "models.alias",
                f"{name!r} names a version, and an alias goes back to the one that it came from",
                f"run `streamapp models rollback {name.partition('@')[0]} --alias {alias}`, "
                "or promote the version that you want",
            )
        with self._alone():
            manifest = self._registry.manifest(name)
            known = self._known(manifest)
            before = known.get(alias)
            if before and before.before and not unpulled:
                version = f"{manifest.task}/{manifest.name}@{before.before[-1]}"
                self._check_pulled(self._registry.manifest(version), alias)
            now = aliases.rollback(self._folder(manifest), alias, known)
        path = f"{manifest.task}/{manifest.name}@{now.version}"
        return Promoted(self._registry.manifest(path), alias, before.version if before else None)

    def remove(self, name: str, *, force: bool = False) -> list[Path]:
        """Remove a version's files, and its manifest where it lies in ``own``; what was removed.

        Args:
            name: ``task/name@version``, of a manifest that may be broken; the version may be left
                out where there is only one.
            force: also when an alias, a route, a default or a short name leads to it.

        Raises:
            Refuse: no such version, something leads to it, or its aliases, or without ``force`` a
                route, cannot be read; a folder cannot be removed.
        """
        with self._alone():
            return self._remove(name, force=force)

    def _remove(self, name: str, *, force: bool) -> list[Path]:
        catalogue = self._registry.catalogue
        full_name = catalogue.full_name(name)
        path, _, version = full_name.partition("@")
        if "@" not in name and len(numbers := catalogue.numbers(path)) > 1:
            raise Refuse(
                "models.remove",
                f"{name!r} is several versions: {', '.join(map(str, numbers))}",
                f"say which, such as {full_name}",
            )
        catalogue.sound(path)
        if not force:
            self._check_unused(full_name)
        place = catalogue.place(full_name).parent
        folders = [self._registry.kept(full_name)]
        if place.is_relative_to(self._own):
            folders.append(place)
            if version.isdigit():  # what is broken may lie anywhere
                aliases.note_removed(self._own / path, int(version))
                aliases.forget(self._own / path, int(version))
        return [folder for folder in folders if _removed(folder)]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else changes ``own``, and the catalogue is what holds now."""
        with aliases.alone(self._own):
            self._registry.catalogue = self._registry.catalogue.again()
            yield

    def _check_unused(self, full_name: str) -> None:
        catalogue = self._registry.catalogue
        catalogue.sound_routes()
        leads = [f"alias {alias}" for alias in catalogue.aliases_of(full_name)]
        leads += catalogue.routed(full_name)
        if leads:
            raise Refuse(
                "models.routed",
                f"{full_name} is in use: {', '.join(leads)}",
                "lead them elsewhere first, or say --force",
            )

    def _check_pulled(self, manifest: Manifest, alias: str) -> None:
        if not self._registry.status(manifest.full_name).pulled:
            raise Refuse(
                "models.not_pulled",
                f"{manifest.full_name} is not here: who follows {alias!r} could not open it",
                f"run `streamapp models pull {manifest.full_name}` first, or say --unpulled",
            )

    def _folder(self, manifest: Manifest) -> Path:
        return self._own / manifest.task / manifest.name

    def _known(self, manifest: Manifest) -> dict[str, Alias]:
        return self._registry.catalogue.aliases.get(f"{manifest.task}/{manifest.name}", {})


def _removed(folder: Path) -> bool:
    """Take a folder out of sight at once and then away; False when there is none."""
    gone = folder.with_name(f".gone-{folder.name}-{os.getpid()}")
    try:
        folder.rename(gone)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Refuse(
            "models.remove", f"cannot remove {folder}: {error.strerror}", "check its mode"
        ) from None
    shutil.rmtree(gone, ignore_errors=True)
    _prune(folder.parent)
    return True


def _prune(folder: Path) -> None:
    """Remove the folder of a name without versions."""
    try:
        folder.rmdir()
    except OSError:
        return
