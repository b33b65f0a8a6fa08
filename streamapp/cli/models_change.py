"""``streamapp models add``, ``promote``, ``rollback`` and ``rm``: what changes the catalogue."""

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamapp.cli.framework import command
from streamapp.cli.options import NameParam, PlaceParam, json_option, settings_options
from streamapp.cli.output import print_json
from streamapp.core.config import Settings
from streamapp.core.errors import Refuse

if TYPE_CHECKING:
    from streamapp.models.repository import Promoted, Repository

_PATHS = ("models_dir", "models_cache")
_FILE = PlaceParam(dir_okay=False)


@command(
    examples=[
        "streamapp models add risk.onnx --task tensor --name risk --licence MIT",
        "streamapp models add e5.onnx --task embed --name e5 --tokenizer tokenizer.json",
        "streamapp models add new.onnx --task tensor --name risk --parent tensor/risk@2",
    ],
)
@click.argument("file", type=_FILE)
@click.option("--task", required=True, help="embed, entities, classify, head or tensor.")
@click.option("--name", required=True, help="What it is called: lower case, digits, - . _")
@click.option("--version", type=click.IntRange(min=1), help="Default: one more than the newest.")
@click.option("--tokenizer", type=_FILE, help="Its tokenizer.json.")
@click.option("--with", "files", multiple=True, type=_FILE, help="A file that the graph needs.")
@click.option("--source", "sources", multiple=True, help="Where others get FILE: hf:, https:, ...")
@click.option("--about", default="", help="One line about it.")
@click.option("--licence", default="not declared", help="Of the weights.")
@click.option("--parent", default="", help="The model that it was trained or converted from.")
@click.option("--run", "training_run", default="", help="The training run, as its system names it.")
@click.option("--data", default="", help="What it was trained on.")
@click.option("--set", "values", multiple=True, metavar="KEY=VALUE", help="Any key of a manifest.")
@json_option
@settings_options(*_PATHS)
def add(settings: Settings, file: Path, as_json: bool, **given: Any) -> None:
    """Declare a model of your own: FILE is an ONNX graph.

    Its inputs and outputs are read from it, the manifest is written with an example, the sha256
    and its lineage, and the model is pulled: fetched, opened, run. When that fails nothing stays.
    """
    from streamapp.cli.models_pull import bars
    from streamapp.compose import registry as open_registry
    from streamapp.models.adding import Offer
    from streamapp.models.adding import add as add_model

    offer = Offer(
        task=given["task"],
        name=given["name"],
        model=file,
        tokenizer=given["tokenizer"],
        files=given["files"],
        version=given["version"],
        about=given["about"],
        licence=given["licence"],
        sources=given["sources"],
        lineage=_lineage(file, given),
        values=dict(map(_assigned, given["values"])),
    )
    with _made(settings.models_own), bars() as progress:
        manifest = add_model(open_registry(settings), settings.models_own, offer, progress)
    place = settings.models_own / manifest.task / manifest.name / str(manifest.version)
    if as_json:
        print_json({"name": manifest.full_name, "manifest": place / "manifest.toml"})
        return
    click.echo(f"{manifest.full_name}: declared in {place}/manifest.toml, verified")


@command(
    examples=[
        "streamapp models promote tensor/risk@2 --alias champion",
        "streamapp models promote embed/multilingual-e5-small@1 --alias challenger",
    ],
)
@click.argument("name", type=NameParam())
@click.option("--alias", default="champion", show_default=True, help="The alias to move.")
@click.option("--unpulled", is_flag=True, help="Also if its files are not on this machine.")
@json_option
@settings_options(*_PATHS)
def promote(settings: Settings, name: str, alias: str, unpulled: bool, as_json: bool) -> None:
    """Point an alias of a model to a version: NAME is TASK/NAME@VERSION.

    Workers that follow TASK/NAME@ALIAS open the version beside the one they have, and change over
    between two batches.
    """
    _say(_repository(settings).promote(name, alias, unpulled=unpulled), as_json)


@command(examples=["streamapp models rollback tensor/risk --alias champion"])
@click.argument("name", type=NameParam())
@click.option("--alias", default="champion", show_default=True, help="The alias to move back.")
@click.option("--unpulled", is_flag=True, help="Also if its files are not on this machine.")
@json_option
@settings_options(*_PATHS)
def rollback(settings: Settings, name: str, alias: str, unpulled: bool, as_json: bool) -> None:
    """Point an alias to the version that it pointed to before the last promotion."""
    _say(_repository(settings).rollback(name, alias, unpulled=unpulled), as_json)


@command(
    examples=["streamapp models rm tensor/risk@1", "streamapp models rm tensor/risk@1 --force"]
)
@click.argument("name", type=NameParam())
@click.option("--force", is_flag=True, help="Also if an alias or a route leads to it.")
@json_option
@settings_options(*_PATHS)
def rm(settings: Settings, name: str, force: bool, as_json: bool) -> None:
    """Remove a version: its files here, and its manifest if it was added."""
    removed = _repository(settings).remove(name, force=force)
    if as_json:
        print_json({"removed": removed})
        return
    for path in removed:
        click.echo(f"removed {path}")
    if not removed:
        click.echo("nothing of it was here")


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A folder, made where there is none; when what is done in it fails it goes again."""
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refuse(
            "models.add",
            f"cannot make {folder}: {error.strerror}",
            "set models_dir to a folder, or to where one can be made",
        ) from None
    try:
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise


def _repository(settings: Settings) -> "Repository":
    from streamapp.compose import registry
    from streamapp.models.repository import Repository

    return Repository(registry(settings), settings.models_own)


def _say(promoted: "Promoted", as_json: bool) -> None:
    manifest = promoted.manifest
    if as_json:
        print_json({"name": manifest.full_name, "alias": promoted.alias, "before": promoted.before})
        return
    was = "new" if promoted.before is None else f"was @{promoted.before}"
    if promoted.before == manifest.version:
        was = "as before"
    click.echo(f"{manifest.task}/{manifest.name}@{promoted.alias} is @{manifest.version} ({was})")


def _lineage(file: Path, given: dict[str, Any]) -> Any:
    from datetime import UTC, datetime

    from streamapp.core.clock import now_us
    from streamapp.models.manifest import Lineage
    from streamapp.models.receipt import sha256_of

    created = datetime.fromtimestamp(now_us() / 1e6, UTC).isoformat(timespec="seconds")
    return Lineage(
        parent=given["parent"],
        run=given["training_run"],
        data=given["data"],
        source_sha256=sha256_of(file) if file.is_file() else "",
        created=created.replace("+00:00", "Z"),
    )


def _assigned(text: str) -> tuple[str, Any]:
    """``dim=384`` to its key and TOML value; what is no TOML is a text."""
    key, is_assigned, value = text.partition("=")
    if not is_assigned or not key.strip():
        raise Refuse("models.set", f"--set {text!r} is no KEY=VALUE", "write --set dim=384")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value
