"""``streamapp run``: a workflow's file, over files and databases or on topics."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from streamapp.cli.framework import command
from streamapp.cli.options import NumberRange, PlaceParam, json_option, settings_options
from streamapp.cli.output import print_error, print_json
from streamapp.core.config import Settings, to_environment
from streamapp.core.errors import Refuse

if TYPE_CHECKING:
    from streamapp.workflow.graph.spec import Graph
    from streamapp.workflow.run.engine import Services
    from streamapp.workflow.run.record import Record
    from streamapp.workflow.run.report import Report

#: Where outputs go, beside the workflow's file.
OUT = "out"
file_argument = click.argument("file", type=click.Path(path_type=Path))


def parsed_params(
    _ctx: click.Context, _param: click.Parameter, pairs: Sequence[str]
) -> dict[str, Any]:
    """``limit=5``: JSON where it is a plain value of JSON, else text."""
    params = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE")
        try:
            value = msgspec.json.decode(text, type=str | int | float | bool | None)
        except msgspec.MsgspecError:
            value = text
        params[name] = value
    return params


set_option = click.option(
    "--set",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    callback=parsed_params,
    help="A parameter of the workflow, over the file's; may be repeated.",
)


def limit_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """``--cpus`` and ``--memory-mb``."""
    for option in (
        click.option(
            "--memory-mb",
            type=click.IntRange(64, 1 << 30),
            help="Memory of all processes, in MiB (default: most of it).",
        ),
        click.option("--cpus", type=NumberRange(0.1), help="Cores at once (default: all)."),
    ):
        verb = option(verb)
    return verb


def services_of(
    settings: Settings, cpus: float | None = None, memory_mb: int | None = None
) -> "Services":
    """What a run on this machine is given."""
    from streamapp.workflow.run.engine import Services

    return Services(
        cache=settings.home / "cache" / "workflows",
        environ=to_environment(settings),
        cpus=cpus,
        memory_mb=memory_mb,
    )


def execute(
    graph: "Graph",
    services: "Services",
    folder_out: Path,
    params: Mapping[str, Any],
    *,
    as_json: bool,
    lineage: str | None = None,
    lineage_token: str = "",
    resumed: "Record | None" = None,
) -> int:
    """Run a workflow, show how it goes and what came of it; the exit code."""
    from streamapp.cli.flow_show import print_report, shown_progress
    from streamapp.workflow.run.engine import run as run_graph
    from streamapp.workflow.run.events import Event

    with ExitStack() as stack:
        observers = [stack.enter_context(shown_progress(quiet=as_json))]
        if lineage is not None:
            from streamapp.workflow.run.lineage import Lineage

            told = Lineage(graph, lineage, Path.cwd(), token=lineage_token)
            stack.callback(told.close)
            observers.append(told)

        def tell(event: Event) -> None:
            for observer in observers:
                observer(event)

        try:
            report = run_graph(
                graph,
                folder_out=folder_out,
                services=services,
                params=params,
                progress=tell,
                resumed=resumed,
            )
        except KeyboardInterrupt:
            if graph.path:
                click.echo(f"stopped; go on with: streamapp workflow resume {graph.path}", err=True)
            raise
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        print_report(report)
    return _exit_code(report, as_json=as_json)


def _refuse_in_stream(**options: object) -> None:
    """Options of the engine's runs, which a run on topics would leave out without a word."""
    for key, value in options.items():
        if value:
            name = "--" + key.replace("_", "-")
            raise Refuse(
                "flow.option",
                f"{name} is not for a run on topics",
                f"leave out {name}, or --stream and --feed",
            )


def _exit_code(report: "Report", *, as_json: bool) -> int:
    if report.error is None:
        return 0
    if not as_json:
        print_error(report.error.message, report.error.fix)
    return report.error.error().exit_code


@command(
    examples=[
        "streamapp run workflow.yaml",
        "streamapp run workflow.yaml --set year=2026 --out results",
        "streamapp run workflow.yaml --dry-run",
        "streamapp run workflow.yaml --stream --feed",
    ],
)
@file_argument
@click.option("--out", type=PlaceParam(), help="Folder of the outputs (default: out, beside FILE).")
@set_option
@limit_options
@click.option("--lineage", metavar="FILE|URL", help="Send OpenLineage events there.")
@click.option(
    "--lineage-token",
    metavar="env:NAME|file:PATH",
    default="",
    help="Bearer token that a URL of --lineage takes: where it is, not the token.",
)
@click.option("--dry-run", is_flag=True, help="Say what would run, and why, and end.")
@click.option("--stream", is_flag=True, help="Run it on topics, until it is stopped.")
@click.option(
    "--partitions",
    type=click.IntRange(1, 1_000),
    default=1,
    show_default=True,
    help="With --stream: of each topic.",
)
@click.option("--feed", is_flag=True, help="With --stream: send the inputs, write, and end.")
@json_option
@settings_options("broker", "models_dir", "models_cache")
def run(
    settings: Settings,
    file: Path,
    out: Path | None,
    params: dict[str, Any],
    cpus: float | None,
    memory_mb: int | None,
    lineage: str | None,
    lineage_token: str,
    dry_run: bool,
    stream: bool,
    feed: bool,
    partitions: int,
    as_json: bool,
) -> int:
    """Run the workflow that FILE declares; what was worked out before is not worked out again.

    Ctrl-C stops it, and the same command goes on from there.  Rows that were set aside are in
    quarantine/ beside the outputs.
    """
    folder_out = out or file.absolute().parent / OUT
    if stream or feed:
        from streamapp.cli.flow_stream import run_stream

        _refuse_in_stream(dry_run=dry_run, cpus=cpus, memory_mb=memory_mb)
        if lineage is not None and not feed:
            raise Refuse(
                "flow.option", "--lineage is not for a run without an end", "give --feed, too"
            )
        return run_stream(
            settings, file, params, folder_out, feed=feed, as_json=as_json, partitions=partitions,
            lineage=lineage, lineage_token=lineage_token,
        )  # fmt: skip
    if partitions != 1:
        raise Refuse("flow.option", "--partitions is for a run on topics", "give --stream, too")
    services = services_of(settings, cpus, memory_mb)
    if dry_run:
        from streamapp.cli.workflow import show_plan

        return show_plan(file, services, params, as_json=as_json)
    from streamapp.workflow.graph.load import load_graph

    return execute(
        load_graph(file), services, folder_out, params,
        as_json=as_json, lineage=lineage, lineage_token=lineage_token,
    )  # fmt: skip
