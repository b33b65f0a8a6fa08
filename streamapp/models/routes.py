"""``models/routes.toml``: which model serves a task when none is named, and short names."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from streamapp.models.manifest import read_declared
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
            routes = read_declared(path, Routes)
            defaults = {**routes.defaults, **defaults}
            aliases = {**routes.aliases, **aliases}
            route = {**routes.route, **route}
    for name, spec in route.items():
        check_route(name, spec)
    return Routes(defaults=defaults, aliases=aliases, route=route)
