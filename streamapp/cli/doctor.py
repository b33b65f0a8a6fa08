"""``streamapp doctor``: check this machine and say how to mend it."""

from textwrap import wrap

import click

from streamapp.cli.framework import command
from streamapp.cli.options import json_option, settings_options
from streamapp.cli.output import print_json, terminal_columns
from streamapp.core.config import Settings

#: Where what a check found begins: behind "ok   " and the check's name.
_INDENT = 20
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@command(
    examples=["streamapp doctor", "streamapp doctor --json | jq '.[] | select(.status != \"ok\")'"]
)
@json_option
@settings_options(
    "broker",
    "topics_dir",
    "models_dir",
    "models_cache",
    "embedding_model",
    "tokenizer_model",
    "ring_path",
    "token",
    "gateway_host",
    "gateway_port",
    "flight_host",
    "flight_port",
    "worker_port",
    "store_port",
    "terminal_port",
)
def doctor(settings: Settings, as_json: bool) -> int:
    """Check python, ports, broker, topics, models, ring, disk and clock; say how to mend each.

    Changes nothing.  The exit code is 1 when a check fails; a warning costs nothing.
    """
    from streamapp.cli.checks import run_checks

    done = []
    for check in run_checks(settings):
        done.append(check)
        if as_json:
            continue
        click.secho(f"{check.status:4} ", fg=_COLOURS[check.status], nl=False)
        click.echo(f" {check.name:14} {_hanging(check.detail)}")
        if check.fix:
            click.echo(f"{'':{_INDENT}}{_hanging(f'mend: {check.fix}')}")
    if as_json:
        print_json([check._asdict() for check in done])
    return 1 if any(check.status == "fail" for check in done) else 0


def _hanging(text: str) -> str:
    """Text that goes on under its own beginning where a terminal is too narrow for it."""
    columns = terminal_columns()
    if columns is None or _INDENT + len(text) <= columns:
        return text
    lines = wrap(text, max(columns - _INDENT, 20), break_on_hyphens=False)
    return f"\n{'':{_INDENT}}".join(lines)
