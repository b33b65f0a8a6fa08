"""``streamapp ring attractors``: what pulls this host's frames, and how strongly."""

from collections.abc import Sequence
from functools import partial
from time import sleep
from typing import TYPE_CHECKING, Any

import click

from streamapp.cli.framework import group
from streamapp.cli.options import NumberRange, json_option, settings_options
from streamapp.cli.output import harmless, print_json, print_table
from streamapp.core.config import Settings
from streamapp.core.errors import Refuse

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from streamapp.ring.control import Attractor, Control, ControlPlane

#: Labels of what ``learn`` writes begin so; it replaces only these.
LEARNED = "learned-"
_PATHS = ("ring_path", "ring")


@group(
    examples=[
        'streamapp ring attractors set refunds --text "I want my money back" --mass 2',
        "streamapp ring attractors learn --k 5 --frames 500 --follow",
        "streamapp ring attractors list",
    ],
)
def attractors() -> None:
    """Set what pulls the frames of this host's ring.

    The pull of a frame, its field attractor_pull, is gravity times the sum of mass times cosine
    over the attractors whose cosine with the frame's vector is above 0.8.  Frames that come from
    now on are pulled; those in the ring stay as they are.

    Attractors are in a file beside the ring, RING.control, of mode 0660: chgrp it to let another
    group set them.  Readers of the ring do not need it.
    """


@attractors.command("list", examples=["streamapp ring attractors list --json"])
@json_option
@settings_options(*_PATHS)
def list_(settings: Settings, as_json: bool) -> None:
    """Show gravity and the attractors."""
    from streamapp.ring.control import ControlPlane, control_path

    with ControlPlane.open(control_path(settings.ring_file)) as plane:
        _show(plane, plane.read(), as_json=as_json)


@attractors.command(
    "set",
    examples=[
        'streamapp ring attractors set refunds --text "I want my money back"',
        "streamapp ring attractors set refunds --mass 3     # the same place, heavier",
    ],
)
@click.argument("label")
@click.option("--text", help="Put it where the model puts this text.")
@click.option("--mass", type=float, help="Its mass (default: 1 for a new one).")
@json_option
@settings_options(*_PATHS, "models_dir", "models_cache", "embedding_model", "tokenizer_model")
def set_(
    settings: Settings, label: str, text: str | None, mass: float | None, as_json: bool
) -> None:
    """Add an attractor, or change the one of that label."""
    from streamapp.ring.control import Attractor, Control

    with _plane(settings) as plane:
        position = None if text is None else _embedded(settings, text, plane.dim)

        def edit(control: Control) -> Control:
            before = next((one for one in control.attractors if one.label == label), None)
            place = position if position is not None else before.position if before else None
            if place is None:
                raise Refuse(
                    "attractors.text",
                    f"there is no attractor {label!r} yet: where should it be?",
                    "say it with --text",
                )
            kept = before.mass if before else 1.0
            new = Attractor(label, kept if mass is None else mass, place)
            if before is None:
                return control._replace(attractors=(*control.attractors, new))
            changed = tuple(new if one is before else one for one in control.attractors)
            return control._replace(attractors=changed)

        _show(plane, plane.change(edit), as_json=as_json)


