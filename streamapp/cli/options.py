"""Options that several verbs share, and settings as flags."""

from collections.abc import Callable, Mapping
from dataclasses import Field
from functools import wraps
from math import isfinite
from pathlib import Path
from typing import Any

import click

from streamapp.core.config import Settings, describe, load
from streamapp.core.project import read_secret

Command = Callable[..., Any]

_SEEN = ".  Say env:NAME or file:PATH: others see in ps what is written out"

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class NumberRange(click.FloatRange):
    """A float within limits; ``nan``, which no limit stops, is none, and so is ``inf``."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        return number if isfinite(number) else self.fail(f"{value!r} is not a number.", param, ctx)


class PlaceParam(click.Path):
    """A file or folder that somebody else may write; an empty one would be the working folder."""

    def __init__(self, *, dir_okay: bool = True) -> None:
        super().__init__(dir_okay=dir_okay, readable=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See :class:`click.ParamType`."""
        if not str(value).strip():
            self.fail("the path is empty.", param, ctx)
        return super().convert(value, param, ctx)


class NameParam(click.ParamType):
    """The name of one of several things; an empty one, as of a variable unset, is not the default.

    The command gets None where none is given.
    """

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See :class:`click.ParamType`."""
        return value if value.strip() else self.fail("the name is empty.", param, ctx)


class SecretParam(click.ParamType):
    """A secret, or where it is: what is written out, every user of the machine sees in ``ps``."""

    name = "secret"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002  # click's signature
        """The secret; see :class:`click.ParamType`."""
        is_reference = value.startswith(("env:", "file:"))
        return read_secret(value, Path.cwd()) if is_reference else value


def setting_flags(*names: str) -> Callable[[Command], Command]:
    """A flag for each named setting; the command gets their values, None where not given.

    Names, meanings and defaults are those declared in :mod:`streamapp.core.config`, which also
    checks the values.
    """
    declared = {field.name: field for field in describe()}

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            field = declared[name]
            is_secret = field.metadata["secret"]
            command = click.option(
                f"--{name.replace('_', '-')}",
                name,
                type=SecretParam() if is_secret else None,
                metavar="SECRET" if is_secret else _metavar(str(field.type)),
                help=_help(field),
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


def _help(field: Field[Any]) -> str:
    about = field.metadata["about"]
    if not about.startswith(field.metadata["one_of"]):  # values stand as they are typed
        about = about[0].upper() + about[1:]
    if "(default:" not in about and field.default not in {None, ""}:
        about += f" (default: {field.default})"
    return f"{about}{_SEEN}" if field.metadata["secret"] else str(about)


def _metavar(kind: str) -> str:
    if "int" in kind:
        return "N"
    return "PATH" if Path.__name__ in kind else "TEXT"


def missing_log(settings: Settings) -> Path | None:
    """The embedded log's folder when it is not there; asking the log would create it."""
    scheme, _, folder = settings.broker_url.partition("://")
    return Path(folder) if scheme == "local" and not Path(folder).exists() else None
