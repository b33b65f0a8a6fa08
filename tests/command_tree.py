"""All verbs of the command line, walked by its own parser."""

import click

from streamapp.cli.app import VERBS, streamapp


def every_command() -> list[tuple[str, click.Command]]:
    """All verbs and their verbs, by what one types."""
    found = []
    for name in VERBS:
        command = streamapp.get_command(click.Context(streamapp), name)
        found.append((name, command))
        found += _below(name, command)
    return found


def _below(path: str, command: click.Command) -> list[tuple[str, click.Command]]:
    found = []
    for name, sub in getattr(command, "commands", {}).items():
        found += [(f"{path} {name}", sub), *_below(f"{path} {name}", sub)]
    return found
