"""``models/routes.toml``: which model serves a task when none is named, short names, and routes.

What is wrong in it is refused to who uses it, with its file and line, and to nobody else.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from streamapp.core.errors import Refuse
from streamapp.models.broken import Broken
from streamapp.models.declaration import told
from streamapp.models.places import line_of
from streamapp.models.routing.spec import RouteSpec, check_route
from streamapp.models.small import read_short_toml

FILE = "routes.toml"


class Table(NamedTuple):
    """A table of the file: its key, what one of it is called, and of what type that is."""

    key: str
    called: str
    kind: Any

    def name(self, one: str) -> str:
        """What one of it is called when it is broken: ``default of embed``, ``route sales``."""
        return f"{self.called} {one}"


DEFAULTS = Table("defaults", "default of", str)
ALIASES = Table("aliases", "short name", str)
ROUTE = Table("route", "route", RouteSpec)
TABLES = (DEFAULTS, ALIASES, ROUTE)


def is_of_routes(name: str) -> bool:
    """Whether what is broken is of this file."""
    return name == FILE or name.startswith(tuple(f"{table.called} " for table in TABLES))


@dataclass(frozen=True, slots=True)
class Routes:
    """``defaults``: task to model; ``aliases``: short name to model; ``route``: see ``routing``.

    ``places``: route to ``file:line``.
    """

    defaults: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    route: dict[str, RouteSpec] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def table(self, table: Table) -> dict[str, Any]:
        """What was read of a table."""
        found: dict[str, Any] = getattr(self, table.key)
        return found

    def keep(self, name: str, before: "Routes") -> bool:
        """Take what is broken now from an earlier reading that has it; whether there was any."""
        taken = [
            (table, one)
            for table in TABLES
            for one in before.table(table)
            if name in (FILE, table.name(one)) and one not in self.table(table)
        ]
        for table, one in taken:
            self.table(table)[one] = before.table(table)[one]
            if table is ROUTE:
                self.places[one] = before.places[one]
        return bool(taken)


def read_routes(folders: Iterable[Path], broken: dict[str, Broken]) -> Routes:
    """All ``routes.toml`` as one; the first folder that says something wins.

    Args:
        folders: where to look.
        broken: gets what is wrong, by what it is called.  A file of which nothing can be read is
            called ``routes.toml``, and nothing is taken from the folders behind it: it might say
            otherwise.
    """
    found = Routes()
    for folder in folders:
        if (path := folder / FILE).is_file():
            try:
                content = read_short_toml(path)
            except Refuse as error:
                broken[FILE] = Broken(FILE, str(path), error)
                break
            _Reading(path, content, found, broken).run()
    return found


class _Reading:
    """One file, part by part."""

    def __init__(
        self, path: Path, content: dict[str, Any], found: Routes, broken: dict[str, Broken]
    ) -> None:
        self._path, self._content = path, content
        self._text = path.read_bytes().decode(errors="replace")
        self._found, self._broken = found, broken

    def run(self) -> None:
        known = {table.key: table for table in TABLES}
        for key, content in self._content.items():
            if key not in known:
                self._wrong(key, f"is none of {', '.join(known)}")
            elif not isinstance(content, dict):
                self._wrong(key, "must be a table")
            else:
                for name, value in content.items():
                    self._take(known[key], name, value)

    def _take(self, table: Table, name: str, value: Any) -> None:
        """One of a table, unless a folder before has said something of it."""
        if name in self._found.table(table) or table.name(name) in self._broken:
            return
        try:
            self._found.table(table)[name] = self._read(table, name, value)
        except Refuse as error:
            self._broken[table.name(name)] = Broken(table.name(name), str(self._path), error)
            return
        if table is ROUTE:
            self._found.places[name] = self._place(table.key, name)

    def _read(self, table: Table, name: str, value: Any) -> Any:
        """A value as its table has it.

        Raises:
            Refuse: it is of another type, or contradicts itself.
        """
        shown = f"[route.{name}]" if table is ROUTE else f"[{table.key}] {name}"
        try:
            found = msgspec.convert(value, table.kind)
        except msgspec.ValidationError as error:
            key, why = told(str(error))
            place = self._place(table.key, name, *key.split("."))
            fix = f"correct {key or 'it'} in {FILE}"
            raise Refuse("models.declaration", f"{place}: {shown}: {why}", fix) from None
        if isinstance(found, RouteSpec):
            try:
                check_route(name, found)
            except Refuse as error:
                place = self._place(table.key, name)
                raise Refuse(error.code, f"{place}: {error.message}", error.fix) from None
        return found

    def _wrong(self, key: str, why: str) -> None:
        """Something that belongs to no table."""
        fix = f"correct {key} in {FILE}"
        error = Refuse("models.declaration", f"{self._place(key)}: {key!r} {why}", fix)
        self._broken.setdefault(FILE, Broken(FILE, str(self._path), error))

    def _place(self, *keys: str) -> str:
        return f"{self._path}:{line_of(self._text, keys)}"
