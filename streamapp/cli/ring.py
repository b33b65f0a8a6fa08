"""``streamapp ring``: look into this host's ring of frames."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from streamapp.cli.attractors import attractors
from streamapp.cli.frames import Lines, as_dict
from streamapp.cli.framework import group
from streamapp.cli.options import NumberRange, json_option, settings_options
from streamapp.cli.output import bytes_text, console, harmless, print_json, terminal_columns
from streamapp.core.clock import monotonic_s, now_us
from streamapp.core.config import Settings
from streamapp.core.counted import counted

if TYPE_CHECKING:
    from streamapp.ring import Frames, RingReader, RingStat
    from streamapp.ring.reader import Start

_PATHS = ("ring_path", "ring")
_COLOURS = {"live": "green", "recovering": "yellow", "retired": "red"}

follow_option = click.option("--follow", "-f", is_flag=True, help="Go on with frames as they come.")
idle_option = click.option(
    "--idle-s", type=NumberRange(min=0), help="End when none came for so many seconds."
)


@group(examples=["streamapp ring stat", "streamapp ring tail --follow"])
def ring() -> None:
    """Look into this host's ring: frames in shared memory, written by streamapp terminal.

    Readers never block the writer; what they were too slow for is counted as lost.
    """


ring.add_command(attractors)


@ring.command(examples=["streamapp ring stat", "streamapp ring stat --json | jq .head"])
@json_option
@settings_options(*_PATHS)
def stat(settings: Settings, as_json: bool) -> None:
    """Show the ring's shape, state, counts and how far it has got in each topic."""
    with _open(settings) as reader:
        found = reader.stat()
    if as_json:
        sources = [source._asdict() for source in found["sources"]]
        columns = [asdict(column) for column in found["columns"]]
        print_json({**found, "columns": columns, "sources": sources})
        return
    for name, value in _stat_lines(found):
        click.echo(f"{click.style(f'{name:8}', dim=True)} {value}")


def _stat_lines(found: "RingStat") -> Iterator[tuple[str, str]]:
    kept = min(found["head"] - found["base"], found["capacity"])
    state = click.style(found["state"], fg=_COLOURS.get(found["state"]))
    alive = found["writer_alive"]
    writer = f"writer pid {found['writer_pid']}" if alive else click.style("no writer", fg="yellow")
    age_s = (now_us() - found["last_commit_unix_us"]) / 1e6
    columns = (f"{column.name} {column.dim} {column.dtype}" for column in found["columns"])
    yield "ring", harmless(found["path"])
    yield "state", f"{state}, epoch {found['epoch']}, {writer}"
    yield "shape", f"{counted(found['capacity'], 'frame')}, {bytes_text(found['file_bytes'])}"
    yield "columns", ", ".join(columns)
    yield "frames", f"{found['frames']:,} written, {kept:,} kept, next id {found['head']}"
    yield "void", f"{found['void_frames']:,} in {found['recoveries']} recoveries"
    yield "last", f"{age_s:,.1f} s ago" if found["last_commit_unix_us"] else "never"
    for source in found["sources"]:
        place = f"{harmless(source.topic)}/{source.partition}"
        yield "source", f"{place} up to {source.next_source_offset}"


@ring.command(
    examples=[
        "streamapp ring tail",
        "streamapp ring tail -n 100 --json",
        "streamapp ring tail --follow",
    ],
)
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="So many of the newest frames.",
)
@follow_option
@idle_option
@json_option
@settings_options(*_PATHS)
def tail(settings: Settings, count: int, follow: bool, idle_s: float | None, as_json: bool) -> None:
    """Print the newest frames, a line each; with --follow then those that come.

    A terminal too narrow for all fields gets fewer; a pipe, a file and --json get all.  Where
    nobody has made the ring yet, --follow waits for it.
    """
    with _open(settings, follow=follow, idle_s=idle_s) as reader:
        reader.position += max(0, reader.lag - count)
        end = reader.position + reader.lag
        lines = None
        for frames in _batches(reader, 256, end, follow=follow, idle_s=idle_s):
            if lines is None and not as_json:
                lines = Lines(frames.columns, terminal_columns())
                click.secho(lines.heading(), bold=True)
            _print_frames(reader, frames, lines)


def _print_frames(reader: "RingReader", frames: "Frames", lines: Lines | None) -> None:
    if frames.lost or frames.void:
        click.secho(f"({frames.lost} lost, {frames.void} void)", fg="yellow", err=True)
    for frame in frames:
        click.echo(lines.line(frame) if lines else json.dumps(as_dict(frame, reader)))


