"""``streamapp dev FILE``: on every save, the last rows through the stage that was edited."""

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pyarrow as pa

from streamapp.cli.flow_run import file_argument, set_option
from streamapp.cli.framework import command
from streamapp.cli.options import json_option, settings_options
from streamapp.cli.output import harmless, print_error, print_table
from streamapp.core.clock import monotonic_s
from streamapp.core.config import PROJECT_FILE, Settings, find_project
from streamapp.core.counted import counted
from streamapp.core.errors import Refuse, StreamappError

if TYPE_CHECKING:
    from streamapp.plugin import Models
    from streamapp.workflow.data import BadRow
    from streamapp.workflow.graph.spec import Graph
    from streamapp.workflow.run.binding import Binding

_LOOK_EVERY_S = 0.2
#: Files of the project's own Python that are looked at.
_PYTHON_FILES_MAX = 1_000
_CELL_CHARS_MAX = 60
_COLUMNS_MAX = 8


#: Rows that were set aside, and why.
_Aside = list[tuple[pa.Table, str]]


@dataclass(frozen=True, slots=True)
class Shown:
    """What one look at the workflow gave."""

    stage: str
    operation: str
    rows_in: int
    seconds: float
    table: pa.Table
    aside: _Aside
    added: tuple[str, ...]


@dataclass
class Preview:
    """Runs the last rows of a workflow's inputs through its stages, in this process.

    Args:
        settings: where models are.
        path: of the workflow's file.
        params: of its conditions and configs.
        rows_max: of each input, the last ones.
    """

    settings: Settings
    path: Path
    params: Mapping[str, Any]
    rows_max: int
    _before: "Graph | None" = None
    _tails: dict[tuple[str, str], tuple[pa.Table, _Aside]] = field(default_factory=dict)
    _models: "Models | None" = None

    def look(self, wanted: str | None) -> Shown:
        """The rows behind a stage: the wanted one, else the one that was edited, else the last.

        Raises:
            StreamappError: whatever is wrong, with its place in the file.
        """
        from streamapp.workflow.graph.load import load_graph
        from streamapp.workflow.graph.names import suggest
        from streamapp.workflow.run.binding import bind

        graph = load_graph(self.path)
        binding = bind(graph, self.params)
        known = {step.name for step in graph.stages}
        if wanted is not None and wanted not in known:
            raise click.BadParameter(
                f"there is no stage {wanted!r}; {suggest(wanted, known, 'there are')}",
                param_hint="--stage",
            )
        stage = wanted or self._edited(graph) or (binding.order[-1] if binding.order else "")
        if not stage:
            raise click.UsageError(f"{self.path} has no stage yet")
        self._before = graph
        return self._through(binding, stage)

    def _edited(self, graph: "Graph") -> str | None:
        """The last stage that is not as it was."""
        if self._before is None:
            return None
        known = {step.name: step for step in self._before.stages}
        changed = [step.name for step in graph.stages if known.get(step.name) != step]
        return changed[-1] if changed else None

    def _through(self, binding: "Binding", stage: str) -> Shown:
        from streamapp.workflow.run.binding import failure

        graph, made = binding.graph, dict[str, pa.Table]()
        unread: _Aside = []
        needed = _needed(graph, stage)
        for name in (name for name in graph.inputs if name in needed):
            made[name], bad = self._tail(binding, name)
            unread += bad
        for name in (name for name in binding.order if name in needed):
            given = {taken: made[taken] for taken in graph.takes(graph.step(name))}
            began_s = monotonic_s()
            try:
                made[name], aside = self._run(binding, name, given)
            except StreamappError as error:
                raise failure(error, f"{self.path}: stage {name!r}") from None
            except Exception as error:  # an operation may raise anything, and be edited next
                what = f"{self.path}: stage {name!r}: {type(error).__name__}: {error}"
                fix = "this is a mistake in the operation; --debug has the traceback"
                raise Refuse("operation.error", what, fix) from error
        before = {column for table in given.values() for column in table.column_names}
        return Shown(
            stage,
            binding.calls[stage][0].operation,
            sum(table.num_rows for table in given.values()),
            monotonic_s() - began_s,
            made[stage],
            [*unread, *aside],
            tuple(column for column in made[stage].column_names if column not in before),
        )

    def _run(
        self, binding: "Binding", name: str, given: Mapping[str, pa.Table]
    ) -> tuple[pa.Table, _Aside]:
        """One stage on these rows; with ``foreach`` its first call."""
        from streamapp.core.project import read_secret
        from streamapp.plugin.calling import CallWork, TableSources, run_operation
        from streamapp.workflow.data import declared_sources
        from streamapp.workflow.graph.expressions import fill

        folder, call = binding.graph.folder, binding.calls[name][0]
        bad: deque[BadRow] = deque(maxlen=self.rows_max)
        sources = TableSources({}, declared_sources(folder, on_bad=bad.append))
        work = CallWork(sources, lambda: self._registry(folder), folder)
        config = fill(call.config, {}, lambda reference: read_secret(reference, folder))
        table = run_operation(call.operation, config, given, work)
        return table, [*_unread(bad), *work.aside]

    def _registry(self, folder: Path) -> "Models":
        """Opened once: a look after an edit does not load models again."""
        from streamapp.compose import registry
        from streamapp.workflow.data import declared_models

        if self._models is None:
            self._models = declared_models(registry(self.settings), folder)
        return self._models

    def _tail(self, binding: "Binding", name: str) -> tuple[pa.Table, _Aside]:
        """The last rows of an input, and its last bad ones; read anew when its files changed."""
        from streamapp.workflow.data import open_input

        bad: deque[BadRow] = deque(maxlen=self.rows_max)
        folder = binding.graph.folder
        opened = open_input(binding.graph.inputs[name], folder, name=name, on_bad=bad.append)
        key = (opened.identity, str([_stamp(path) for path in opened.files]))
        if key not in self._tails:
            held: deque[pa.RecordBatch] = deque()
            with opened.read() as reader:
                for batch in reader:
                    held.append(batch)
                    while sum(b.num_rows for b in held) - held[0].num_rows >= self.rows_max:
                        held.popleft()
            table = pa.Table.from_batches(held, opened.schema())
            last = table.slice(max(table.num_rows - self.rows_max, 0))
            self._tails[key] = last, _unread(bad)
        return self._tails[key]


