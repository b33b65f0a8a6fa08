"""Aliases of a model's versions: ``models/<task>/<name>/aliases.json``.

``task/name@champion`` is the version that the alias points to now.  Only ``promote``, ``rollback``
and ``forget`` write the file, whole and at once, so that who reads it sees one state or the other;
workers notice that it changed.  Who calls them has the models' folder to himself: ``alone``.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from streamapp.core.errors import Refuse
from streamapp.models.small import GARBLED, read_json

FILE = "aliases.json"
#: Beside it: numbers of versions that were removed.
REMOVED = "removed.json"
#: How many versions back ``rollback`` can go.
BEFORE_MAX = 32
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,31}")


class Alias(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``version`` now, and those ``before`` it, the last one last."""

    version: int
    before: list[int] = []

    def promoted(self, version: int) -> "Alias":
        """Pointing to another version."""
        return Alias(version=version, before=[*self.before, self.version][-BEFORE_MAX:])


Aliases = dict[str, Alias]


def read_aliases(folder: Path) -> Aliases:
    """Alias to version of the model whose versions are in ``folder``; none without a file.

    Raises:
        Refuse: the file is not what this wrote.
    """
    path = folder / FILE
    try:
        return read_json(path, Aliases)
    except FileNotFoundError:
        return {}
    except (OSError, *GARBLED) as error:
        raise Refuse(
            "models.aliases",
            f"{path}: {error}",
            'write {"champion": {"version": 1}}, or delete it and promote again',
        ) from None


def promote(folder: Path, alias: str, version: int, start: Aliases | None = None) -> Alias:
    """Point an alias to a version; the same one again changes nothing.

    Args:
        folder: of the model, where its versions are.
        alias: new, or one that exists.
        version: which must exist; the caller has seen it.
        start: what holds where the folder has no file of its own.

    Raises:
        Refuse: the alias cannot be a name, or the folder cannot be written.
    """
    if not _ALIAS.fullmatch(alias):
        raise Refuse(
            "models.alias",
            f"{alias!r} cannot be an alias",
            "use lower-case letters, digits, - and _, a letter first",
        )
    aliases = read_aliases(folder) or dict(start or {})
    if (now := aliases.get(alias)) is None:
        aliases[alias] = Alias(version=version)
    elif now.version != version:
        aliases[alias] = now.promoted(version)
    _write(folder / FILE, aliases)
    return aliases[alias]


def rollback(folder: Path, alias: str, start: Aliases | None = None) -> Alias:
    """Point an alias to the version that it pointed to before.

    Raises:
        Refuse: there is no such alias, it never pointed elsewhere, or the folder cannot be written.
    """
    aliases = read_aliases(folder) or dict(start or {})
    now = aliases.get(alias)
    if now is None or not now.before:
        why = "was never promoted" if now is None else f"never was another than @{now.version}"
        raise Refuse(
            "models.alias",
            f"alias {alias!r} of {folder.parent.name}/{folder.name} {why}",
            "see `streamapp models show`",
        )
    aliases[alias] = Alias(version=now.before[-1], before=now.before[:-1])
    _write(folder / FILE, aliases)
    return aliases[alias]


def forget(folder: Path, version: int) -> None:
    """Take a version that is removed out of what rollback would go back to.

    Raises:
        Refuse: the file is not what ``promote`` wrote, or the folder cannot be written.
    """
    if not (aliases := read_aliases(folder)):
        return
    for name, alias in list(aliases.items()):
        if alias.version == version:
            del aliases[name]
        elif version in alias.before:
            before = [other for other in alias.before if other != version]
            aliases[name] = Alias(version=alias.version, before=before)
    _write(folder / FILE, aliases)


def removed(folder: Path) -> list[int]:
    """The numbers of versions that were removed from ``folder``: none is given to another.

    Raises:
        Refuse: the file is not what ``note_removed`` wrote.
    """
    path = folder / REMOVED
    try:
        return read_json(path, list[int])
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, *GARBLED) as error:
        raise Refuse(
            "models.removed", f"{path}: {error}", "write [1, 2], the numbers that were removed"
        ) from None


def note_removed(folder: Path, version: int) -> None:
    """Remember a version's number for ever.

    Raises:
        Refuse: the folder cannot be written.
    """
    _write(folder / REMOVED, sorted({*removed(folder), version}))


@contextmanager
def alone(models: Path) -> Iterator[None]:
    """One process at a time changes a folder of models: what it sees within holds until it ends.

    Raises:
        Refuse: there is no such folder and none can be made.
    """
    with ExitStack() as stack:
        with _writing(models):
            models.mkdir(parents=True, exist_ok=True)
            lock = os.open(models, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """An OSError within becomes a Refuse."""
    try:
        yield
    except OSError as error:
        raise Refuse(
            "models.aliases",
            f"cannot write to {folder}: {error.strerror or error}",
            "make the folder writable, or set models_dir to one that is",
        ) from None


def _write(path: Path, content: Aliases | list[int]) -> None:
    """Put the file in place, at once and durably."""
    part = path.with_name(f".{path.name}")
    with _writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(content, order="sorted")) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