@ring.command(
    examples=[
        "streamapp ring read --follow",
        "streamapp ring read --batch 100",
        "streamapp ring read --pytorch --batch 50",
    ],
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Frames read at once, at most.",
)
@follow_option
@idle_option
@click.option("--pytorch", is_flag=True, help="Make torch tensors, without a copy.")
@json_option
@settings_options(*_PATHS)
def read(
    settings: Settings,
    batch: int,
    follow: bool,
    idle_s: float | None,
    pytorch: bool,
    as_json: bool,
) -> None:
    """Read the ring from its oldest frame as an ML reader does, batch by batch, and say what came.

    Reading ends at the newest frame, with --follow at ctrl-C; where nobody has made the ring yet,
    --follow waits for it.  This is the loop to copy: streamapp.ring gives the same arrays to your
    own code.
    """
    torch = _torch() if pytorch else None
    with _open(settings, follow=follow, idle_s=idle_s) as reader:
        end = reader.position + reader.lag
        batches = _batches(reader, batch, end, follow=follow, idle_s=idle_s)
        with _progress(None if follow else end) as step, _totals(reader, as_json=as_json) as total:
            for frames in batches:
                total["frames"] += len(frames)
                _print_batch(frames, torch, as_json=as_json)
                step(total["frames"] + reader.lost + reader.void)


@contextmanager
def _totals(reader: "RingReader", *, as_json: bool) -> Iterator[dict[str, int]]:
    """Counts to fill; they are printed at the end, also at one by ctrl-C."""
    total = {"frames": 0}
    started_s = monotonic_s()
    try:
        yield total
    except KeyboardInterrupt:
        _print_totals(total["frames"], reader, monotonic_s() - started_s, as_json=as_json)
        raise
    _print_totals(total["frames"], reader, monotonic_s() - started_s, as_json=as_json)


def _print_totals(frames: int, reader: "RingReader", seconds: float, *, as_json: bool) -> None:
    if as_json:
        counts = {"frames": frames, "lost": reader.lost, "void": reader.void, "seconds": seconds}
        click.echo(json.dumps({"total": counts}))
        return
    rate = f", {frames / seconds:,.0f} frames/s" if frames and seconds else ""
    lost, void = reader.lost, reader.void
    click.echo(f"{counted(frames, 'frame')}, {lost:,} lost, {void:,} void, {seconds:.3f} s{rate}")


@contextmanager
def _progress(total: int | None) -> "Iterator[Any]":
    """How far it is, on a terminal's standard error while the output goes elsewhere."""
    screen = console(stderr=True)
    if total is None or not screen.is_terminal or console().is_terminal:
        yield lambda _: None
        return
    from rich.progress import Progress

    with Progress(console=screen, transient=True) as progress:
        task = progress.add_task("frames", total=total)
        yield lambda done: progress.update(task, completed=done)


def _open(
    settings: Settings, start: "Start" = "oldest", *, follow: bool = False, idle_s: float | None = 0
) -> "RingReader":
    from streamapp.ring import RingReader

    path, wait = settings.ring_file, idle_s if follow else 0.0
    if follow and not path.exists():
        click.secho(f"waiting for {path}: streamapp terminal makes it", dim=True, err=True)
    return RingReader.open(path, start=start, engine=settings.ring_engine, wait=wait)


def _batches(
    reader: "RingReader", batch: int, end: int, *, follow: bool, idle_s: float | None
) -> "Iterator[Frames]":
    """All frames below ``end``; then, following, those that come."""
    if follow:
        yield from reader.follow(batch, idle_s)
        return
    while reader.position < end:
        yield reader.read(min(batch, end - reader.position))


def _print_batch(frames: "Frames", torch: Any, *, as_json: bool) -> None:
    columns = {
        name: torch.from_numpy(rows) if torch else rows for name, rows in frames.columns.items()
    }
    first, last = (int(frames.frame_id[row]) if len(frames) else None for row in (0, -1))
    if as_json:
        said = {"frames": len(frames), "first": first, "last": last, "lost": frames.lost}
        shapes = {name: tuple(rows.shape) for name, rows in columns.items()}
        kinds = {name: str(rows.dtype) for name, rows in columns.items()}
        click.echo(json.dumps({**said, "void": frames.void, "shapes": shapes, "dtypes": kinds}))
        return
    shapes_text = "  ".join(
        f"{name} {tuple(rows.shape)} {rows.dtype}" for name, rows in columns.items()
    )
    gone = f"{frames.lost} lost, {frames.void} void"
    missed = click.style(f"  {gone}", fg="yellow") if frames.lost or frames.void else ""
    click.echo(f"{len(frames):>6} frames {first}..{last}  {shapes_text}{missed}")


def _torch() -> Any:
    from streamapp.ring.consumer import import_torch

    return import_torch()
