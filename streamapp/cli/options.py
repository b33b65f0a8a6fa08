"""Options that several verbs share, and settings as flags."""

from collections.abc import Callable, Mapping
from functools import wraps
from math import isnan
from pathlib import Path
from typing import Any

import click

from streamapp.core.config import Settings, describe, load

Command = Callable[..., Any]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class NumberRange(click.FloatRange):
    """A float within limits; ``nan``, which no limit stops, is none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        return self.fail(f"{value!r} is not a number.", param, ctx) if isnan(number) else number


class PlaceParam(click.Path):
    """A file or folder that somebody else may write; an empty one would be the working folder."""

    def __init__(self) -> None:
        super().__init__(readable=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See :class:`click.ParamType`."""
        if not str(value).strip():
            self.fail("the path is empty.", param, ctx)
        return super().convert(value, param, ctx)


def setting_flags(*names: str) -> Callable[[Command], Command]:
    """A flag for each named setting; the command gets their values, None where not given.

    Names, meanings and defaults are those declared in :mod:`streamapp.core.config`, which also
    checks the values.
    """
    declared = {field.name: field for field in describe()}

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            field = declared[name]
            about = field.metadata["about"]
            known = "(default:" in about or field.default in {None, "", 0}
            command = click.option(
                f"--{name.replace('_', '-')}",
                name,
                metavar=_metavar(str(field.type)),
                help=about[0].upper()
                + about[1:]
                + ("" if known else f" (default: {field.default})"),
            )(command)
        return command

    return decorate


def settings_options(*names: str) -> Callable[[Command], Command]:
    """Flags for these settings and ``--home``; the command gets all sources as ``settings``."""
    wanted = ("home", *(name for name in names if name != "home"))

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**arguments: Any) -> Any:
            flags = {name: arguments.pop(name) for name in wanted}
            return command(settings=merged(flags), **arguments)

        return setting_flags(*wanted)(run)

    return decorate


def merged(flags: Mapping[str, Any]) -> Settings:
    """Settings of all sources, these flags first."""
    return load(flags)[0]


def _metavar(kind: str) -> str:
    if "int" in kind:
        return "N"
    return "PATH" if Path.__name__ in kind else "TEXT"


def missing_log(settings: Settings) -> Path | None:
    """The embedded log's folder when it is not there; asking the log would create it."""
    scheme, _, folder = settings.broker_url.partition("://")
    return Path(folder) if scheme == "local" and not Path(folder).exists() else None
