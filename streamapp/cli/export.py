"""``streamapp export``: post enriched rows to webhooks, and see to what could not be posted."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from streamapp.cli.framework import group
from streamapp.cli.options import json_option, settings_options
from streamapp.cli.output import harmless, print_json, print_table
from streamapp.core.config import Settings
from streamapp.core.errors import Refuse
from streamapp.core.exports import Export, project_exports

if TYPE_CHECKING:
    from streamapp.agents.exports.dead import Undelivered

EXIT_FAILED = 65  # EX_DATAERR
_COMMON = ("broker", "topics_dir")


@group(
    invoke_without_command=True,
    examples=[
        "streamapp export",
        "streamapp export ls",
        "streamapp export dead",
        "streamapp export replay crm",
    ],
)
@settings_options(*_COMMON, "export_port", "log_level", "drain_s")
def export(settings: Settings) -> None:
    """Post enriched rows to the webhooks that streamapp.toml declares, signed, at least once.

    Run as many as you like: they share the partitions.  SIGTERM finishes the attempts that are
    under way and commits.
    """
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        import logging

        from streamapp.export import run

        logging.basicConfig(level=settings.log_level.upper())
        asyncio.run(run(settings, lambda what: click.echo(f"exporting {what}", err=True)))
    elif any(value is not None for value in context.params.values()):
        verb = f"{context.command_path} {context.invoked_subcommand}"
        raise click.UsageError(f"write the options behind the verb: {verb} --…", context)


@export.command("ls", examples=["streamapp export ls", "streamapp export ls --json"])
@json_option
@settings_options(*_COMMON)
def ls(settings: Settings, as_json: bool) -> None:
    """List the declared exports: where they post, how far they are, what they could not post.

    Their conditions are checked against the workflow's columns.
    """
    from streamapp.export import standing

    found = asyncio.run(standing(settings, _declared()))
    if as_json:
        print_json([one._asdict() for one in found])
        return
    print_table(
        ("export", "webhook", "where", "behind", "dead"),
        [(one.name, harmless(one.webhook), one.where, one.behind, one.dead) for one in found],
        right=("behind", "dead"),
    )


@export.command("dead", examples=["streamapp export dead", "streamapp export dead crm --json"])
@click.argument("name", required=False)
@json_option
@settings_options(*_COMMON)
def dead(settings: Settings, name: str | None, as_json: bool) -> None:
    """List the messages that no receiver took and nobody replayed."""
    from streamapp.export import letters

    found = asyncio.run(letters(settings, name))
    if name is not None and not found:  # of one that is declared no more there may be some yet
        _refuse_unknown(name, _declared())
    if as_json:
        print_json([_as_dict(one) for one in found])
        return
    print_table(
        ("offset", "export", "id", "code", "reason"),
        [
            (one.offset, harmless(one.export), one.id, one.code, harmless(one.reason))
            for one in found
        ],
        right=("offset",),
    )


@export.command(
    "replay",
    examples=[
        "streamapp export replay",
        "streamapp export replay crm",
        "streamapp export replay crm --offset 17 --offset 18 --json",
    ],
)
@click.argument("name", required=False)
@click.option("--offset", "offsets", multiple=True, type=click.IntRange(min=0), help="Only these.")
@json_option
@settings_options(*_COMMON)
def replay(settings: Settings, name: str | None, offsets: Sequence[int], as_json: bool) -> None:
    """Post dead letters once more, the oldest first, under their own ids.

    What its receiver takes is marked and not listed any more; exit code 65 when one was not taken.
    """
    from streamapp.export import replayed

    declared = _declared()
    if name is not None:
        _refuse_unknown(name, declared)
    outcomes = asyncio.run(replayed(settings, declared, name, frozenset(offsets)))
    failed = [(one, answer) for one, answer in outcomes if answer.outcome != "delivered"]
    if as_json:
        print_json([{**_as_dict(one), **answer._asdict()} for one, answer in outcomes])
    else:
        for one, answer in failed:
            click.echo(harmless(f"{one.offset}: {answer.outcome}: {answer.reason}"), err=True)
        click.echo(f"{len(outcomes) - len(failed)} delivered, {len(failed)} not")
    if failed:
        raise click.exceptions.Exit(EXIT_FAILED)


def _declared() -> dict[str, Export]:
    found = project_exports()
    if not found:
        raise Refuse(
            "export.none",
            "no exports are declared here",
            "write [exports.NAME] into streamapp.toml, see docs/gateway.md, Exports",
        )
    return found


def _refuse_unknown(name: str, declared: dict[str, Export]) -> None:
    if name not in declared:
        raise Refuse(
            "export.unknown",
            f"no export is called {name[:80]!r}",
            f"declared: {', '.join(sorted(declared))}",
        )


def _as_dict(one: "Undelivered") -> dict[str, Any]:
    names = ("offset", "at_ms", "export", "id", "code", "reason")
    return {name: getattr(one, name) for name in names}
