"""``streamapp models bench`` and ``tune``: how fast a model runs here, and how it runs fastest."""

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from streamapp.cli.framework import command
from streamapp.cli.options import NameParam, NumberRange, PlaceParam, json_option, settings_options
from streamapp.cli.output import console, print_json, print_table
from streamapp.core.config import Settings
from streamapp.core.errors import Refuse

if TYPE_CHECKING:
    from streamapp.models.registry import Registry
    from streamapp.models.tuned import Tuned
    from streamapp.models.tuning.measure import Measured
    from streamapp.models.tuning.search import Seen
    from streamapp.models.tuning.subjects import Subject

_PATHS = ("models_dir", "models_cache", "threads")
_COLUMNS = ("runtime", "file", "threads", "calls", "batch", "rows/s", "alone p95", "cosine")
#: Texts that are read of a file.
TEXTS_MAX = 1024
#: And of them all together: a device has no end.
CHARS_MAX = 1 << 24
_texts = click.option(
    "--texts",
    type=PlaceParam(dir_okay=False),
    help=f"Texts to measure an embedder on, one a line, at most {TEXTS_MAX}; default: 32 samples.",
)


@command(
    examples=[
        "streamapp models bench embed/multilingual-e5-small",
        "streamapp models bench e5 --backends --texts messages.txt",
        "streamapp models bench tensor/risk --json",
    ],
)
@click.argument("name", required=False, type=NameParam())
@click.option("--backends", is_flag=True, help="Every runtime that is installed, not only its own.")
@_texts
@json_option
@settings_options(*_PATHS)
def bench(
    settings: Settings, name: str | None, backends: bool, texts: Path | None, as_json: bool
) -> None:
    """Measure how fast a model runs here, at several sizes of batches.

    "calls" is how many calls run at once, each on so many "threads"; "alone p95" is the time of a
    single row, in milliseconds. Nothing is changed.
    """
    from streamapp.compose import registry as open_registry
    from streamapp.models.tuning.search import Search

    registry = open_registry(settings)
    subject = _subject(registry, name, texts)
    search = Search(subject, registry.threads, seen=_saying(as_json))
    _warn_if_busy()
    found = search.backends() if backends else search.own()
    _show(found, as_json)


@command(
    examples=[
        "streamapp models tune embed/multilingual-e5-small",
        "streamapp models tune e5 --texts messages.txt --alone-ms-max 20",
        "streamapp models tune tensor/risk --cosine-min 0.9999 --no-variants",
        "streamapp models tune e5 --forget",
    ],
)
@click.argument("name", required=False, type=NameParam())
@_texts
@click.option(
    "--cosine-min",
    type=NumberRange(0, 1),
    default=0.999,
    show_default=True,
    help="How close every row must stay to the model as it was pulled.",
)
@click.option(
    "--alone-ms-max",
    type=NumberRange(min=0, min_open=True),
    help="The longest p95 of a single row.",
)
@click.option("--no-variants", is_flag=True, help="Only the pulled file, not quantised ones.")
@click.option("--forget", is_flag=True, help="Run it as it was pulled again.")
@json_option
@settings_options(*_PATHS)
def tune(
    settings: Settings,
    name: str | None,
    texts: Path | None,
    cosine_min: float,
    alone_ms_max: float | None,
    no_variants: bool,
    forget: bool,
    as_json: bool,
) -> None:
    """Find the fastest way to run a model here, and run it so from the next start on.

    Runtimes, quantised variants, threads and batches are measured; what is not within the limits is
    not chosen. The result is a file beside the pulled model, which --forget removes.
    """
    from streamapp.compose import registry as open_registry
    from streamapp.models.tuned import FILE
    from streamapp.models.tuning.recording import record
    from streamapp.models.tuning.search import Limits, Search

    registry = open_registry(settings)
    if forget:
        _forget(registry.folder(name) / FILE, as_json)
        return
    subject = _subject(registry, name, texts)
    search = Search(subject, registry.threads, Limits(cosine_min, alone_ms_max), _saying(as_json))
    _warn_if_busy()
    with TemporaryDirectory(dir=subject.folder, prefix=".tune-") as scratch:
        variants = [] if no_variants else _variants(subject, Path(scratch))
        best = search.best(variants)
        place = record(subject, best, search.measured)
    if as_json:
        _show(search.measured, as_json, chosen=best.as_dict(), file=place)
        return
    _show(search.measured, as_json)
    for found, why in search.passed_over(best):
        click.echo(f"not chosen: {words(found.tuned)}, {found.rows_s:.0f} rows/s: {why}")
    gain = best.rows_s / search.measured[0].rows_s
    click.echo(
        f"fastest: {words(best.tuned)}, {best.rows_s:.0f} rows/s, {gain:.2f} times as untuned; "
        f"written to {place}"
    )


