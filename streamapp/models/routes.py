"""``models/routes.toml``: which model serves a task when none is named, and short names."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from streamapp.core.config import read_toml
from streamapp.models.declaration import converted
from streamapp.models.routing.spec import RouteSpec, check_route

FILE = "routes.toml"


class Routes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``defaults``: task to model; ``aliases``: short name to model; ``route``: see ``routing``."""

    defaults: dict[str, str] = {}
    aliases: dict[str, str] = {}
    route: dict[str, RouteSpec] = {}


def read_routes(folders: Iterable[Path]) -> Routes:
    """All ``routes.toml`` as one; the first folder that says something wins."""
    defaults: dict[str, str] = {}
    aliases: dict[str, str] = {}
    route: dict[str, RouteSpec] = {}
    for folder in folders:
        if (path := folder / FILE).is_file():
            routes = _read(path)
            defaults = {**routes.defaults, **defaults}
            aliases = {**routes.aliases, **aliases}
            route = {**routes.route, **route}
    for name, spec in route.items():
        check_route(name, spec)
    return Routes(defaults=defaults, aliases=aliases, route=route)


def _read(path: Path) -> Routes:
    """One file; each route alone, so that what is wrong is told with the route's name."""
    content: dict[str, Any] = read_toml(path)
    tables = content.get("route", {})
    if not isinstance(tables, dict):
        return converted(content, Routes, path, _fix)
    route = {
        name: converted(table, RouteSpec, f"{path}: [route.{name}]", _fix)
        for name, table in tables.items()
    }
    routes = converted({**content, "route": {}}, Routes, path, _fix)
    return msgspec.structs.replace(routes, route=route)


def _fix(key: str) -> str:
    return f"correct {key or 'it'} in routes.toml"
