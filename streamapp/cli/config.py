"""``streamapp config``: every setting, its value and where that came from; the project's Python."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamapp.cli.framework import group
from streamapp.cli.interop import interop
from streamapp.cli.options import json_option, setting_flags
from streamapp.cli.output import print_json, print_table
from streamapp.core.config import Settings, describe, env_name, load
from streamapp.topics.catalogue import defaults

_ALL = tuple(field.name for field in describe())


@group(examples=["streamapp config show"])
def config() -> None:
    """Show every setting and where its value came from.

    The first that says something wins: flag, environment, .env, streamapp.toml, default.
    """


config.add_command(interop)


@config.command(
    examples=[
        "streamapp config show",
        "streamapp config show --json | jq .gateway_port",
        "STREAMAPP_GATEWAY_PORT=80 streamapp config show",
    ],
)
@json_option
@setting_flags(*_ALL)
def show(as_json: bool, **flags: str | None) -> None:
    """Print each setting's name, value and origin.

    Secrets are masked.  A setting that derives its default shows what it comes to.
    """
    settings, origins = load(flags)
    rows = []
    for field in describe():
        value = _shown(settings, field.name, secret=field.metadata["secret"])
        where = origins[field.name].where
        rows.append((field.name, value, where, field.metadata["about"]))
    if as_json:
        print_json(
            {
                name: {"value": value, "from": where, "environment": env_name(name), "about": about}
                for name, value, where, about in rows
            }
        )
        return
    print_table(
        ("setting", "value", "from", "about"),
        rows,
        style=lambda row: "dim" if row[2] == "default" else "",
    )


def _shown(settings: Settings, name: str, *, secret: bool) -> Any:
    """The value that counts, fit to be printed."""
    value = getattr(settings, name)
    derived: dict[str, Callable[[], Any]] = {
        "broker": lambda: settings.broker_url,
        "db_path": lambda: settings.store_path,
        "parquet_url": lambda: settings.parquet_root,
        "ring_path": lambda: settings.ring_file,
        "topics_dir": lambda: defaults("topics"),
        "models_dir": lambda: defaults("models"),
    }
    if name in derived and value in {None, ""}:
        value = derived[name]()
    if secret and value:
        return "********"
    return str(value) if isinstance(value, Path) else value
