"""``streamapp invoke``: one stage on a few events, without any broker."""

import json
import logging
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from streamapp.cli.framework import command
from streamapp.cli.options import json_option, settings_options
from streamapp.cli.output import console, harmless
from streamapp.core.clock import now_ms
from streamapp.core.config import Settings
from streamapp.core.counted import counted
from streamapp.core.errors import Reject
from streamapp.topics.catalogue import defaults
from streamapp.workflow.blame import place_of

if TYPE_CHECKING:
    import pyarrow as pa

    from streamapp.cli.fixture import Value
    from streamapp.core.batch import Rejected

#: Characters of a text that a table shows.
TEXT_SHOWN = 60


def _complete(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from streamapp.cli.find import installed_names

    names = [name for name in installed_names() if name.startswith(incomplete)]
    files = [] if names and incomplete else [CompletionItem(incomplete, type="file")]
    return [*map(CompletionItem, names), *files]


def _options(_ctx: click.Context, _param: click.Parameter, pairs: Sequence[str]) -> dict[str, Any]:
    """``margin_min=0.1``: JSON where it is JSON, a table or list of TOML, else text."""
    options = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE")
        try:
            options[name] = json.loads(text)
        except json.JSONDecodeError:
            options[name] = _toml(name, text) if text.startswith(("{", "[")) else text
    return options


def _toml(name: str, text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise click.BadParameter(
            f"{name} is neither JSON nor TOML: {error}; write --option '{name}={{a = \"b\"}}', or "
            "[stages.NAME] in topics/workflow.toml"
        ) from None


@command(
    examples=[
        'streamapp invoke language --text "Quero cancelar meu plano"',
        "streamapp invoke kinetics events.json",
        "streamapp invoke word_count_stage.py events.json --json | jq .words",
        "streamapp invoke shop.stages:word_count - < events.ndjson",
        "streamapp invoke intent --text hello --option margin_min=0.02",
    ],
)
@click.argument("stage", shell_complete=_complete)
@click.argument("fixture", required=False, type=click.Path(allow_dash=True))
@click.option("--text", "texts", multiple=True, help="An event with this text; may be repeated.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_options,
    help="An option of the stage, over those of topics/workflow.toml; may be repeated.",
)
@json_option
@settings_options("topics_dir", "models_dir", "models_cache")
def invoke(
    settings: Settings,
    stage: str,
    fixture: str | None,
    texts: Sequence[str],
    options: Mapping[str, Any],
    as_json: bool,
) -> int:
    """Run one stage on the events of FIXTURE and print what it writes; nothing else is needed.

    STAGE is an installed stage (streamapp stage ls), file.py, file.py:stage or module:stage.
    FIXTURE is a JSON object, an array of them, or one a line; - reads standard input.  A column
    that the stage reads and no event has (embedding, language) comes from the fixture when it is
    there, else the stages that write it run first.  An event that is rejected is shown with its
    reason, and the exit code is 65.
    """
    if (fixture is None) == (not texts):
        raise click.UsageError("give a FIXTURE, or --text", click.get_current_context())
    from streamapp.cli.fixture import of_texts, read_fixture, shown

    where = shown(fixture) if fixture else "--text"
    values = read_fixture(fixture) if fixture else of_texts(texts)
    outcome = _outcome(settings, stage, options, values, where)
    for name, columns in outcome.before.items():
        click.echo(f"{name} ran first: it writes {', '.join(columns)}", err=True)
    if as_json:
        _print_lines(outcome, values)
    else:
        _print_table(outcome)
        for reject in outcome.rejects:
            line = f"{where}:{values[reject.source_offset].line}: rejected by {reject.stage}"
            click.secho(f"{line}: {_reason(outcome, reject)}", fg="red", err=True)
    times = [f"{name} {s * 1000:,.1f} ms" for name, s in outcome.seconds.items()]
    rows = outcome.table.num_rows
    if outcome.repeats:
        click.echo(f"dropped, as a worker does: {outcome.repeats} with the id of another", err=True)
    click.echo(f"{counted(rows, 'row')}: {', '.join(times)}", err=True)
    return Reject.exit_code if outcome.rejects else 0


class _Outcome(NamedTuple):
    """What came out; ``before`` has the stages that ran first and the columns wanted of them."""

    written: list[str]
    before: dict[str, list[str]]
    table: "pa.Table"
    rejects: "list[Rejected]"
    places: dict[int, str]
    seconds: dict[str, float]
    repeats: int


def _outcome(
    settings: Settings,
    typed: str,
    options: Mapping[str, Any],
    values: "Sequence[Value]",
    where: str,
) -> _Outcome:
    """Run the stage, after those that it needs."""
    from streamapp.cli.find import find_stage, needed
    from streamapp.cli.fixture import Given, keys, take_columns
    from streamapp.compose import registry
    from streamapp.testing import FakeClock, Pipeline
    from streamapp.workflow import load_workflow

    found = find_stage(typed)
    workflow = load_workflow((settings.topics_dir or defaults("topics")) / "workflow.toml")
    models = registry(settings)
    own = {**workflow.options.get(found.name, {}), **options}
    stage = found.made(workflow, own, models)
    before, given = needed(stage, keys(values), workflow, models)
    texts, columns = take_columns(values, given, where)
    stages: list[Any] = [*before, found.factory or found.name]
    if columns:
        stages.append(Given(columns))
    seconds: dict[str, float] = {}
    pipeline = Pipeline(
        clock=FakeClock(now_ms()),
        models=models,
        on_stage=lambda name, _, s: seconds.update({name: seconds.get(name, 0.0) + s}),
    )
    chosen = {name: workflow.options[name] for name in before if name in workflow.options}
    with closing(pipeline), _Places() as places:
        pipeline.use(*stages, **chosen, **{found.name: own})
        pipeline.send(*(text.encode() for text in texts))
        table, rejects = pipeline.table(), pipeline.rejects()
    seconds = {name: seconds[name] for name in (*before, found.name) if name in seconds}
    return _Outcome([*stage.writes], before, table, rejects, places, seconds, pipeline.repeats)


class _Places(logging.Handler):
    """Where in a stage an event failed: the Plan logs it with its traceback; we keep the line."""

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[int, str] = {}
        self._logger = logging.getLogger("streamapp.workflow.plan")

    def __enter__(self) -> dict[int, str]:
        self._logger.addHandler(self)
        return self._found

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if not record.exc_info or not isinstance(record.args, tuple):
            return
        if error := record.exc_info[1]:
            self._found[int(str(record.args[-1]))] = place_of(error)


def _reason(outcome: _Outcome, reject: "Rejected") -> str:
    place = outcome.places.get(reject.source_offset)
    at = f" ({place})" if place else ""
    return harmless(f"{reject.code}: {reject.reason}{at}")


def _print_lines(outcome: _Outcome, values: "Sequence[Value]") -> None:
    """One object an event, in order: what was written, or why it was rejected."""
    import msgspec

    lines: dict[int, dict[str, Any]] = {
        row["source_offset"]: {"id": row["id"]} | {name: row[name] for name in outcome.written}
        for row in outcome.table.to_pylist()
    }
    for reject in outcome.rejects:
        said = {"stage": reject.stage, "code": reject.code, "reason": reject.reason}
        at = outcome.places.get(reject.source_offset)
        place = {"at": at} if at else {}
        lines[reject.source_offset] = {"rejected": said | place}
    for offset, line in sorted(lines.items()):
        where = {"event": offset + 1, "line": values[offset].line}
        click.echo(msgspec.json.encode(where | line))


def _print_table(outcome: _Outcome) -> None:
    from rich.table import Table

    from streamapp.cli.query import cell

    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    texts = ("text",) if outcome.table.column("text").null_count < len(outcome.table) else ()
    names = (*texts, *outcome.written)
    for name in ("event", *names):
        shown.add_column(name, overflow="fold")
    for row in outcome.table.to_pylist():
        if row["text"] and len(row["text"]) > TEXT_SHOWN:
            row["text"] = row["text"][:TEXT_SHOWN] + "…"
        shown.add_row(*map(cell, [row["source_offset"] + 1, *(row[name] for name in names)]))
    if outcome.table.num_rows:
        console().print(shown)
