"""``streamapp models route``: how a model is chosen for an event, and what came of it."""

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import click

from streamapp.cli.framework import group
from streamapp.cli.options import NameParam, json_option, missing_log, settings_options
from streamapp.cli.output import harmless, print_json, print_table
from streamapp.core.config import Settings
from streamapp.core.counted import counted
from streamapp.core.errors import Refuse

if TYPE_CHECKING:
    from streamapp.models import Registry
    from streamapp.models.routing.epoch import Candidate, Epoch
    from streamapp.models.routing.score import Choice
    from streamapp.models.routing.spec import RouteSpec

_PATHS = ("models_dir", "models_cache")
_LOG = ("broker", "conversations_max")
_FLIGHT = ("token", "flight_host", "flight_port", "flight_ca_file")
_TERMS = ("performance", "accuracy", "compatibility", "latency", "score")


@group(
    examples=[
        "streamapp models route list",
        'streamapp models route explain sentiment --text "where is my parcel"',
    ]
)
def route() -> None:
    """Show routes: which models may answer, how one is chosen, and what came of it."""


@route.command(
    "list", examples=["streamapp models route list", "streamapp models route list --json"]
)
@json_option
@settings_options(*_PATHS)
def list_routes(settings: Settings, as_json: bool) -> None:
    """List the routes of routes.toml, and what keeps one from being used."""
    import msgspec

    from streamapp.compose import registry as open_registry

    registry = open_registry(settings)
    declared = registry.catalogue.routes.route
    wrong = {name: _wrong(registry, name) for name in declared}
    broken = registry.catalogue.broken_routes()
    if as_json:
        told = {name: {"wrong": error.message} for name, error in broken.items()}
        specs = {name: msgspec.to_builtins(spec) for name, spec in declared.items()}
        print_json(told | {name: spec | {"wrong": wrong[name]} for name, spec in specs.items()})
        return
    for error in broken.values():
        click.echo(harmless(f"{error.message}\n  fix: {error.fix}\n"))
    if not declared:
        click.echo("no routes: write [route.NAME] in models/routes.toml")
        return
    rows = [
        (name, spec.task, ", ".join(spec.models), _experiment(spec), spec.shadow, spec.about)
        for name, spec in sorted(declared.items())
    ]
    print_table(("route", "task", "models", "experiment", "shadow", "about"), rows)
    for name, why in sorted(wrong.items()):
        if why:
            click.echo(harmless(f"\n[route.{name}] cannot be used: {why}"))


def _wrong(registry: "Registry", name: str) -> str:
    """Why a stage could not use a route: a model of it is missing, broken, or for another task."""
    from streamapp.models.routing.registered import Registered

    try:
        Registered(name, registry)
    except Refuse as error:
        return str(error)
    return ""


@route.command(
    examples=[
        "streamapp models route explain sentiment",
        'streamapp models route explain sentiment --text "guten Tag" --language de',
        "streamapp models route explain sentiment --conversation c1 --partition 0",
    ],
)
@click.argument("task", type=NameParam())
@click.option("--text", default="", help="An event's text; its length counts.")
@click.option("--language", default=None, help="Its ISO 639-1 code (default: not known).")
@click.option("--conversation", default="", help="Decides about experiments.")
@click.option(
    "--partition",
    type=click.IntRange(0),
    default=None,
    help="By what the worker of this source partition recorded last, measured times included.",
)
@json_option
@settings_options(*_PATHS, *_LOG)
def explain(
    settings: Settings,
    task: str,
    text: str,
    language: str | None,
    conversation: str,
    partition: int | None,
    as_json: bool,
) -> None:
    """Show every candidate's score, term by term, for the routes of a TASK or one route.

    S = alpha P + beta A + gamma C + delta L, where C is a gate before it is a term.  Without
    --partition the terms are those that manifests and routes.toml declare.
    """
    from streamapp.compose import registry as open_registry
    from streamapp.core.route import Event
    from streamapp.models.routing.score import choose

    registry = open_registry(settings)
    event = Event(conversation, len(text), language)
    told = []
    for name in _routes(registry, task):
        if partition is None:
            epoch = _declared(registry, name)
        else:
            epoch = asyncio.run(_recorded(settings, name, partition))
        told.append((name, epoch, choose(epoch, event)))
    if as_json:
        print_json([_as_dict(*each) for each in told])
        return
    for name, epoch, choice in told:
        _print(name, epoch, choice)


