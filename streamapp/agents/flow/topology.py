"""Which stages share a process, and which topics lie between."""

from collections.abc import Mapping
from dataclasses import dataclass

from streamapp.core.errors import Refuse
from streamapp.workflow.graph.check import place
from streamapp.workflow.graph.expressions import names_in, parse
from streamapp.workflow.graph.spec import Graph, Step
from streamapp.workflow.run.binding import Binding


@dataclass(frozen=True, slots=True)
class Group:
    """Stages that run in one process, as one consumer group.

    Attributes:
        name: of the group; of the app it is part.
        source: the input or stage that they read.
        topic: of the source.
        steps: in order, each after the one whose rows it takes.
        publishes: topic to the stage whose rows it gets.
    """

    name: str
    source: str
    topic: str
    steps: tuple[str, ...]
    publishes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Topology:
    """A graph on topics.

    Attributes:
        inputs: topic of each input that something reads.
        groups: in order, each after the one whose topic it reads.
        outputs: topic of each output.
        has_windows: whether a stage keeps state, so that a topic may have one partition only.
    """

    inputs: Mapping[str, str]
    groups: tuple[Group, ...]
    outputs: Mapping[str, str]
    has_windows: bool

    @property
    def topics(self) -> tuple[str, ...]:
        """All of them, inputs first."""
        between = [topic for group in self.groups for topic in group.publishes]
        return tuple(dict.fromkeys([*self.inputs.values(), *between, *self.outputs.values()]))

    def group(self, name: str) -> Group:
        """Raises Refuse for a name that there is not."""
        found = next((group for group in self.groups if group.name == name), None)
        if found is None:
            known = ", ".join(group.name for group in self.groups)
            raise Refuse("flow.group", f"there is no group {name!r}", f"there are {known}")
        return found


def topology(binding: Binding) -> Topology:
    """The groups and topics of a bound graph.

    Raises:
        Refuse: ``flow.*``: a stage cannot run on a topic; the message has its place in the file.
    """
    graph = binding.graph
    steps = [graph.step(name) for name in binding.order]
    for step in steps:
        _check(binding, step)
    taken = {step.name: graph.takes(step)[0] for step in steps}
    own = {step.name for step in steps if step.scale == "own"}
    group_of: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    source_of: dict[str, str] = {}
    for step in steps:
        before = taken[step.name]
        fused_before = before in group_of and before not in own
        if step.name in own or not fused_before:
            name = step.name if step.name in own else f"after-{before}"
            source_of[name] = before
        else:
            name = group_of[before]
        group_of[step.name] = name
        members.setdefault(name, []).append(step.name)
    between = {source for source in source_of.values() if source in group_of}
    outputs = {name: _topic(graph, output.source, name) for name, output in graph.outputs.items()}
    publishes: dict[str, dict[str, str]] = {name: {} for name in members}
    for node in between:
        publishes[group_of[node]][_topic(graph, node, node)] = node
    for name, output in graph.outputs.items():
        if output.source in group_of:
            publishes[group_of[output.source]][outputs[name]] = output.source
    _check_topics(graph, outputs, between)
    groups = tuple(
        Group(name, source, _topic(graph, source, source), tuple(members[name]), publishes[name])
        for name, source in source_of.items()
        if publishes[name]  # what nobody takes is not worked out
    )
    read = {*source_of.values(), *(output.source for output in graph.outputs.values())}
    return Topology(
        {name: _topic(graph, name, name) for name in graph.inputs if name in read},
        groups,
        outputs,
        any(call.scope == "window" for calls in binding.calls.values() for call in calls),
    )


def _topic(graph: Graph, node: str, name: str) -> str:
    """The topic of an input, a stage, or an output; an output of an input is the input's."""
    return f"{graph.name}.{node if node in graph.inputs else name}"


def _check(binding: Binding, step: Step) -> None:
    """A stage runs on a topic when each of its rows, or its state, says all it depends on."""
    graph, calls = binding.graph, binding.calls[step.name]
    index = graph.stages.index(step)
    why = fix = ""
    if len(graph.takes(step)) != 1:
        why = f"takes {len(graph.takes(step))} inputs at once"
        fix = "name one in depends_on or inputs; what is looked up goes into a declared source"
    elif step.when is not None and any(path[0] == "rows" for path in names_in(parse(step.when))):
        why = "has a when that counts rows, which on a topic have no end"
        fix = "compare parameters, or run the workflow without --stream"
    elif calls[0].scope == "table":
        why = f"is {calls[0].operation}, which looks at all rows at once"
        fix = "use one that looks at a row or a window, or run the workflow without --stream"
    elif calls[0].scope == "window" and not hasattr(calls[0].kind, "feed"):
        why = f"is {calls[0].operation}, whose windows are not fed row by row"
        fix = "run the workflow without --stream"
    if why:
        error = Refuse("flow.stage", f"stage {step.name!r} {why}", fix)
        raise place(graph, error, "stages", index)


def _check_topics(graph: Graph, outputs: Mapping[str, str], between: set[str]) -> None:
    """No two parts of a workflow may have one topic, unless they are the same rows."""
    meant = {f"{graph.name}.{node}": node for node in (*graph.inputs, *between)}
    for name, topic in outputs.items():
        source = graph.outputs[name].source
        if meant.setdefault(topic, source) != source:
            error = Refuse(
                "flow.topic",
                f"output {name!r} and {meant[topic]!r} would share the topic {topic}",
                "rename the output",
            )
            raise place(graph, error, "outputs", name, key=True)
