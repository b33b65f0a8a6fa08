"""Where outputs go: no two to one place, and none over a file that is read."""

import os
from collections.abc import Iterator
from pathlib import Path

from streamapp.core.errors import Refuse
from streamapp.workflow.data import Opened, format_of
from streamapp.workflow.data.formats import writer_of
from streamapp.workflow.graph.check import place
from streamapp.workflow.graph.spec import Graph, Output


def twice_written(graph: Graph) -> Iterator[Refuse]:
    """Outputs of a checked graph that would replace another one of it."""
    provenance = f"{graph.name}.provenance.json"
    seen: dict[tuple[str, str], str] = {(provenance, ""): "the provenance"}
    for name, output in graph.outputs.items():
        target = _target(name, output)
        other = seen.setdefault(target, f"output {name!r}")
        if Path(target[0]).parts[0] == "quarantine":
            other = "quarantine"
        if other != f"output {name!r}":
            why = f"output {name!r} is written where {other} is"
            error = Refuse("workflow.output", why, "give each a path, or a table, of its own")
            yield place(graph, error, "outputs", name)
    files = {path: what for (path, _), what in seen.items()}
    for name, output in graph.outputs.items():
        path, _ = _target(name, output)
        folder = next((str(each) for each in Path(path).parents if str(each) in files), "")
        if folder and not output.url:
            why = f"output {name!r} needs a folder {folder}, where {files[folder]} is a file"
            yield place(graph, Refuse("workflow.output", why, "rename one"), "outputs", name)


def refuse_overwriting(
    graph: Graph, read: dict[str, Opened], folder_out: Path, what: str = "input"
) -> None:
    """Refuse outputs that would replace a file that is read.

    A pattern may find them, too: what a run before wrote into a folder that it looks into.

    Raises:
        Refuse: ``workflow.output``.
    """
    readers = {file.resolve(): name for name, opened in read.items() for file in opened.files}
    for name, output in graph.outputs.items():
        path, table = _target(name, output)
        reader = readers.get((folder_out / path).resolve())
        if reader and not table:  # of a file with tables only one is replaced
            why = f"output {name!r} is written over {path}, which {what} {reader!r} reads"
            fix = "give it another path, or --out another folder; or narrow the pattern"
            raise place(graph, Refuse("workflow.output", why, fix), "outputs", name)


def _target(name: str, output: Output) -> tuple[str, str]:
    """The file or the URL, and which table of it where it has several."""
    form = output.format or format_of(output.path or "")
    where = output.url or os.path.normpath(output.path or f"{name}.{form}")
    return where, (output.table or name) if "table" in writer_of(form).takes else ""
