"""``streamapp stage``: list stages, or start one of your own."""

from pathlib import Path
from typing import Any, NamedTuple

import click

from streamapp.cli.framework import group
from streamapp.cli.options import json_option, settings_options
from streamapp.cli.output import print_json, print_table
from streamapp.core.config import Settings
from streamapp.topics.catalogue import defaults


class StageState(NamedTuple):
    """One stage: whether the workflow runs it, where it is (None: not installed), its options."""

    stage: str
    runs: bool
    where: str | None
    options: dict[str, Any]


@group(examples=["streamapp stage ls", "streamapp stage new word_count"])
def stage() -> None:
    """List stages, or start one of your own.

    A stage adds columns to events.  It is found by its entry point in the group streamapp.stages
    and runs when topics/workflow.toml names it.
    """


@stage.command(examples=["streamapp stage ls", "streamapp stage ls --json"])
@json_option
@settings_options("topics_dir")
def ls(settings: Settings, as_json: bool) -> None:
    """List the stages that are installed, and which of them the workflow runs."""
    from streamapp.workflow.spec import installed_stages, load_workflow

    folder = settings.topics_dir or defaults("topics")
    workflow = load_workflow(folder / "workflow.toml")
    installed = installed_stages()
    names = [*workflow.stages, *sorted(set(installed) - set(workflow.stages))]
    found = [
        StageState(
            name,
            name in workflow.stages,
            installed[name].value if name in installed else None,
            dict(workflow.options.get(name, {})),
        )
        for name in names
    ]
    if as_json:
        print_json([state._asdict() for state in found])
        return
    rows = [
        (
            state.stage,
            "runs" if state.runs else "installed",
            state.where or "not installed",
            ", ".join(state.options),
        )
        for state in found
    ]
    print_table(("stage", "", "from", "options"), rows)


@stage.command(
    examples=[
        "streamapp stage new word_count",
        "streamapp stage new word_count --folder . && pip install -e ./word_count",
    ],
)
@click.argument("name")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("stages"),
    show_default=True,
    help="Where its folder is written.",
)
def new(name: str, folder: Path) -> None:
    """Write a stage called NAME with its test, as a package that can be installed.

    Nothing is overwritten.
    """
    from streamapp.workflow.scaffold import scaffold

    for path in scaffold(name, folder):
        click.echo(f"wrote {path}")
    module = folder / name / f"{name}_stage.py"
    click.echo(f'try it: streamapp invoke {module} --text "two words"')
    click.echo(f"next: pip install -e {folder / name}, then name it in topics/workflow.toml")
