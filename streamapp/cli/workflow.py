"""``streamapp workflow``: look at a workflow's file, run it, go on with it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from streamapp.cli import flow_run
from streamapp.cli.flow_run import (
    execute,
    file_argument,
    limit_options,
    services_of,
    set_option,
)
from streamapp.cli.framework import group
from streamapp.cli.options import json_option, settings_options
from streamapp.cli.output import print_error, print_json
from streamapp.core.config import Settings
from streamapp.core.errors import Refuse

if TYPE_CHECKING:
    from streamapp.workflow.run.binding import Binding
    from streamapp.workflow.run.engine import Services

EXIT_INVALID = 2
EXIT_FAILED = 1


@group(
    examples=[
        "streamapp workflow validate workflow.yaml",
        "streamapp workflow plan workflow.yaml",
        "streamapp workflow graph workflow.yaml --svg > workflow.svg",
    ]
)
def workflow() -> None:
    """Declared work on files, databases and topics: check it, look at it, run it, go on with it."""


workflow.add_command(flow_run.run)


@workflow.command(
    examples=["streamapp workflow validate workflow.yaml", "streamapp workflow validate *.yaml"]
)
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@set_option
@json_option
@settings_options()
def validate(
    settings: Settings,  # noqa: ARG001  # read, so that a wrong one is said here
    files: Sequence[Path],
    params: dict[str, Any],
    as_json: bool,
) -> int:
    """Say all that is wrong with FILES: keys, names, cycles, missing files, types between stages.

    Inputs are looked at, and nothing runs.
    """
    found = {file: problems_of(file, params)[1] for file in files}
    wrong = [problem for problems in found.values() for problem in problems]
    if as_json:
        print_json(
            [
                {"file": str(file), "problems": [_plain(problem) for problem in problems]}
                for file, problems in found.items()
            ]
        )
    else:
        for problem in wrong:
            print_error(problem.message, problem.fix)
        for file, problems in found.items():
            if not problems:
                click.echo(f"{file}: nothing is wrong")
    return EXIT_INVALID if wrong else 0


@workflow.command(
    examples=[
        "streamapp workflow plan workflow.yaml",
        "streamapp workflow plan workflow.yaml --json",
    ]
)
@file_argument
@set_option
@limit_options
@json_option
@settings_options("models_dir", "models_cache")
def plan(
    settings: Settings,
    file: Path,
    params: dict[str, Any],
    cpus: float | None,
    memory_mb: int | None,
    as_json: bool,
) -> int:
    """Say what a run of FILE would do, and why: what is in the cache, what changed, how large."""
    return show_plan(file, services_of(settings, cpus, memory_mb), params, as_json=as_json)


@workflow.command(
    examples=[
        "streamapp workflow graph workflow.yaml",
        "streamapp workflow graph workflow.yaml --svg > workflow.svg",
    ]
)
@file_argument
@click.option("--svg", is_flag=True, help="Print a picture, not Mermaid's text.")
def graph(file: Path, svg: bool) -> int:
    """Draw the stages of FILE and what they take: as Mermaid, or as SVG."""
    from streamapp.workflow.graph import draw
    from streamapp.workflow.graph.load import load_graph

    declared = load_graph(file)
    binding, problems = problems_of(file, {})
    calls = binding.calls if binding and not problems else {}  # what is wrong can be drawn, too
    sources = {stage: [name for call in of for name in call.sources] for stage, of in calls.items()}
    click.echo(draw.svg(declared, sources) if svg else draw.mermaid(declared, sources))
    return 0


@workflow.command(
    examples=[
        "streamapp workflow resume workflow.yaml",
        "streamapp workflow resume 1790000000000-3f2a1b",
        "streamapp workflow resume",
    ]
)
@click.argument("run", metavar="[FILE|RUN]", required=False)
@limit_options
@json_option
@settings_options("models_dir", "models_cache")
def resume(
    settings: Settings,
    run: str | None,
    cpus: float | None,
    memory_mb: int | None,
    as_json: bool,
) -> int:
    """Go on with the newest run that did not end well: of FILE, or of any.

    It gets the same parameters and the same folder, and what it had read from the network is not
    read again.
    """
    from streamapp.workflow.graph.load import load_graph
    from streamapp.workflow.run.cache import Cache
    from streamapp.workflow.run.record import find_record

    services = services_of(settings, cpus, memory_mb)
    path = Path(run) if run and Path(run).exists() else None
    record = find_record(Cache(services.cache), path, None if path else run)
    if not record.path:
        why = f"run {record.run} of {record.workflow!r} was built in Python"
        raise Refuse("workflow.resume", why, "run the program again; its cache is used")
    declared = load_graph(Path(record.path))
    out = Path(record.folder_out)
    return execute(declared, services, out, record.params, as_json=as_json, resumed=record)


@workflow.command(
    examples=[
        "streamapp workflow test workflow.yaml",
        "streamapp workflow test workflow.yaml --json",
    ]
)
@file_argument
@set_option
@json_option
@settings_options("models_dir", "models_cache")
def test(settings: Settings, file: Path, params: dict[str, Any], as_json: bool) -> int:
    """Run the tests that stand beside the stages of FILE; its inputs are not read."""
    from streamapp.workflow.graph.check import check
    from streamapp.workflow.graph.load import load_graph
    from streamapp.workflow.run.step_tests import run_tests

    declared = load_graph(file)
    wrong = check(declared, params)
    if wrong:
        raise wrong[0]
    tested = run_tests(declared, services_of(settings), params)
    if as_json:
        print_json(msgspec.to_builtins(tested))
    else:
        for one in tested:
            click.secho("passed " if one.passed else "failed ", fg=_color(one.passed), nl=False)
            click.echo(f"{one.stage}: {one.name}" + (f": {one.why}" if one.why else ""))
        if not tested:
            click.echo("no stage has tests: add tests: with rows: and expect: to one", err=True)
    return 0 if all(one.passed for one in tested) else EXIT_FAILED


@workflow.command(examples=["streamapp workflow schema > workflow.schema.json"])
def schema() -> int:
    """Print the JSON Schema of such files, for editors; with the operations that are installed."""
    from streamapp.workflow.graph.schema import json_schema

    print_json(json_schema())
    return 0


def show_plan(file: Path, services: "Services", params: Mapping[str, Any], *, as_json: bool) -> int:
    """Print what a run would do."""
    from streamapp.cli.flow_show import print_plan
    from streamapp.workflow.run.preview import preview

    binding, problems = problems_of(file, params)
    if problems or binding is None:
        raise problems[0]
    planned = preview(binding, services)
    if as_json:
        print_json(msgspec.to_builtins(planned))
    else:
        print_plan(planned)
    return 0


def problems_of(file: Path, params: Mapping[str, Any]) -> tuple["Binding | None", list[Refuse]]:
    """A workflow bound, as far as that goes, and all that is wrong with it."""
    from streamapp.workflow.graph.load import read_graph
    from streamapp.workflow.run.binding import find_problems

    declared, problems = read_graph(file)
    if declared is None or problems:
        return None, problems
    return find_problems(declared, params)


def _plain(problem: Refuse) -> dict[str, str]:
    return {"code": problem.code, "message": problem.message, "fix": problem.fix}


def _color(passed: bool) -> str:
    return "green" if passed else "red"
