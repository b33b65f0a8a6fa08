"""``streamapp intents``: train a head on labelled examples, and see what the answers are worth."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamapp.cli.framework import group
from streamapp.cli.options import NameParam, NumberRange, PlaceParam, json_option, settings_options
from streamapp.cli.output import console, print_json, print_table
from streamapp.core.config import Settings
from streamapp.core.counted import counted
from streamapp.core.errors import Refuse

if TYPE_CHECKING:
    from streamapp.models import Registry
    from streamapp.models.heads.examples import Examples
    from streamapp.models.heads.logistic import Floats
    from streamapp.models.heads.training import Head
    from streamapp.workflow import Workflow
    from streamapp.workflow.texts import EmbedTexts
    from streamapp.workflow.trial import Score, Threshold

_PART = 512
#: Told of how much is done of how much of what.
Step = Callable[[str, int, int], None]

_columns = (
    click.option("--text", default="text", show_default=True, help="The column of texts."),
    click.option("--label", default="label", show_default=True, help="The column of labels."),
)


def _with_columns(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_columns):
        command = option(command)
    return command


@group(
    examples=[
        "streamapp intents train examples.csv --out models/head/support/1",
        "streamapp intents eval test.csv --head head/support",
    ],
)
def intents() -> None:
    """Train a head on labelled examples, and see what the answers are worth.

    A head tells labels apart on the vectors that the stage embed makes anyway.  It is a model like
    any other: it has a manifest, versions and aliases.  It serves for intents, for sentiment, or
    for any other set of labels.
    """


@intents.command(
    examples=[
        "streamapp intents train examples.csv --out models/head/support/1",
        "streamapp intents train examples.csv --out models/head/help/2 --precision 0.98",
        "streamapp intents train few.csv --out models/head/topics/1 --kind prototypes",
        "streamapp intents train mails.csv --out models/head/mails/1 --text body",
    ],
)
@click.argument("examples", type=PlaceParam())
@click.option(
    "--out",
    type=PlaceParam(),
    required=True,
    metavar="MODELS/head/NAME/VERSION",
    help="The folder that is written.",
)
@click.option(
    "--kind",
    type=click.Choice(["head", "prototypes"]),
    default="head",
    show_default=True,
    help="head: logistic regression; prototypes: the nearest mean.",
)
@click.option(
    "--precision",
    type=NumberRange(0.0, 1.0, min_open=True),
    default=0.95,
    show_default=True,
    help="Share of the answers that shall be right; the rest is unknown.",
)
@click.option("--model", type=NameParam(), help="The embedder; default: that of [stages.embed].")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Deals the examples out.",
)
@_with_columns
@json_option
@settings_options("topics_dir", "models_dir", "models_cache")
def train(
    settings: Settings,
    examples: Path,
    out: Path,
    kind: str,
    precision: float,
    model: str | None,
    seed: int,
    text: str,
    label: str,
    as_json: bool,
) -> None:
    """Train a head on EXAMPLES and write it as a model.

    EXAMPLES is csv, tsv or json lines.  At least two different texts of each label; five do, fifty
    do better.  Texts labelled unknown belong to no label: with some of those the head learns where
    to say unknown.  What the head is worth is measured on examples that it was not trained on, and
    is written into its manifest.
    """
    from streamapp.compose import registry as open_registry
    from streamapp.models.heads.examples import groups_of, read_examples
    from streamapp.models.heads.files import placed
    from streamapp.models.heads.training import train as trained
    from streamapp.workflow.trial import embedding

    placed(out)
    given = read_examples(examples, text, label)
    registry = open_registry(settings)
    workflow = _workflow(settings)
    model = model or workflow.options.get("embed", {}).get("model")
    with _steps() as step:
        vectors = _embedded(embedding(workflow, registry, model), given.texts, step)
        head = trained(
            vectors,
            given.labels,
            "linear" if kind == "head" else "prototypes",
            precision,
            seed,
            lambda done, all_: step("training", done, all_),
            groups_of(given.texts),
        )
    _written(registry, model, out, head, given, examples)
    _say_head(out, head, model, as_json=as_json)
    known = [folder.resolve() for folder in registry.catalogue.folders]
    if not as_json and out.resolve().parents[2] not in known:
        click.echo(f"models are looked for in {known[0]}: move it there, or set models_dir")


def _embedded(embed: "EmbedTexts", texts: Sequence[str], step: Step) -> "Floats":
    import numpy as np

    parts = []
    for first in range(0, len(texts), _PART):
        parts.append(embed(texts[first : first + _PART]))
        step("embedding", min(first + _PART, len(texts)), len(texts))
    return np.concatenate(parts)


def _written(
    registry: "Registry",
    model: str | None,
    out: Path,
    head: "Head",
    given: "Examples",
    examples: Path,
) -> None:
    from datetime import UTC, datetime

    from streamapp.core.clock import now_ms
    from streamapp.models.heads.files import Origin, write_head

    ref = registry.embedder(model).ref
    created = datetime.fromtimestamp(now_ms() // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    data = f"{examples.name}, {counted(len(given.texts), 'row')}"
    name = f"{ref.task}/{ref.name}@{ref.version}"
    write_head(out, head, Origin(name, ref.sha256, data, given.sha256, created))


def _say_head(out: Path, head: "Head", model: str | None, *, as_json: bool) -> None:
    found = {name: _shown(value) for name, value in head.measured._asdict().items()}
    name = out.resolve().parent.name
    if as_json:
        said = {"model": f"head/{name}@{out.name}", "folder": str(out), "labels": len(head.labels)}
        print_json(said | {"threshold": head.threshold, "measured": found})
        return
    measured = head.measured
    examples = counted(measured.examples, "example")
    click.echo(f"wrote {out}: {len(head.labels)} labels, {examples}")
    click.echo("on examples that it was not trained on:")
    click.echo(f"  right, were all answered   {measured.accuracy:7.1%}")
    click.echo(f"  answered                   {measured.coverage:7.1%}")
    click.echo(f"  right of the answered      {measured.precision:7.1%}")
    if not math.isnan(measured.refused):
        click.echo(f"  unknown kept unknown       {measured.refused:7.1%}")
    click.echo(f"next: streamapp models pull head/{name}@{out.name}")
    click.echo("then, in topics/workflow.toml:")
    click.echo(f'  [stages.intent]\n  head = "head/{name}"')
    if model is not None:
        click.echo(f'  model = "{model}"    # as in [stages.embed]')


@intents.command(
    "eval",
    examples=[
        "streamapp intents eval test.csv                  # the workflow's own intents",
        "streamapp intents eval test.csv --head head/support",
        "streamapp intents eval test.csv --head head/support@2 --json | jq .precision",
        "streamapp intents eval test.csv --calibrate 0.95 # for descriptions",
    ],
)
@click.argument("examples", type=PlaceParam())
@click.option("--head", type=NameParam(), help="A head in place of what [stages.intent] says.")
@click.option(
    "--calibrate",
    type=NumberRange(0.0, 1.0, min_open=True),
    metavar="PRECISION",
    help="Look for the confidence_min at which so many of the answers are right.",
)
@click.option(
    "--worst",
    type=click.IntRange(0, 1000),
    default=5,
    show_default=True,
    help="Labels and mistakes to show.",
)
@_with_columns
@json_option
@settings_options("topics_dir", "models_dir", "models_cache")
def evaluate(
    settings: Settings,
    examples: Path,
    head: str | None,
    calibrate: float | None,
    worst: int,
    text: str,
    label: str,
    as_json: bool,
) -> None:
    """Answer the texts of EXAMPLES as the workflow does, and compare with their labels.

    Give it examples that nothing was trained on.  Texts labelled unknown should get no answer.
    With --calibrate the answers are those without any threshold, and the threshold that keeps
    PRECISION is shown with what it is worth.
    """
    from streamapp.compose import registry as open_registry
    from streamapp.models.heads.examples import groups_of, read_examples
    from streamapp.workflow.spec import Workflow
    from streamapp.workflow.trial import STAGES, answers, calibrated, score, without_thresholds

    given = read_examples(examples, text, label)
    workflow = _workflow(settings)
    if head is not None:
        embed = workflow.options.get("embed", {})
        model = {name: embed[name] for name in ("model",) if name in embed}
        options = {"embed": embed, "intent": {"head": head} | model}
        workflow = Workflow(path=workflow.path, stages=STAGES, options=options)
    if calibrate is not None:
        workflow = without_thresholds(workflow)
    with _steps() as step:
        rows = 0

        def done(more: int) -> None:
            nonlocal rows
            rows += more
            step("answering", rows, len(given.texts))

        said = answers(workflow, open_registry(settings), given.texts, done)
    found = score(said, given.labels)
    if calibrate is None:
        if as_json:
            print_json(_as_dict(found))
        else:
            _say_score(found, worst)
        return
    threshold = calibrated(said, given.labels, calibrate, groups_of(given.texts))
    _say_threshold(threshold, found, calibrate, as_json=as_json)


def _say_threshold(
    threshold: "Threshold | None", found: "Score", precision: float, *, as_json: bool
) -> None:
    if threshold is None:
        raise Refuse(
            "intents.precision",
            f"no confidence_min makes {precision:.0%} of the answers right",
            f"without any {found.precision:.0%} are: ask for less, describe the labels better, "
            "or train a head",
        )
    if as_json:
        print_json(_as_dict(found) | {"threshold": threshold._asdict()})
        return
    _say_score(found, 0)
    click.echo()
    click.echo("in topics/workflow.toml:")
    least = math.floor(threshold.confidence_min * 1e4) / 1e4
    click.echo(f"  [stages.intent]\n  confidence_min = {least}\n  margin_min = 0.0")
    shares = f"{threshold.coverage:.1%} answered, {threshold.precision:.1%} of them right"
    click.echo(f"then, by halves: {shares}")


def _workflow(settings: Settings) -> "Workflow":
    from streamapp.topics.catalogue import defaults
    from streamapp.workflow import load_workflow

    return load_workflow((settings.topics_dir or defaults("topics")) / "workflow.toml")


def _as_dict(found: "Score") -> dict[str, Any]:
    said = {name: _shown(value) for name, value in found._asdict().items()}
    labels = [{name: _shown(v) for name, v in one._asdict().items()} for one in found.labels]
    return said | {"labels": labels, "mistakes": [one._asdict() for one in found.mistakes]}


def _say_score(found: "Score", worst: int) -> None:
    rows = [
        ("examples", f"{found.examples:,}"),
        ("right of all", _percent(found.accuracy)),
        ("answered", _percent(found.coverage)),
        ("right of the answered", _percent(found.precision)),
        ("unknown kept unknown", _percent(found.refused)),
        ("confidence is off by", _percent(found.error)),
    ]
    for title, value in rows:
        click.echo(f"{title:22} {value:>8}")
    if worst and found.labels:
        click.echo()
        shown = [
            (one.label, one.examples, _percent(one.recall), _percent(one.precision))
            for one in found.labels[:worst]
        ]
        heads = ("worst labels", "examples", "found", "right")
        print_table(heads, shown, right=heads[1:])
    if worst and found.mistakes:
        click.echo()
        print_table(("mistakes", "taken for", "times"), found.mistakes[:worst], right=("times",))


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{share:.1%}"


def _shown(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


@contextmanager
def _steps() -> Iterator[Step]:
    """A bar per step on a terminal, nothing elsewhere."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield lambda _what, _done, _all: None
        return
    from rich.progress import Progress

    with Progress(console=screen, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, all_: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=all_)
            bars.update(tasks[what], completed=done, total=all_)

        yield show
