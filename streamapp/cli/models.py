"""``streamapp models``: list and fetch model files."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from streamapp.cli.framework import group
from streamapp.cli.options import json_option, settings_options
from streamapp.cli.output import bytes_text, console, print_json, print_table
from streamapp.core.config import Settings

if TYPE_CHECKING:
    from streamapp.models import ModelStatus, Progress, Registry

_PATHS = ("models_dir", "models_cache")


@group(examples=["streamapp models list", "streamapp models pull"])
def models() -> None:
    """List and fetch model files.

    A manifest names a model's files, their sha256 and the sources to try; weights are never part of
    a package or a repository.
    """


@models.command("list", examples=["streamapp models list", "streamapp models list --json"])
@json_option
@settings_options(*_PATHS)
def list_models(settings: Settings, as_json: bool) -> None:
    """List every model that is declared and whether its files are here."""
    from streamapp.compose import registry as open_registry

    registry = open_registry(settings)
    found = [(manifest, registry.status(manifest.full_name)) for manifest in registry.list()]
    if as_json:
        print_json([_as_dict(status) | {"about": manifest.about} for manifest, status in found])
        return
    rows = [
        (
            status.name,
            "default" if status.default else "",
            bytes_text(status.bytes) if status.pulled else "not pulled",
            manifest.dim,
            manifest.licence,
            manifest.about,
        )
        for manifest, status in found
    ]
    print_table(("model", "", "here", "dim", "licence", "about"), rows, right=("dim",))


@models.command(examples=["streamapp models show embed/multilingual-e5-small"])
@click.argument("name", required=False)
@json_option
@settings_options(*_PATHS)
def show(settings: Settings, name: str | None, as_json: bool) -> None:
    """Show one model: its manifest, its files, and what a pull measured."""
    import msgspec

    from streamapp.compose import registry as open_registry

    registry = open_registry(settings)
    manifest, status = registry.manifest(name), registry.status(name)
    if as_json:
        print_json({"status": _as_dict(status), "manifest": msgspec.to_builtins(manifest)})
        return
    here = f"{bytes_text(status.bytes)} in {status.folder}"
    cosine = "" if status.cosine_min is None else f"{status.cosine_min:.6f}"
    rows = [
        ("model", manifest.full_name + (" (default)" if status.default else "")),
        ("about", manifest.about),
        ("licence", manifest.licence),
        ("upstream", manifest.upstream),
        ("here", here if status.pulled else "not pulled: streamapp models pull"),
        ("call", f"{manifest.pooling} pooling, {manifest.tokens_max} tokens, dim {manifest.dim}"),
        ("alone = in a batch", cosine or "not measured"),
        *(("file", f"{file.name}  {bytes_text(file.bytes)}") for file in manifest.files),
        *(("source", source) for file in manifest.files for source in file.sources),
    ]
    for title, text in rows:
        click.echo(f"{title:18} {text}")


@models.command(
    examples=[
        "streamapp models pull                                # the default model",
        "streamapp models pull embed/all-minilm-l6-v2",
        "streamapp models pull --all",
    ],
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Pull every model that is declared.")
@json_option
@settings_options(*_PATHS)
def pull(settings: Settings, names: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Fetch, verify, build and test models; without a NAME the default one.

    Each file comes from the first source that answers and must have the sha256 that the manifest
    names.  What is here already is not fetched again; a pull that was cut off goes on.
    """
    from streamapp.compose import registry as open_registry

    registry = open_registry(settings)
    wanted = [manifest.full_name for manifest in registry.list()] if everything else list(names)
    statuses = pull_with_progress(registry, wanted or [registry.manifest().full_name])
    if as_json:
        print_json([_as_dict(status) for status in statuses])
        return
    for status in statuses:
        click.echo(f"{status.name}: {bytes_text(status.bytes)}, verified")


def pull_with_progress(registry: "Registry", names: Iterable[str]) -> "list[ModelStatus]":
    """Pull models one after the other, with a bar per file on a terminal."""
    statuses = []
    for name in names:
        with _bars() as progress:
            statuses.append(registry.pull(name, progress))
    return statuses


def _as_dict(status: "ModelStatus") -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(status)


@contextmanager
def _bars() -> "Iterator[Progress]":
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
    with Progress(*columns, console=screen, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield show
