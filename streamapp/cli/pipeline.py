"""``streamapp pipeline run``: one file to another by a few transforms."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from streamapp.cli.framework import group
from streamapp.cli.options import PlaceParam, json_option
from streamapp.cli.output import print_json, print_table

if TYPE_CHECKING:
    from streamapp.workflow.pipelines import Processed, Transform

#: Transforms of the operations ``pipeline.NAME``.
KINDS = ("aggregate", "dedupe", "filter", "map", "sample", "validate", "window", "join")
_COUNTS = ("rows_in", "rows_out", "rejected", "dropped")


@group(examples=["streamapp pipeline run in.csv out.csv \"filter=content <> ''\""])
def pipeline() -> None:
    """Filter, compute, group and clean the rows of a file."""


@pipeline.command(
    examples=[
        "streamapp pipeline run in.csv out.csv \"filter=content <> ''\" 'map=n=size'",
        "streamapp pipeline run in.csv out.parquet dedupe=id sample=0.1",
        'streamapp pipeline run in.csv out.csv \'aggregate={"columns": {"n": "sum(x)"}}\'',
    ]
)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("sink", metavar="OUT", type=PlaceParam())
@click.argument("steps", nargs=-1, required=True, metavar="STEP...")
@click.option("--from", "source_format", metavar="FORMAT", help="Of IN (default: by its suffix).")
@click.option("--to", "sink_format", metavar="FORMAT", help="Of OUT (default: by its suffix).")
@click.option("--rejects", type=PlaceParam(), help="A file for rejected rows, as JSON lines.")
@json_option
def run(
    source: Path,
    sink: Path,
    steps: tuple[str, ...],
    source_format: str | None,
    sink_format: str | None,
    rejects: Path | None,
    as_json: bool,
) -> None:
    """Read IN, apply each STEP, write OUT.

    A STEP is filter=CONDITION, map=COLUMN=EXPRESSION, dedupe=COLUMN,..., sample=FRACTION, or the
    name of any transform and its config as JSON: validate={"rules": [...]}.  Rows at which an
    expression fails are left out, counted, and kept with --rejects.
    """
    from streamapp.workflow.pipelines import Pipeline, run_pipeline

    wanted = Pipeline(source.stem, [step_of(text) for text in steps])
    done = run_pipeline(wanted, (source, source_format), (sink, sink_format), rejects=rejects)
    told = counts_of(done)
    if as_json:
        print_json(told)
        return
    print_table(
        ["transform", *_COUNTS, "seconds"],
        [
            [one["name"], *(f"{one[name]:,}" for name in _COUNTS), f"{one['seconds']:.3f}"]
            for one in done.transforms
        ],
        right=[*_COUNTS, "seconds"],
    )
    click.echo(f"{done.rows_out:,} of {done.rows_in:,} rows in {sink}, {done.seconds:.2f} s")
    for reason, count in done.reasons.items():
        click.echo(f"{count:,} rejected: {reason}", err=True)


def counts_of(done: "Processed") -> dict[str, Any]:
    """What was done, but for the rows."""
    names = ("rows_in", "rows_out", "rejected", "reasons", "transforms", "seconds")
    return {name: getattr(done, name) for name in names}


def step_of(text: str) -> "Transform":
    """``filter=age > 17`` and the like."""
    from streamapp.workflow.pipelines import Transform

    kind, _, said = text.partition("=")
    if kind not in KINDS:
        raise click.BadParameter(_unknown(text, kind))
    if said.startswith("{"):
        try:
            config = msgspec.json.decode(said, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise click.BadParameter(f"{text!r}: the config is not JSON: {error}") from None
        return Transform(kind, kind, config)
    return Transform(kind, kind, _short(kind, said, text))


def _short(kind: str, said: str, text: str) -> Mapping[str, Any]:
    """The config of a step without JSON."""
    if kind == "filter":
        return {"where": said}
    if kind == "dedupe":
        return {"by": _names(said)}
    if kind == "map" and "=" in said:
        name, _, expression = said.partition("=")
        return {"columns": {name.strip(): expression}}
    if kind == "sample":
        try:
            return {"fraction": float(said)}
        except ValueError:
            raise click.BadParameter(f"{text!r}: {said!r} is no fraction, like 0.1") from None
    raise click.BadParameter(f'{text!r} needs its config as JSON: {kind}={{"KEY": ...}}')


def _names(said: str) -> Sequence[str]:
    return [name.strip() for name in said.split(",") if name.strip()]


def _unknown(text: str, kind: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(kind, KINDS, 1)
    hint = f"did you mean {near[0]}=?" if near else f"there are {', '.join(KINDS)}"
    return f"{text!r} is no step; {hint}"
