"""What is wrong with a workflow, as far as its file and the installed operations can tell."""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from streamapp.core.errors import Refuse, StreamappError
from streamapp.plugin import Operation
from streamapp.plugin.registered import config_of, operation_class
from streamapp.workflow.graph.expressions import fill, names_in, parse
from streamapp.workflow.graph.marks import Where
from streamapp.workflow.graph.names import operation_name, suggest
from streamapp.workflow.graph.spec import Graph, Output, Step

#: Calls of one stage by its ``foreach``.
VARIANTS_MAX = 1_000
_KEY = re.compile(r"\bconfig((?:\.\w+|\[\d+\])+)")
_PART = re.compile(r"\.(\w+)|\[(\d+)\]")


def check(graph: Graph, params: Mapping[str, Any] | None = None) -> list[Refuse]:
    """All that is wrong, in the file's order; nothing is read but the file itself.

    Args:
        graph: as loaded.
        params: values of this run, over those of the file.
    """
    return list(_problems(graph, params or {}))


def place(graph: Graph, error: StreamappError, *where: str | int, key: bool = False) -> Refuse:
    """An error of a part of the file with the part's place before it.

    Where the message names ``config.KEY``, the place is that key's.
    """
    if error.code.startswith("workflow.") and error.message.startswith(str(graph.path)):
        return error if isinstance(error, Refuse) else Refuse(error.code, error.message, error.fix)
    named = _KEY.search(error.message)
    inner: Where = ()
    if named and len(where) == 2:  # ("stages", 3)
        parts = _PART.findall(named[1])
        inner = ("config", *(name or int(index) for name, index in parts))
    at = graph.marks.at(*where, *inner, key=key or bool(inner))
    return Refuse(error.code, f"{at}: {error.message}", error.fix)


def variants(step: Step) -> list[dict[str, Any]]:
    """The variables of each call of a stage: one empty one without ``foreach``."""
    if step.foreach is None:
        return [{}]
    return [
        dict(zip(step.foreach, values, strict=True)) for values in product(*step.foreach.values())
    ]


def make(step: Step, values: Mapping[str, Any], folder: Path) -> Operation:
    """The operation of a stage, for the values of one call; its secrets stay references.

    Args:
        step: the stage.
        values: of its variables.
        folder: of the workflow's file.

    Raises:
        Refuse: no such operation, a config that it does not take, or a template without a value.
    """
    name = operation_name(step.service, step.operation)
    found = operation_class(name, folder)
    return found(config_of(found.Config, fill(step.config, values), name))


def _problems(graph: Graph, params: Mapping[str, Any]) -> Iterator[Refuse]:
    yield from _params(graph, params)
    if not graph.stages and not graph.outputs:
        at = graph.marks.at("stages")
        yield Refuse("workflow.empty", f"{at}: nothing is to be done", "add a stage")
    yield from _names(graph)
    for index, step in enumerate(graph.stages):
        yield from _step(graph, index, step, {**graph.params, **params})
    yield from _cycles(graph)
    for name, output in graph.outputs.items():
        yield from _output(graph, name, output)


def _params(graph: Graph, params: Mapping[str, Any]) -> Iterator[Refuse]:
    for name in params:
        if name not in graph.params:
            why = f"{graph.marks.at('params', key=True)}: there is no parameter {name!r}"
            yield Refuse("workflow.param", why, suggest(name, graph.params, "there are"))


def _names(graph: Graph) -> Iterator[Refuse]:
    seen: dict[str, str] = dict.fromkeys(graph.inputs, "an input")
    for index, step in enumerate(graph.stages):
        if step.name in seen:
            at = graph.marks.at("stages", index, "name")
            why = f"{at}: {seen[step.name]} is called {step.name!r} already"
            yield Refuse("workflow.twice", why, "rename one of the two")
        seen.setdefault(step.name, "a stage")