@route.command(
    examples=[
        "streamapp models route check sentiment",
        "streamapp models route check topic --column label --json",
    ],
)
@click.argument("name", type=NameParam())
@click.option("--column", default=None, help="The stage's column (default: the route's name).")
@json_option
@settings_options(*_PATHS, *_FLIGHT)
def check(settings: Settings, name: str, column: str | None, as_json: bool) -> None:
    """Ask the store how a route's experiment goes.

    Whether each arm has its share of the conversations (a sample ratio mismatch makes every
    comparison of the arms worthless), how often the shadow agrees, and who answered why.
    """
    from streamapp.compose import registry as open_registry
    from streamapp.models.routing.sticky import SRM_P_MIN, mismatch

    spec = _spec(open_registry(settings), name)
    found = _asked(settings, column or name, name)
    shares = {**spec.shares, "": 100 - sum(spec.shares.values())}
    chance = mismatch(found["arms"], shares)
    told = {
        "route": name,
        "arms": {
            arm or "by score": {"percent": share, "conversations": found["arms"].get(arm, 0)}
            for arm, share in shares.items()
            if share or arm
        },
        "mismatch_p": chance,
        "mismatch": chance < SRM_P_MIN,
        "shadow": found["shadow"],
        "answers": found["answers"],
    }
    if as_json:
        print_json(told)
        return
    _print_check(told)


def _print_check(told: dict[str, Any]) -> None:
    arms = [
        (arm, f"{each['percent']:g}", each["conversations"]) for arm, each in told["arms"].items()
    ]
    print_table(("arm", "percent", "conversations"), arms, right=("percent", "conversations"))
    verdict = "MISMATCH: compare nothing" if told["mismatch"] else "as declared"
    click.echo(f"\nshares: {verdict} (p = {told['mismatch_p']:.4f})")
    if (shadow := told["shadow"])["rows"]:
        click.echo(
            f"shadow: agrees in {shadow['agreement']:.1%} of {counted(shadow['rows'], 'row')}"
        )
    click.echo()
    rows = [(each["model"], each["why"], f"{each['rows']:,}") for each in told["answers"]]
    print_table(("model", "why", "rows"), rows, right=("rows",))


def _asked(settings: Settings, column: str, name: str) -> dict[str, Any]:
    """What the store has of a route."""
    from streamapp.cli.query import ended_by_ctrl_c, fetch
    from streamapp.models.routing.reports import AGREEMENT, ANSWERS, ARMS, written

    with ended_by_ctrl_c():
        arms, shadow, answers = (
            fetch(settings, written(query, column, name)).to_pylist()
            for query in (ARMS, AGREEMENT, ANSWERS)
        )
    return {
        "arms": {row["arm"] or "": row["conversations"] for row in arms},
        "shadow": shadow[0],
        "answers": answers,
    }


def _routes(registry: "Registry", task: str) -> list[str]:
    """The routes that a word of the command line means."""
    declared = registry.catalogue.routes.route
    if task in declared:
        return [task]
    found = sorted(name for name, spec in declared.items() if spec.task == task)
    if found:
        return found
    _spec(registry, task)
    return [task]