def _forget(place: Path, as_json: bool) -> None:
    try:
        was_there = place.is_file()
        place.unlink(missing_ok=True)
    except OSError as error:
        raise Refuse(
            "models.tuned", f"cannot remove {place}: {error.strerror}", "check its folder's mode"
        ) from None
    said = f"{place} is gone" if was_there else "nothing to forget: it was not tuned here"
    _say({"forgotten": place}, said, as_json)


def _warn_if_busy() -> None:
    """Say that what is measured now is not what a quiet machine gives."""
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > cores / 2:
        click.echo(
            f"this machine is busy (load {load:.1f} on {cores} cores): figures are lower than they "
            "could be, and their order may be another; measure again when it is quiet",
            err=True,
        )


def _subject(registry: "Registry", name: str | None, texts: Path | None) -> "Subject":
    from streamapp.models.sample import TEXTS
    from streamapp.models.tuning.subjects import Subject

    manifest = registry.manifest(name)
    if texts is not None and manifest.task != "embed":
        raise Refuse(
            "models.texts",
            f"--texts is for models of task embed, {manifest.full_name} is for {manifest.task}",
            "leave it out: the manifest's example is run",
        )
    folder = registry.files(manifest.full_name)
    ref = registry.ref_of(manifest.full_name)
    return Subject(manifest, folder, ref, TEXTS if texts is None else _read(texts))


def _read(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8") as stream:
            lines = stream.read(CHARS_MAX).splitlines()
    except OSError as error:
        raise Refuse("models.texts", f"{path}: {error.strerror}", "check the path") from None
    except UnicodeDecodeError as error:
        why = f"{path}: byte {error.start} is not UTF-8"
        raise Refuse("models.texts", why, "save it as UTF-8") from None
    found = [line for line in lines if line.strip()][:TEXTS_MAX]
    if not found:
        raise Refuse("models.texts", f"{path} has no line with a text", "give one text a line")
    return found


def _variants(subject: "Subject", scratch: Path) -> list[Path]:
    from streamapp.models.tuning.variants import make_int8

    made = make_int8(subject.folder / subject.manifest.model, scratch)
    return [made] if made else []


def _saying(as_json: bool) -> "Seen":
    """A line on standard error for each way, as it is measured; on a terminal only."""
    screen = console(stderr=True)

    def seen(found: "Measured | None", tuned: "Tuned", why_not: str) -> None:
        if as_json or not screen.is_terminal:
            return
        speed = "cannot be run" if found is None else f"{found.rows_s:.0f} rows/s"
        screen.print(f"{words(tuned)}: {speed}" + (f" ({why_not})" if why_not else ""))

    return seen


def _runtime(tuned: "Tuned") -> str:
    return tuned.backend + (f" {tuned.precision}" if tuned.precision != "f32" else "")


def words(tuned: "Tuned") -> str:
    """How a model is run: runtime, file, calls at once, threads of each, rows of each."""
    file = f" {tuned.variant}" if tuned.variant else ""
    return f"{_runtime(tuned)}{file}, {tuned.calls} x {tuned.threads} threads, batch {tuned.batch}"


def _show(found: Sequence["Measured"], as_json: bool, **more: object) -> None:
    if as_json:
        measured = [one.as_dict() for one in found]
        print_json({"measured": measured, **more} if more else measured)
        return
    rows = [
        (
            _runtime(one.tuned),
            one.tuned.variant or "as pulled",
            one.tuned.threads,
            one.tuned.calls,
            one.tuned.batch,
            f"{one.rows_s:.0f}",
            f"{one.alone_p95_ms:.2f} ms",
            f"{one.cosine:.5f}",
        )
        for one in sorted(found, key=lambda one: -one.rows_s)
    ]
    print_table(_COLUMNS, rows, right=_COLUMNS[2:])


def _say(content: dict[str, object], text: str, as_json: bool) -> None:
    if as_json:
        print_json(content)
    else:
        click.echo(text)
