"""Where each key and value of a file stands, so that an error says file:line:column."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

#: Keys and positions in lists, from the top of the file to a value.
Where = tuple[str | int, ...]
#: Line and column, both from 1.
Place = tuple[int, int]


class Marks:
    """Places of keys and of values, by where they are in the document."""

    def __init__(
        self,
        path: Path | None = None,
        keys: Mapping[Where, Place] | None = None,
        values: Mapping[Where, Place] | None = None,
    ) -> None:
        self.path = path
        self._keys = MappingProxyType(dict(keys or {}))
        self._values = MappingProxyType(dict(values or {}))

    def at(self, *where: str | int, key: bool = False) -> str:
        """``file:line:column`` of a value, or of its key; of the nearest above it that is there.

        Without a file: the path of keys, like ``stages[0].config.model``.
        """
        if self.path is None:
            return dotted(where) or "workflow"
        place = self._place(where, key=key)
        return f"{self.path}:{place[0]}:{place[1]}"

    def _place(self, where: Where, *, key: bool) -> Place:
        first, second = (self._keys, self._values) if key else (self._values, self._keys)
        for length in range(len(where), 0, -1):
            place = first.get(where[:length]) or second.get(where[:length])
            if place:
                return place
        return 1, 1


def dotted(where: Where) -> str:
    """``("stages", 0, "config")`` as ``stages[0].config``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
    return text.removeprefix(".")