def _spec(registry: "Registry", name: str) -> "RouteSpec":
    """A route's declaration, or that of a model alone."""
    from difflib import get_close_matches

    from streamapp.models.routing.registered import Registered

    try:
        return Registered(name, registry).spec()
    except Refuse as error:
        known = [*registry.catalogue.routes.route]
        if error.code != "models.unknown" or name in known:
            raise
        near = get_close_matches(name, known, 1, 0.4)
        fix = f"did you mean {near[0]}?" if near else "see `streamapp models route list`"
        raise Refuse("models.route", f"no route or model is called {name!r}", fix) from None


def _declared(registry: "Registry", name: str) -> "Epoch":
    """The epoch of a worker that has measured nothing yet."""
    import msgspec

    from streamapp.models.routing.registered import candidate_of
    from streamapp.models.routing.standing import first_epoch

    spec = _spec(registry, name)

    def candidate(model: str) -> "Candidate":
        status = registry.status(model)
        known = candidate_of(model, "", registry.manifest(model, spec.task), spec)
        return known if status.pulled else msgspec.structs.replace(known, out="not pulled")

    names = [*spec.models, *([spec.shadow] if spec.shadow else [])]
    return first_epoch(name, spec, {model: candidate(model) for model in names})


async def _recorded(settings: Settings, name: str, partition: int) -> "Epoch":
    """The newest epoch that the log has of a route; a log that is not there is not made."""
    from streamapp import compose
    from streamapp.agents.recovery import recover
    from streamapp.models.routing.epoch import Epochs
    from streamapp.models.routing.standing import KIND
    from streamapp.topics.catalogue import ENRICHED, RAW

    if (folder := missing_log(settings)) is not None:
        raise Refuse(
            "log.missing",
            f"there is no log at {folder}",
            "name another with --home or --broker, or make it: streamapp topics apply",
        )
    reader = compose.reader(settings)
    async with AsyncExitStack() as stack:
        await reader.start()
        stack.push_async_callback(reader.stop)
        source = RAW, partition
        standing = await recover(reader, source, ENRICHED, settings.conversations_max)
    for entry in standing.state.snapshot():
        if (entry.kind, entry.key) == (KIND, name):
            return Epochs.of(entry.value).newest
    raise Refuse(
        "models.route",
        f"the log has no epoch of route {name!r} for {RAW} [{partition}]",
        "name another partition, or leave --partition out",
    )


def _experiment(spec: "RouteSpec") -> str:
    if spec.ensemble:
        return spec.ensemble
    return ", ".join(f"{name} {percent:g} %" for name, percent in spec.shares.items())


def _print(name: str, epoch: "Epoch", choice: "Choice") -> None:
    alpha, beta, gamma, delta = epoch.weights
    click.echo(f"{name}: S = {alpha:g} P + {beta:g} A + {gamma:g} C + {delta:g} L")
    click.echo(f"deadline {epoch.deadline_ms:g} ms, epoch {epoch.number}\n")
    places = {each: place for place, each in enumerate(choice.order, 1)}
    models = {each.name: each.model for each in epoch.candidates}
    rows = [
        (
            places.get(each.name, ""),
            each.name,
            models[each.name],
            *(f"{getattr(each, term):.3f}" for term in _TERMS),
            each.gate,
        )
        for each in choice.terms
    ]
    columns = ("", "candidate", "model", "P", "A", "C", "L", "S", "gate")
    print_table(columns, rows, right=("P", "A", "C", "L", "S"))
    who = choice.order[0] if choice.order else "nobody"
    click.echo(f"\nanswers: {who} ({choice.why}{f', arm {choice.arm}' if choice.arm else ''})")
    if choice.shadow and epoch.shadow is not None:
        click.echo(f"shadow: {epoch.shadow.name}")


def _as_dict(name: str, epoch: "Epoch", choice: "Choice") -> dict[str, Any]:
    import msgspec

    return {
        "route": name,
        "order": list(choice.order),
        "why": choice.why,
        "arm": choice.arm or None,
        "shadow": choice.shadow,
        "terms": [each._asdict() for each in choice.terms],
        "epoch": msgspec.to_builtins(epoch),
    }
