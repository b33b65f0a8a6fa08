"""Where declared rows are: files by path and pattern, URLs with their secrets, outputs."""

import glob
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from streamapp.core.errors import Refuse
from streamapp.core.project import read_secret
from streamapp.workflow.data.contract import Key

#: Files of one input; a pattern that finds more is a mistake.
FILES_MAX = 100_000


def check_keys(given: Iterable[str], takes: frozenset[Key], form: str, origin: str) -> None:
    """Refuse keys that the format has no use for, and a place that is not said."""
    given = list(given)
    for key in given:
        if key not in takes:
            raise Refuse(
                "data.place",
                f"{origin} has {key!r}, which the format {form} does not take",
                f"it takes {', '.join(sorted(takes))}",
            )
    where = takes & {"path", "pattern", "url"}
    if len(set(given) & where) != 1:
        raise Refuse(
            "data.place",
            f"{origin} says {'twice' if set(given) & where else 'not'} where its rows are",
            f"give one of {', '.join(sorted(where))}",
        )


def one_file(path: str, folder: Path, origin: str) -> Path:
    """The declared file.

    Raises:
        Refuse: there is none, or it cannot be read; with one of a similar name.
    """
    try:
        found = (folder / Path(path).expanduser()).absolute()
        if found.is_file():
            return found
    except (OSError, RuntimeError) as error:  # a name too long, or no such user
        why = getattr(error, "strerror", None) or str(error)
        raise Refuse("data.missing", f"{origin}: {path}: {why}", "correct the path") from None
    from difflib import get_close_matches

    folder_of = found.parent
    beside = [p.name for p in folder_of.iterdir() if p.is_file()] if folder_of.is_dir() else []
    near = get_close_matches(found.name, beside, 1)
    what = "there is no such file"
    if found.exists():
        what = "is a folder" if found.is_dir() else "is no file, but a device or a pipe"
    fix = f"did you mean {found.parent / near[0]}?" if near else f"paths begin at {folder}"
    raise Refuse("data.missing", f"{origin}: {path}: {what}", fix)


def find_files(pattern: str | tuple[str, ...], folder: Path, origin: str) -> tuple[Path, ...]:
    """The files that any of the patterns finds, sorted; ``**`` also looks in folders below.

    Raises:
        Refuse: one of the patterns finds none, or all find more than ``FILES_MAX``.
    """
    patterns = (pattern,) if isinstance(pattern, str) else pattern
    found: set[Path] = set()
    for one in patterns:
        whole = str(Path(glob.escape(str(folder.absolute()))) / one)
        matches = glob.iglob(whole, recursive=True)  # noqa: PTH207  # a pattern may be absolute
        finds = False
        for match in matches:
            if (path := Path(match)).is_file():
                finds = True
                found.add(path)
            if len(found) > FILES_MAX:
                raise Refuse(
                    "data.files_max",
                    f"{origin}: {one!r} finds more than {FILES_MAX} files",
                    "narrow the pattern, or put the rows into fewer files",
                )
        if not finds:
            raise Refuse(
                "data.missing", f"{origin}: no file matches {one!r}", f"patterns begin at {folder}"
            )
    return tuple(sorted(found))


def file_below(path: str, folder: Path, origin: str) -> Path:
    """The file that is written, which is inside of ``folder``.

    Raises:
        Refuse: it would be elsewhere.
    """
    if "\0" in path:
        raise Refuse("data.place", f"{origin}: {path!r} is no path", "leave the NUL out")
    target = (folder / path).absolute()
    if not target.resolve().is_relative_to(folder.resolve()):
        raise Refuse(
            "data.outside",
            f"{origin}: {path} is outside of {folder}",
            "give a path below the folder of outputs, or another such folder",
        )
    return target


def resolve_url(declared: str, folder: Path, origin: str) -> tuple[str, str]:
    """The URL that is used, and how it is shown.

    Args:
        declared: a URL, or ``env:NAME`` or ``file:PATH`` where it has a secret in it.
        folder: where such a PATH begins.
        origin: the input, source or output, for messages.

    Raises:
        Refuse: the secret is not there, or a password is written out.
    """
    if not declared:
        return "", ""
    if declared.startswith(("env:", "file:")):
        return read_secret(declared, folder).strip(), declared
    try:
        parts = urlsplit(declared)
    except ValueError as error:
        raise Refuse("data.url", f"{origin}: its URL is none: {error}", "correct it") from None
    if parts.password:
        raise Refuse(
            "data.secret",
            f"{origin}: its URL has a password written out",
            "put the URL into the environment or a file, and write env:NAME or file:PATH",
        )
    return declared, urlunsplit(parts._replace(query="", fragment=""))
