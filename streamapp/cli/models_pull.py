"""``streamapp models pull`` and ``verify``: files fetched, and hashed again."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from streamapp.cli.framework import command
from streamapp.cli.options import NameParam, json_option, settings_options
from streamapp.cli.output import bytes_text, console, print_json
from streamapp.core.config import Settings
from streamapp.core.errors import Refuse

if TYPE_CHECKING:
    from streamapp.models import ModelStatus, Progress, Registry

_PATHS = ("models_dir", "models_cache")


@command(
    examples=[
        "streamapp models pull                                # the default model",
        "streamapp models pull embed/all-minilm-l6-v2",
        "streamapp models pull --all",
    ],
)
@click.argument("names", nargs=-1, type=NameParam(), metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Pull every model that is declared.")
@json_option
@settings_options(*_PATHS)
def pull(settings: Settings, names: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Fetch, verify, build and test models; without a NAME the default one.

    Each file comes from the first source that gives it with the sha256 that the manifest names;
    those that do not are named.  What is here already is not fetched again; a pull that was cut
    off goes on.
    """
    from dataclasses import asdict

    from streamapp.compose import registry as open_registry

    if everything and names:
        raise Refuse("models.pull", f"{names[0]!r} and --all were given", "give one of them")
    registry = open_registry(settings)
    wanted = [manifest.full_name for manifest in registry.list()] if everything else list(names)
    statuses = pull_with_progress(registry, wanted or [registry.manifest().full_name])
    if as_json:
        print_json([asdict(status) for status in statuses])
    else:
        for status in statuses:
            click.echo(f"{status.name}: {_pulled(registry, status)}")
    if everything:
        for broken in registry.catalogue.broken.values():
            raise broken.error  # the others are here


@command(
    examples=[
        "streamapp models verify                              # all that is here",
        "streamapp models verify embed/all-minilm-l6-v2",
    ],
)
@click.argument("names", nargs=-1, type=NameParam(), metavar="[NAME]...")
@json_option
@settings_options(*_PATHS)
def verify(settings: Settings, names: tuple[str, ...], as_json: bool) -> None:
    """Hash the files of models again; without a NAME those of all that are here.

    A model without files of ours, a function or one on a server, is opened and held to its
    manifest; "not proven" says why that cannot be done here.  Ends with 2 when a file is missing
    or is not what was pulled, a manifest is wrong, or a model does not do what it says.
    """
    from streamapp.compose import registry as open_registry

    registry = open_registry(settings)
    wanted = list(names) or [
        manifest.full_name
        for manifest in registry.list()
        if not manifest.files or registry.folder(manifest.full_name).is_dir()
    ]
    found = [_verified(registry, name) for name in wanted]
    if not names:
        found += [
            {"name": one.name, "error": one.error.message, "fix": one.error.fix, "not_proven": ""}
            for one in registry.catalogue.broken.values()
        ]
    if as_json:
        print_json(found)
    else:
        for row in found:
            unproven = f"not proven: {row['not_proven']}" if row["not_proven"] else ""
            click.echo(f"{row['name']}: {row['error'] or unproven or 'verified'}")
    wrong = [row["fix"] for row in found if row["error"]]
    if wrong:
        if not as_json:
            click.echo(f"fix: {wrong[0]}", err=True)
        raise click.exceptions.Exit(Refuse.exit_code)


def _verified(registry: "Registry", name: str) -> dict[str, str]:
    full_name = registry.manifest(name).full_name
    row = {"name": full_name, "error": "", "fix": "", "not_proven": ""}
    try:
        return row | {"not_proven": registry.verify(full_name)}
    except Refuse as error:
        return row | {"error": error.message, "fix": error.fix}


def _pulled(registry: "Registry", status: "ModelStatus") -> str:
    """What a pull did for a model."""
    manifest = registry.manifest(status.name)
    if manifest.files:
        return f"{bytes_text(status.bytes)}, verified"
    how = "opened" if manifest.format == "function" else "asked by `streamapp models verify`"
    return f"nothing to fetch; {how}"


def pull_with_progress(registry: "Registry", names: Iterable[str]) -> "list[ModelStatus]":
    """Pull models one after the other, with a bar per file on a terminal."""
    statuses = []
    for name in names:
        with bars() as progress:
            statuses.append(registry.pull(name, progress))
    return statuses


@contextmanager
def bars() -> "Iterator[Progress]":
    """A bar per file on a terminal, nothing elsewhere."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield lambda _name, _done, _total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=screen, transient=True) as drawn:
        tasks: dict[str, Any] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = drawn.add_task(name, total=total)
            drawn.update(tasks[name], completed=done, total=total)

        yield show