@attractors.command(
    examples=[
        "streamapp ring attractors remove refunds",
        "streamapp ring attractors remove --all",
    ],
)
@click.argument("labels", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Remove all of them.")
@json_option
@settings_options(*_PATHS)
def remove(settings: Settings, labels: Sequence[str], every: bool, as_json: bool) -> None:
    """Remove attractors."""
    from streamapp.ring.control import Control, ControlPlane, control_path

    if every == bool(labels):
        raise click.UsageError("name the labels to remove, or give --all")

    def edit(control: Control) -> Control:
        known = [one.label for one in control.attractors]
        for label in labels:
            if label not in known:
                raise Refuse(
                    "attractors.label",
                    f"there is no attractor {label!r}",
                    f"there are: {', '.join(known) or 'none'}",
                )
        rest = tuple(one for one in control.attractors if not every and one.label not in labels)
        return control._replace(attractors=rest)

    with ControlPlane.open(control_path(settings.ring_file), writable=True) as plane:
        _show(plane, plane.change(edit), as_json=as_json)


@attractors.command(examples=["streamapp ring attractors gravity 0.5"])
@click.argument("value", type=float)
@json_option
@settings_options(*_PATHS)
def gravity(settings: Settings, value: float, as_json: bool) -> None:
    """Set how strongly all attractors together pull; 0 switches them off."""
    with _plane(settings) as plane:
        control = plane.change(lambda control: control._replace(gravity=value))
        _show(plane, control, as_json=as_json)


@attractors.command(
    examples=[
        "streamapp ring attractors learn --k 5 --frames 500",
        "streamapp ring attractors learn --follow --every-s 5",
    ],
)
@click.option(
    "--k", type=click.IntRange(1, 64), default=5, show_default=True, help="Attractors put there."
)
@click.option(
    "--frames",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    help="The newest frames they are learned from.",
)
@click.option("--follow", "-f", is_flag=True, help="Learn again and again.")
@click.option(
    "--every-s",
    type=NumberRange(0.1),
    default=5.0,
    show_default=True,
    help="With --follow: seconds from one time to the next.",
)
@json_option
@settings_options(*_PATHS)
def learn(
    settings: Settings, k: int, frames: int, follow: bool, every_s: float, as_json: bool
) -> None:
    """Put K attractors where the newest frames gather, each with their share as its mass.

    They replace those learned before; attractors set by hand stay.
    """
    while True:
        try:
            learned = _learned(settings, k, frames)
            with _plane(settings) as plane:
                _show(plane, plane.change(partial(_with, learned)), as_json=as_json)
        except Refuse as error:
            if not follow or error.code != "attractors.frames":
                raise
            click.echo(f"{error.message}: waiting for more", err=True)
        if not follow:
            return
        sleep(every_s)


def _plane(settings: Settings) -> "ControlPlane":
    """The ring's plane, to be written; made when there is none."""
    from streamapp.ring import RingReader
    from streamapp.ring.control import ControlPlane, control_path

    with RingReader.open(settings.ring_file, engine=settings.ring_engine) as reader:
        dim = reader.stat()["dim"]
    return ControlPlane.create(control_path(settings.ring_file), dim)


def _learned(settings: Settings, k: int, count: int) -> "tuple[Attractor, ...]":
    from streamapp.ring import RingReader, RowFlag
    from streamapp.ring.centroids import centroids, unit_vectors
    from streamapp.ring.control import Attractor

    with RingReader.open(settings.ring_file, engine=settings.ring_engine) as reader:
        frames = reader.latest(count)
    vectors = unit_vectors(frames.semantic[(frames.flags & RowFlag.EMBEDDED) != 0])
    if len(vectors) < k:
        raise Refuse(
            "attractors.frames",
            f"{len(vectors)} of the newest {len(frames)} frames have a vector, fewer than k = {k}",
            "wait for more frames, look at more with --frames, or give a smaller --k",
        )
    centres, shares = centroids(vectors, k)
    return tuple(
        Attractor(f"{LEARNED}{number}", float(share), centre)
        for number, (centre, share) in enumerate(zip(centres, shares, strict=True), 1)
    )


def _with(learned: "tuple[Attractor, ...]", control: "Control") -> "Control":
    by_hand = [one for one in control.attractors if not one.label.startswith(LEARNED)]
    return control._replace(attractors=(*by_hand, *learned))


def _embedded(settings: Settings, text: str, dim: int) -> "npt.NDArray[np.float32]":
    """Where the workflow's embedder puts the text."""
    from streamapp import compose
    from streamapp.workflow import load_workflow

    workflow = load_workflow(compose.catalogue(settings).folder / "workflow.toml")
    options = workflow.options.get("embed", {})
    embedder = compose.registry(settings).embedder(options.get("model"))
    if embedder.dim != dim:
        raise Refuse(
            "attractors.dim",
            f"the model gives vectors of {embedder.dim} values, the ring's have {dim}",
            "use the settings and the workflow that the ring was made with",
        )
    if not text.strip():
        raise Refuse("attractors.text", "an empty text is nowhere", "give --text some words")
    vectors, _ = embedder.embed([text], options.get("kind", "query"))
    vector: npt.NDArray[np.float32] = vectors[0]
    return vector


def _show(plane: "ControlPlane", control: "Control", *, as_json: bool) -> None:
    if as_json:
        print_json(_as_dict(plane, control))
        return
    click.echo(f"gravity {control.gravity:g}")
    rows = [(harmless(label), f"{mass:g}") for label, mass, _ in control.attractors]
    print_table(("attractor", "mass"), rows, right=["mass"])


def _as_dict(plane: "ControlPlane", control: "Control") -> dict[str, Any]:
    return {
        "path": plane.path,
        "dim": plane.dim,
        "gravity": control.gravity,
        "attractors": [
            {**one._asdict(), "position": one.position.tolist()} for one in control.attractors
        ],
    }
