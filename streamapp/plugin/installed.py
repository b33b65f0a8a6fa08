"""What packages bring by entry points: found by name, imported when asked for."""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from streamapp.core.errors import Refuse


def installed(group: str, what: str) -> dict[str, EntryPoint]:
    """The entry points of a group, by name; nothing is imported.

    Args:
        group: like ``streamapp.operations``.
        what: they are, like ``operation``; it begins the code of what is refused.

    Raises:
        Refuse: ``WHAT.twice``: two distributions register one name for different things.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise Refuse(
                f"{what}.twice",
                f"{what} {point.name!r} is registered as {other.value} and as {point.value}",
                f"uninstall one of the packages, or rename its {what}",
            )
    return found


def imported(point: EntryPoint, what: str) -> Any:
    """What an entry point names.

    Raises:
        Refuse: ``WHAT.import``: its package cannot be imported.
    """
    try:
        return point.load()
    except Exception as error:  # a plugin's import may raise anything
        raise Refuse(
            f"{what}.import",
            f"{what} {point.name!r} ({point.value}) cannot be imported: {error!r}",
            "mend the package that registers it, or reinstall it",
        ) from error


def suggest(name: str, offered: Iterable[str], otherwise: str) -> str:
    """``did you mean 'x'?``, or all that there are, after ``otherwise``."""
    offered = list(offered)
    near = get_close_matches(name, offered, 1)
    return f"did you mean {near[0]!r}?" if near else f"{otherwise} {', '.join(offered) or 'none'}"