def _step(graph: Graph, index: int, step: Step, params: Mapping[str, Any]) -> Iterator[Refuse]:
    yield from _takes(graph, index, step)
    count = prod(map(len, (step.foreach or {}).values()))
    if not 0 < count <= VARIANTS_MAX:
        at = graph.marks.at("stages", index, "foreach", key=True)
        why = f"{at}: foreach makes {count:,} calls"
        yield Refuse("workflow.foreach", why, f"give 1 to {VARIANTS_MAX} combinations")
        return
    calls = variants(step)
    taken = {"params", "rows"} & calls[0].keys()
    if taken:
        at = graph.marks.at("stages", index, "foreach", *taken, key=True)
        why = f"{at}: {min(taken)!r} is a name of its own in conditions"
        yield Refuse("workflow.foreach", why, "give the variable another name")
        return
    values = {"params": params, **calls[0]}
    try:
        operation = make(step, values, graph.folder)
        _check_count(graph, step, operation)
        for call in calls[1:]:
            make(step, {"params": params, **call}, graph.folder)
    except StreamappError as error:
        key = {"workflow.service": "service", "workflow.operation": "operation"}.get(error.code)
        yield place(graph, error, "stages", index, *([key] if key else []))
    yield from _when(graph, index, step, values)


def _takes(graph: Graph, index: int, step: Step) -> Iterator[Refuse]:
    stages = [other.name for other in graph.stages if other.name != step.name]
    for key, named, known, others in (
        ("depends_on", step.depends_on, stages, graph.inputs),
        ("inputs", step.inputs, list(graph.inputs), stages),
    ):
        for at_index, name in enumerate(named):
            if name in known or (name == step.name and key == "depends_on"):
                continue  # a stage that waits for itself is a cycle, and said there
            fix = suggest(name, known, "there are")
            if name in others:
                fix = f"name it in {'inputs' if key == 'depends_on' else 'depends_on'}"
            at = graph.marks.at("stages", index, key, at_index)
            kind = "stage" if key == "depends_on" else "input"
            why = f"{at}: stage {step.name!r} takes {kind} {name!r}, which is not there"
            yield Refuse("workflow.depends", why, fix)
    twice = next((n for n in graph.takes(step) if graph.takes(step).count(n) > 1), None)
    if twice:
        at = graph.marks.at("stages", index, "depends_on", key=True)
        yield Refuse("workflow.twice", f"{at}: {twice!r} is taken twice", "remove one")


def _check_count(graph: Graph, step: Step, operation: Operation) -> None:
    least, most = operation.inputs
    count = len(graph.takes(step))
    if count < least or (most is not None and count > most):
        wanted = str(least) if least == most else f"{least} to {most or 'any number'}"
        why = f"stage {step.name!r} takes {wanted} inputs, and is given {count}"
        given = ", ".join(graph.takes(step)) or "none"
        raise Refuse("workflow.inputs", why, f"say which in depends_on or inputs; now: {given}")


def _when(graph: Graph, index: int, step: Step, values: Mapping[str, Any]) -> Iterator[Refuse]:
    if step.when is None:
        return
    at = graph.marks.at("stages", index, "when")
    rows = graph.takes(step)
    offered = [f"params.{name}" for name in values["params"]] + [f"rows.{name}" for name in rows]
    offered += [name for name in values if name != "params"]
    try:
        for path in names_in(parse(step.when)):
            if ".".join(path) not in offered:
                why = f"when {step.when!r}: there is no {'.'.join(path)!r}"
                fix = suggest(".".join(path), offered, "there are")
                yield Refuse("workflow.when", f"{at}: {why}", fix)
    except Refuse as error:
        yield Refuse(error.code, f"{at}: {error.message}", error.fix)


def _cycles(graph: Graph) -> Iterator[Refuse]:
    """The shortest cycle of each knot of stages that wait for each other."""
    named = {step.name: step.depends_on for step in graph.stages}
    told: set[str] = set()
    for index, step in enumerate(graph.stages):
        if step.name in told:
            continue
        cycle = _way_back(step.name, named)
        if cycle:
            told.update(cycle)
            at = graph.marks.at("stages", index, "depends_on", key=True)
            why = f"{at}: these stages wait for each other: {' -> '.join(cycle)}"
            yield Refuse("workflow.cycle", why, "remove one depends_on of them")


def _way_back(start: str, named: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The shortest way from a stage along ``depends_on`` to itself, or nothing."""
    ways = deque([[start]])
    seen: set[str] = set()
    while ways:
        way = ways.popleft()
        for name in named.get(way[-1], ()):
            if name == start:
                return [*way, name]
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return []


def _output(graph: Graph, name: str, output: Output) -> Iterator[Refuse]:
    known = [*(step.name for step in graph.stages), *graph.inputs]
    if output.source not in known:
        at = graph.marks.at("outputs", name, "source")
        why = f"{at}: output {name!r} is of {output.source!r}, which is not there"
        yield Refuse("workflow.source", why, suggest(output.source, known, "there are"))
