"""A workflow with all that it names found: operations made, columns known, before it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any

import pyarrow as pa

from streamapp.core.errors import Refuse, StreamappError
from streamapp.plugin import Operation, Source, Sources
from streamapp.plugin.operation import Parallel, Scope
from streamapp.workflow.data import Opened, declared_sources, open_input, open_output
from streamapp.workflow.graph.check import check, make, place, variants
from streamapp.workflow.graph.expressions import fill
from streamapp.workflow.graph.names import operation_name
from streamapp.workflow.graph.spec import Graph, Step
from streamapp.workflow.run.targets import twice_written


@dataclass(frozen=True, slots=True)
class Bound:
    """One call of a stage's operation, for one choice of its ``foreach``.

    Attributes:
        operation: ``service.operation``.
        kind: its class.
        config: with its templates filled, secrets as references.
        variables: of ``foreach``.
        schema: that the call returns.
        sources: declared ones that it reads.
    """

    operation: str
    kind: type[Operation]
    config: dict[str, Any]
    variables: dict[str, Any]
    schema: pa.Schema
    sources: tuple[str, ...]
    scope: Scope
    parallel: Parallel


@dataclass(slots=True)
class Binding:
    """A graph, bound.

    Attributes:
        graph: as loaded.
        params: of the file and of this run.
        inputs: opened, by name.
        sources: declared ones that some stage reads, by name.
        calls: by stage.
        schemas: of what inputs and stages give, by name.
        order: of the stages, each after what it depends on.
    """

    graph: Graph
    params: dict[str, Any]
    inputs: dict[str, Opened] = field(default_factory=dict)
    sources: dict[str, Opened] = field(default_factory=dict)
    calls: dict[str, tuple[Bound, ...]] = field(default_factory=dict)
    schemas: dict[str, pa.Schema] = field(default_factory=dict)
    order: tuple[str, ...] = ()


def bind(graph: Graph, params: Mapping[str, Any] | None = None) -> Binding:
    """A graph bound.

    Raises:
        Refuse: the first of ``find_problems``.
        Retry: an input or a source does not answer now.
    """
    binding, problems = find_problems(graph, params)
    if problems:
        raise problems[0]
    return binding


def find_problems(
    graph: Graph, params: Mapping[str, Any] | None = None
) -> tuple[Binding, list[Refuse]]:
    """All that is wrong with a workflow before it runs: its file, its inputs, its types.

    Looks at the beginnings of the inputs, and opens no model.

    Raises:
        Retry: an input or a source does not answer now.
    """
    binding = Binding(graph, {**graph.params, **(params or {})})
    problems = check(graph, params)
    if problems:
        return binding, problems
    binding.order = order_of(graph)
    for name, declared in graph.inputs.items():
        try:
            binding.inputs[name] = open_input(declared, graph.folder, name=name)
            binding.schemas[name] = binding.inputs[name].schema()
        except Refuse as error:
            problems.append(place(graph, error, "inputs", name))
    asked = _Asked(graph, binding.sources)
    for name in binding.order:
        step = graph.step(name)
        if all(taken in binding.schemas for taken in graph.takes(step)):
            try:
                _bind_step(binding, step, asked)
            except Refuse as error:
                problems.append(place(graph, error, "stages", graph.stages.index(step)))
    for name, output in graph.outputs.items():
        try:
            open_output(output, graph.folder, name=name, home=graph.folder)
        except Refuse as error:
            problems.append(place(graph, error, "outputs", name))
    return binding, problems or list(twice_written(graph))


def order_of(graph: Graph) -> tuple[str, ...]:
    """The stages, each after those that it depends on; of a graph that ``check`` passed."""
    sorter = TopologicalSorter({step.name: step.depends_on for step in graph.stages})
    return tuple(sorter.static_order())


def _bind_step(binding: Binding, step: Step, asked: "_Asked") -> None:
    given = {name: binding.schemas[name] for name in binding.graph.takes(step)}
    calls = []
    for variables in variants(step):
        values = {"params": binding.params, **variables}
        operation = make(step, values, binding.graph.folder)
        asked.names.clear()
        schema = operation.schema(given, asked)
        calls.append(
            Bound(
                operation_name(step.service, step.operation),
                type(operation),
                fill(step.config, values),
                variables,
                schema,
                tuple(dict.fromkeys(asked.names)),
                operation.scope,
                operation.parallel,
            )
        )
    first = calls[0].schema
    for call in calls[1:]:
        if not call.schema.equals(first):
            why = f"stage {step.name!r} gives other columns for {call.variables}"
            fix = "make a stage for each, or let the config not change columns"
            raise Refuse("workflow.foreach", why, fix)
    binding.calls[step.name] = tuple(calls)
    binding.schemas[step.name] = _with_variables(first, step)


def _with_variables(schema: pa.Schema, step: Step) -> pa.Schema:
    """A stage's columns: those of its operation, and the variables of its ``foreach``."""
    for name, values in (step.foreach or {}).items():
        if name in schema.names:
            why = f"stage {step.name!r}: its result has a column {name!r} already"
            raise Refuse("workflow.foreach", why, "give the variable another name")
        try:
            kind = _type_of(values)
        except OverflowError:
            why = f"stage {step.name!r}: a value of {name!r} does not fit into 64 bits"
            raise Refuse("workflow.foreach", why, "give a smaller one, or a text") from None
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            why = f"stage {step.name!r}: values of {name!r} are of several types"
            raise Refuse("workflow.foreach", why, "give values of one type") from None
        schema = schema.append(pa.field(name, kind))
    return schema


def _type_of(values: Sequence[Any]) -> pa.DataType:
    if len({isinstance(value, bool) for value in values if value is not None}) > 1:
        raise pa.ArrowTypeError("booleans among others")  # beside 1.5 Arrow makes 1.0 of true
    return pa.array(list(values)).type


class _Asked(Sources):
    """The declared sources, with a note of which were asked for."""

    def __init__(self, graph: Graph, opened: dict[str, Opened]) -> None:
        self._graph, self._opened = graph, opened
        self._declared: Any = None
        self.names: list[str] = []

    def source(self, name: str) -> Source:
        if self._declared is None:
            self._declared = declared_sources(self._graph.folder)
        if name not in self._opened:
            self._opened[name] = self._declared.source(name)
        self.names.append(name)
        return self._opened[name]


def failure(error: StreamappError, what: str) -> StreamappError:
    """An error of a part of a run with the part's name before it."""
    made = type(error)(error.code, f"{what}: {error.message}", error.fix)
    for note in getattr(error, "__notes__", ()):
        made.add_note(note)
    return made
