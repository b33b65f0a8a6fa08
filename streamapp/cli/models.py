"""``streamapp models``: what is declared, and what is here of it."""

from typing import TYPE_CHECKING, Any

import click

from streamapp.cli.framework import group
from streamapp.cli.models_bench import bench, tune, words
from streamapp.cli.models_change import add, promote, rm, rollback
from streamapp.cli.models_pull import pull, verify
from streamapp.cli.models_route import route
from streamapp.cli.options import NameParam, json_option, settings_options
from streamapp.cli.output import bytes_text, harmless, print_json, print_table
from streamapp.core.config import Settings
from streamapp.core.errors import Refuse

if TYPE_CHECKING:
    from streamapp.models import Manifest, ModelStatus, Registry
    from streamapp.models.aliases import Alias
    from streamapp.models.broken import Broken

_PATHS = ("models_dir", "models_cache")


@group(
    examples=[
        "streamapp models list",
        "streamapp models pull",
        "streamapp models add model.onnx --task tensor --name risk",
        "streamapp models promote tensor/risk@2 --alias champion",
    ]
)
def models() -> None:
    """Fetch, check, add and promote models.

    A manifest names a model's files, their sha256 and the sources to try; weights are never part of
    a package or a repository.
    """


for _verb in (pull, verify, add, promote, rollback, rm, route, bench, tune):
    models.add_command(_verb)


@models.command(
    "list",
    examples=[
        "streamapp models list",
        "streamapp models list --task embed",
        "streamapp models list --json",
    ],
)
@click.option("--task", help="Only models for this task: embed, entities, classify, ...")
@click.option("--no-ask", is_flag=True, help="Ask no server of a remote model.")
@json_option
@settings_options(*_PATHS)
def list_models(settings: Settings, task: str | None, no_ask: bool, as_json: bool) -> None:
    """List every model that is declared and whether its files are here, or its server answers.

    Servers of remote models are asked side by side, and two seconds are waited for all of them.
    """
    from streamapp.compose import registry as open_registry
    from streamapp.models.manifest import TASKS

    if task not in (None, *TASKS):
        raise Refuse("models.task", f"there is no task {task!r}", f"give one of {', '.join(TASKS)}")
    registry = open_registry(settings)
    found = [
        (manifest, registry.status(manifest.full_name))
        for manifest in registry.list()
        if task in (None, manifest.task)
    ]
    away = {} if no_ask else registry.away()
    broken = [
        one
        for one in registry.catalogue.broken.values()
        if task in (None, one.name.partition("/")[0])
    ]
    if as_json:
        print_json(
            [
                *(
                    as_dict(status) | {"about": manifest.about, "away": away.get(status.name, "")}
                    for manifest, status in found
                ),
                *map(_as_dict_broken, broken),
            ]
        )
        return
    rows = [
        (
            status.name,
            ", ".join([*status.aliases, *(["default"] if status.default else [])]),
            _here(manifest, status) + (" (away, see below)" if status.name in away else ""),
            getattr(manifest, "dim", None),
            manifest.licence,
            manifest.about,
        )
        for manifest, status in found
    ]
    rows += [(one.name, "", "broken, see below", None, "", "") for one in broken]
    print_table(("model", "alias", "here", "dim", "licence", "about"), rows, right=("dim",))
    for why in (away[status.name] for _, status in found if status.name in away):
        click.echo(harmless(f"\n{why}"))
    for one in broken:
        click.echo(harmless(f"\n{one.name}: {one.error.message}\n  fix: {one.error.fix}"))


@models.command(examples=["streamapp models show embed/multilingual-e5-small"])
@click.argument("name", required=False, type=NameParam())
@json_option
@settings_options(*_PATHS)
def show(settings: Settings, name: str | None, as_json: bool) -> None:
    """Show one model: its manifest, its files, what leads to it, and what a pull measured."""
    import msgspec

    from streamapp.compose import registry as open_registry

    registry = open_registry(settings)
    manifest, status = registry.manifest(name), registry.status(name)
    known = registry.catalogue.aliases.get(f"{manifest.task}/{manifest.name}", {})
    if as_json:
        print_json(
            {
                "status": as_dict(status),
                "manifest": msgspec.to_builtins(manifest),
                "aliases": msgspec.to_builtins(known),
                "run_as": _run_as(registry, manifest.full_name),
            }
        )
        return
    rows = [
        ("model", manifest.full_name + (" (default)" if status.default else "")),
        ("about", manifest.about),
        ("licence", manifest.licence),
        ("upstream", manifest.upstream),
        ("format", manifest.format),
        ("here", _here(manifest, status, status.folder)),
        ("run as", _run_as(registry, manifest.full_name)),
        ("used as", ", ".join(status.used)),
        *(("alias", _pointing(alias, to)) for alias, to in known.items()),
        *(("input", f"{key} = {kind}") for key, kind in manifest.inputs.items()),
        *(("output", f"{key} = {kind}") for key, kind in manifest.outputs.items()),
        ("alone = in a batch", _number(status.cosine_min)),
        ("from the original", _number(status.difference)),
        *_lineage(manifest),
        *(("file", f"{file.name}  {bytes_text(file.bytes)}") for file in manifest.files),
        *(("source", source) for file in manifest.files for source in file.sources),
    ]
    for title, text in rows:
        if text:
            click.echo(f"{title:18} {text}")


def _run_as(registry: "Registry", name: str) -> str:
    """The way that ``tune`` chose, or why it cannot be followed; nothing of an untuned model."""
    try:
        tuned = registry.tuned(name)
    except Refuse as error:
        return f"{error.message}: {error.fix}"
    return f"{words(tuned)} (tuned)" if tuned else ""


def _pointing(alias: str, to: "Alias") -> str:
    before = ", ".join(f"@{version}" for version in to.before)
    return f"{alias} is @{to.version}" + (f", was {before}" if before else "")


def as_dict(status: "ModelStatus") -> dict[str, Any]:
    """A status for ``--json``."""
    from dataclasses import asdict

    return asdict(status)


def _as_dict_broken(one: "Broken") -> dict[str, Any]:
    error = one.error
    shown = {"name": one.name, "pulled": False, "default": False, "file": one.file}
    return shown | {"broken": error.message, "code": error.code, "fix": error.fix}


def _here(manifest: "Manifest", status: "ModelStatus", folder: object = None) -> str:
    if not manifest.files:
        return manifest.remote.url if manifest.remote else manifest.function
    if not status.pulled:
        return f"not pulled: streamapp models pull {manifest.full_name}" if folder else "not pulled"
    return bytes_text(status.bytes) + (f" in {folder}" if folder else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _lineage(manifest: "Manifest") -> list[tuple[str, str]]:
    if manifest.lineage is None:
        return []
    return [
        (name.replace("_", " "), str(getattr(manifest.lineage, name)))
        for name in ("parent", "run", "data", "source_sha256", "created")
    ]