@command(
    examples=[
        "streamapp dev workflow.yaml",
        "streamapp dev workflow.yaml --stage nlp-analysis --rows 5",
        "streamapp dev workflow.yaml --once --json",
    ],
)
@file_argument
@click.option("--stage", help="Show this one (default: the one that was edited last).")
@click.option(
    "--rows",
    "rows_max",
    type=click.IntRange(1, 10_000),
    default=10,
    show_default=True,
    help="Rows of each input, the last ones.",
)
@click.option("--once", is_flag=True, help="Show it as it is now, and end.")
@set_option
@json_option
@settings_options("models_dir", "models_cache")
def dev(
    settings: Settings,
    file: Path,
    stage: str | None,
    rows_max: int,
    params: dict[str, Any],
    once: bool,
    as_json: bool,
) -> None:
    """Run the last rows of FILE's inputs through its stages, again on every save.

    What is wrong is said with its place in the file, and the next save is waited for.  Functions of
    the project's Python are loaded anew when one of its files was saved.
    """
    preview = Preview(settings, file, params, rows_max)
    if once:
        _show(preview.look(stage), as_json=as_json)
        return
    for _ in saves(file):
        try:
            _show(preview.look(stage), as_json=as_json)
        except (StreamappError, click.ClickException) as error:
            _complain(error, as_json=as_json)


def saves(file: Path) -> Iterator[None]:
    """Once now, and once after each save of the file, the project's file or its own Python."""
    seen = None
    while True:
        stamps = [_stamp(path) for path in (file, *_beside(file))]
        if stamps != seen:
            seen = stamps
            yield
        time.sleep(_LOOK_EVERY_S)


def _beside(file: Path) -> Iterator[Path]:
    from streamapp.plugin.bridge.place import python_place

    project = find_project(file.absolute().parent)
    yield project or file.absolute().parent / PROJECT_FILE
    if project is None:
        return
    try:
        folders = python_place(project.parent).paths
    except StreamappError:
        return  # a stage that needs one will say so
    for folder in folders:
        for count, path in enumerate(Path(folder).rglob("*.py")):
            if count == _PYTHON_FILES_MAX:
                break
            yield path


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), found.st_mtime_ns, found.st_size


def _unread(bad: "Iterable[BadRow]") -> _Aside:
    """Rows that a reader set aside, each with its place."""
    return [
        (
            pa.table({"text": [row.text]}),
            f"{row.origin}{f':{row.line}' if row.line is not None else ''}: {row.reason}",
        )
        for row in bad
    ]


def _needed(graph: "Graph", stage: str) -> set[str]:
    """The stage, and all that its rows come from."""
    found, todo = set[str](), [stage]
    while todo:
        name = todo.pop()
        found.add(name)
        if name not in graph.inputs:
            todo += [taken for taken in graph.takes(graph.step(name)) if taken not in found]
    return found


def _show(shown: Shown, *, as_json: bool) -> None:
    from streamapp.workflow.data.plain_rows import python_rows

    rows = python_rows(shown.table)
    aside = [{"reason": why, "rows": bad.num_rows} for bad, why in shown.aside]
    if as_json:
        told = {"stage": shown.stage, "operation": shown.operation, "rows_in": shown.rows_in}
        click.echo(json.dumps({**told, "rows": rows, "aside": aside}, default=str))
        return
    click.secho(f"\n{shown.stage}", bold=True, nl=False)
    click.echo(
        f"  {shown.operation}  {counted(shown.rows_in, 'row')} in, {len(rows)} out", nl=False
    )
    click.echo(f", {sum(bad.num_rows for bad, _ in shown.aside)} aside, {shown.seconds:.2f} s")
    for why in aside:
        click.secho(f"aside: {why['reason']} ({counted(why['rows'], 'row')})", fg="yellow")
    first = [name for name in shown.table.column_names if name not in shown.added]
    columns = [*(first[:2] if shown.added else first), *shown.added][:_COLUMNS_MAX]
    print_table(columns, [[_cell(row[name]) for name in columns] for row in rows])


def _cell(value: Any) -> str:
    text = "" if value is None else harmless(str(value).replace("\n", " "))
    return text if len(text) <= _CELL_CHARS_MAX else text[: _CELL_CHARS_MAX - 1] + "…"


def _complain(error: "StreamappError | click.ClickException", *, as_json: bool) -> None:
    message = error.message
    code, fix = getattr(error, "code", "cli.usage"), getattr(error, "fix", "")
    if as_json:
        click.echo(json.dumps({"error": {"code": code, "message": message, "fix": fix}}))
    else:
        print_error(message, fix)
