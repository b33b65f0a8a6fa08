"""``streamapp ring``: look into this host's ring of frames."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import click

from streamapp.cli.framework import group
from streamapp.cli.options import json_option, settings_options
from streamapp.cli.output import bytes_text, print_json
from streamapp.core.clock import monotonic_s, now_us
from streamapp.core.config import Settings
from streamapp.core.errors import Refuse

if TYPE_CHECKING:
    from streamapp.ring import EngineName, Frame, Frames, RingReader
    from streamapp.ring.reader import Start

_FLOATS = ("delta_time", "velocity", "interrupt", "fill_rate", "sentiment")
_PATHS = ("ring_path", "ring_engine")


@group(examples=["streamapp ring stat", "streamapp ring tail --follow"])
def ring() -> None:
    """Look into this host's ring: frames in shared memory, written by streamapp terminal.

    Readers never block the writer; what they were too slow for is counted as lost.
    """


@ring.command(examples=["streamapp ring stat", "streamapp ring stat --json | jq .head"])
@json_option
@settings_options(*_PATHS)
def stat(settings: Settings, as_json: bool) -> None:
    """Show the ring's shape, state, counts and how far it has got in each topic."""
    with _open(settings) as reader:
        found = reader.stat()
    if as_json:
        print_json({**found, "sources": [source._asdict() for source in found["sources"]]})
        return
    kept = min(found["head"] - found["base"], found["capacity"])
    writer = f"pid {found['writer_pid']}" if found["writer_alive"] else "none"
    age_s = (now_us() - found["last_commit_unix_us"]) / 1e6
    lines = {
        "ring": found["path"],
        "state": f"{found['state']}, epoch {found['epoch']}, writer {writer}",
        "shape": f"{found['capacity']:,} x {found['dim']} {found['dtype']}"
        f", {bytes_text(found['file_bytes'])}",
        "frames": f"{found['frames']:,} written, {kept:,} kept, next id {found['head']}",
        "void": f"{found['void_frames']:,} in {found['recoveries']} recoveries",
        "last": f"{age_s:,.1f} s ago" if found["last_commit_unix_us"] else "never",
    }
    for name, value in lines.items():
        click.echo(f"{name:7} {value}")
    for source in found["sources"]:
        click.echo(f"source  {source.topic}/{source.partition} up to {source.next_source_offset}")


@ring.command(
    examples=[
        "streamapp ring tail",
        "streamapp ring tail -n 100 --json",
        "streamapp ring tail --follow",
    ],
)
@click.option("-n", "count", type=click.IntRange(min=0), default=10, show_default=True)
@click.option("--follow", "-f", is_flag=True, help="Then print frames as they come.")
@click.option("--idle-s", type=click.FloatRange(min=0), help="End when none came for this long.")
@json_option
@settings_options(*_PATHS)
def tail(settings: Settings, count: int, follow: bool, idle_s: float | None, as_json: bool) -> None:
    """Print the newest frames, a line each."""
    with _open(settings, "latest") as reader:
        reader.position = max(reader.stat()["base"], reader.position - count)
        left = reader.lag
        while left > 0:
            frames = reader.read(left)
            _print_frames(frames, as_json=as_json)
            left -= len(frames) + frames.lost + frames.void
            if not len(frames) and not frames.lost and not frames.void:
                break
        if follow:
            for frames in reader.follow(idle_s=idle_s):
                _print_frames(frames, as_json=as_json)


@ring.command(
    examples=[
        "streamapp ring read --batch 100",
        "streamapp ring read --batch 256 --follow",
        "streamapp ring read --batch 50 --pytorch",
    ],
)
@click.option("--batch", type=click.IntRange(min=1), default=256, show_default=True, metavar="N")
@click.option("--follow", "-f", is_flag=True, help="Go on with frames as they come.")
@click.option("--idle-s", type=click.FloatRange(min=0), help="End when none came for this long.")
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

    Reading ends at the newest frame, with --follow never.  This is the loop to copy: streamapp.ring
    gives the same arrays to your own code.
    """
    torch = _torch() if pytorch else None
    rows, started_s = 0, monotonic_s()
    with _open(settings) as reader:
        for frames in _batches(reader, batch, follow=follow, idle_s=idle_s):
            rows += len(frames)
            _print_batch(frames, torch, as_json=as_json)
        seconds = monotonic_s() - started_s
        total = {"frames": rows, "lost": reader.lost, "void": reader.void, "seconds": seconds}
    if as_json:
        click.echo(json.dumps({"total": total}))
    else:
        click.echo(f"{rows:,} frames, {reader.lost:,} lost, {reader.void:,} void, {seconds:.3f} s")


def _open(settings: Settings, start: "Start" = "oldest") -> "RingReader":
    from streamapp.ring import RingReader

    engine = cast("EngineName", settings.ring_engine)
    return RingReader.open(settings.ring_file, start=start, engine=engine)


def _batches(
    reader: "RingReader", batch: int, *, follow: bool, idle_s: float | None
) -> "Iterator[Frames]":
    """All frames up to the newest; then, following, those that come."""
    if follow:
        yield from reader.follow(batch, idle_s)
        return
    while reader.lag:
        yield reader.read(batch)


def _print_frames(frames: "Frames", *, as_json: bool) -> None:
    if frames.lost or frames.void:
        click.echo(f"({frames.lost} lost, {frames.void} void)", err=True)
    for frame in frames:
        click.echo(json.dumps(as_dict(frame)) if as_json else _line(frame))


def as_dict(frame: "Frame") -> dict[str, Any]:
    """A frame's fields as plain values; NaN as None."""
    values = {name: _number(getattr(frame, name)) for name in _FLOATS}
    return {
        "frame_id": frame.frame_id,
        "timestamp_us": frame.timestamp_us,
        "conversation_hash": f"{frame.conversation_hash:016x}",
        **values,
        "spin": frame.spin.tolist(),
        "intent_id": frame.intent_id,
        "semantic": frame.semantic.astype(float).tolist(),
    }


def _number(value: float) -> float | None:
    return None if value != value else round(value, 6)  # noqa: PLR0124  # NaN differs from itself


def _line(frame: "Frame") -> str:
    head = ", ".join(f"{value:+.3f}" for value in frame.semantic[:3])
    values = "  ".join(f"{name} {getattr(frame, name):.3g}" for name in _FLOATS)
    return f"{frame.frame_id:>8}  {frame.conversation_hash:016x}  {values}  [{head}, …]"


def _print_batch(frames: "Frames", torch: Any, *, as_json: bool) -> None:
    semantic = torch.from_numpy(frames.semantic) if torch else frames.semantic
    first = int(frames.frame_id[0]) if len(frames) else None
    last = int(frames.frame_id[-1]) if len(frames) else None
    shape, kind = tuple(semantic.shape), str(semantic.dtype)
    if as_json:
        said = {"frames": len(frames), "first": first, "last": last, "lost": frames.lost}
        click.echo(json.dumps({**said, "void": frames.void, "shape": shape, "dtype": kind}))
        return
    lost = f"  {frames.lost} lost" if frames.lost else ""
    click.echo(f"{len(frames):>6} frames {first}..{last}  semantic {shape} {kind}{lost}")


def _torch() -> Any:
    from importlib import import_module

    try:
        return import_module("torch")
    except ImportError:
        raise Refuse("ring.torch", "torch is not installed", "pip install torch") from None
