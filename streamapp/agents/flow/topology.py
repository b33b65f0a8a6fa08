"""Which stages share a process, and which topics lie between."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from streamapp.agents.flow.keyed import KeyedTopic, is_key
from streamapp.core.errors import Refuse
from streamapp.plugin.registered import config_of
from streamapp.workflow.graph.check import place
from streamapp.workflow.graph.expressions import names_in, parse
from streamapp.workflow.graph.spec import Graph, Step
from streamapp.workflow.run.binding import Binding


@dataclass(frozen=True, slots=True)
class Group:
    """Stages that run in one process, as one consumer group.

    Attributes:
        name: of the group; of the app it is part.
        takes: the topic of the input or stage that they read; of several, if ``is_whole``.
        steps: in order, each after the one whose rows it takes.
        publishes: topic to the stage whose rows it gets, or the source.
        by_key: of these topics, those whose rows are parted by keys too: for whom.
        partitions: of each topic.
        is_keyed: whether its topic has rows that were parted by a key, of any partition.
        is_whole: whether its one stage takes all rows of a run at once.
        is_ordered: whether what comes of each record is a record, which says where it belongs.
    """

    name: str
    takes: Mapping[str, str]
    steps: tuple[str, ...]
    publishes: Mapping[str, str]
    by_key: Mapping[str, tuple[KeyedTopic, ...]]
    partitions: int
    is_keyed: bool = False
    is_whole: bool = False
    is_ordered: bool = False

    @property
    def source(self) -> str:
        """The first that it takes."""
        return next(iter(self.takes))

    @property
    def topic(self) -> str:
        """Of its source; what its app subscribes to."""
        return self.takes[self.source]

    @property
    def topics(self) -> tuple[str, ...]:
        """Those that it writes."""
        keyed = [each.name for found in self.by_key.values() for each in found]
        return (*self.publishes, *keyed)


@dataclass(frozen=True, slots=True)
class Topology:
    """A graph on topics.

    Attributes:
        inputs: topic of each input that something reads.
        groups: in order, each after the one whose topic it reads.
        outputs: topic of each output.
    """

    inputs: Mapping[str, str]
    groups: tuple[Group, ...]
    outputs: Mapping[str, str]

    @property
    def topics(self) -> tuple[str, ...]:
        """All of them, inputs first."""
        between = [topic for group in self.groups for topic in group.topics]
        return tuple(dict.fromkeys([*self.inputs.values(), *between, *self.outputs.values()]))

    def group(self, name: str) -> Group:
        """Raises Refuse for a name that there is not."""
        found = next((group for group in self.groups if group.name == name), None)
        if found is None:
            known = ", ".join(group.name for group in self.groups)
            raise Refuse("flow.group", f"there is no group {name!r}", f"there are {known}")
        return found


def topology(binding: Binding, partitions: int = 1) -> Topology:
    """The groups and topics of a bound graph.

    Args:
        binding: of the graph.
        partitions: of each topic; with several, rows go to a window by its key.

    Raises:
        Refuse: ``flow.*``: a stage cannot run on a topic; the message has its place in the file.
    """
    graph = binding.graph
    steps = [graph.step(name) for name in binding.order]
    for step in steps:
        _check(binding, step)
    whole = {step.name for step in steps if why_whole(binding, step)}
    windows = [step for step in steps if partitions > 1 and _is_window(binding, step)]
    keyed = {step.name: _keyed(binding, step) for step in windows if step.name not in whole}
    drawn = _Drawn(graph, whole, set(keyed))
    for step in steps:
        drawn.add(step)
    outputs = {name: _topic(graph, output.source, name) for name, output in graph.outputs.items()}
    publishes = drawn.publishes(outputs)
    _check_topics(graph, outputs, drawn.between)
    parted: dict[str, list[KeyedTopic]] = {}
    for name, topic in keyed.items():
        if publishes[name]:
            parted.setdefault(drawn.home(drawn.sources_of[name][0]), []).append(topic)
    groups = tuple(
        Group(
            name,
            {
                source: keyed[name].name if name in keyed else drawn.topic(source)
                for source in sources
            },
            tuple(drawn.members[name]),
            publishes[name],
            {home: tuple(parted[home]) for home in publishes[name] if home in parted},
            partitions,
            is_keyed=name in keyed,
            is_whole=name in whole,
            is_ordered=partitions > 1 and bool(whole) and name not in {*keyed, *whole},
        )
        for name, sources in drawn.sources_of.items()
        if publishes[name]  # what nobody takes is not worked out
    )
    read = {each for sources in drawn.sources_of.values() for each in sources}
    read |= {output.source for output in graph.outputs.values()}
    inputs = {name: _topic(graph, name, name) for name in graph.inputs if name in read}
    return Topology(inputs, groups, outputs)


def check_endless(binding: Binding) -> None:
    """Refuse a graph that needs the end of its rows, for rows that have none.

    Raises:
        Refuse: ``flow.endless``: a stage takes all rows at once; the message has its place.
    """
    graph = binding.graph
    for index, step in enumerate(graph.stages):
        if why := why_whole(binding, step):
            why = f"stage {step.name!r} {why}, and without --feed they have no end"
            fix = "give --feed, or use one that looks at a row or a window"
            raise place(graph, Refuse("flow.endless", why, fix), "stages", index)


def why_whole(binding: Binding, step: Step) -> str:
    """Why a stage needs all rows of a run; empty where it does not."""
    graph, call = binding.graph, binding.calls[step.name][0]
    if len(graph.takes(step)) > 1:
        return f"takes all rows of {len(graph.takes(step))} inputs"
    if call.scope == "table":
        return f"is {call.operation}, which looks at all rows at once"
    if call.scope == "window" and not hasattr(call.kind, "feed"):
        return f"is {call.operation}, which looks at all rows at once"
    if step.when is not None and any(path[0] == "rows" for path in names_in(parse(step.when))):
        return "has a when that counts rows"
    return ""


class _Drawn:
    """Stages put into groups, one after the other."""

    def __init__(self, graph: Graph, whole: Collection[str], keyed: Collection[str]) -> None:
        self._graph, self._whole, self._keyed = graph, whole, keyed
        self._parted: dict[str, None] = {}
        self.group_of: dict[str, str] = {}
        self.members: dict[str, list[str]] = {}
        self.sources_of: dict[str, tuple[str, ...]] = {}

    @property
    def between(self) -> set[str]:
        """Stages whose rows another group takes."""
        read = {source for sources in self.sources_of.values() for source in sources}
        return read & self.group_of.keys()

    def add(self, step: Step) -> None:
        """The next stage, in an order in which each comes after those whose rows it takes."""
        takes, name = self._graph.takes(step), step.name
        before = takes[0]
        if step.name in self._keyed:
            self._parted[before] = None
            if self._is_sent(before):  # somebody has to part its rows
                self.members.setdefault(f"after-{before}", [])
                self.sources_of.setdefault(f"after-{before}", (before,))
        if name in self._keyed or name in self._whole or step.scale == "own":
            self._check_name(step)
            self.sources_of[name] = takes
        elif self._is_sent(before) or self._graph.step(before).scale == "own":
            name = f"after-{before}"
            self.sources_of[name] = takes
        else:
            name = self.group_of[before]
        self.group_of[step.name] = name
        self.members.setdefault(name, []).append(step.name)

    def _is_sent(self, node: str) -> bool:
        """Whether its rows come in pieces, each run's anew: an input's, and those of all rows."""
        return node in self._graph.inputs or node in self._whole

    def _check_name(self, step: Step) -> None:
        """Refuse a group of its own whose name others give to a group of several."""
        nodes = (*self._graph.inputs, *(each.name for each in self._graph.stages))
        if step.name in {f"after-{node}" for node in nodes}:
            why = f"stage {step.name!r} has a group of its own, and its name may be another's"
            error = Refuse("flow.name", why, "rename it, so that it does not begin with after-")
            index = self._graph.stages.index(step)
            raise place(self._graph, error, "stages", index, "name")

    def topic(self, node: str) -> str:
        """Of a node's rows between groups."""
        return _topic(self._graph, node, node)

    def home(self, node: str) -> str:
        """The topic of a node's rows from which they can be parted once more."""
        return f"{self.topic(node)}.rows" if self._is_sent(node) else self.topic(node)

    def publishes(self, outputs: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """By group: topic to the node whose rows it gets."""
        found: dict[str, dict[str, str]] = {name: {} for name in self.members}
        for node in self._parted:
            if self._is_sent(node):
                found[f"after-{node}"][self.home(node)] = node
        for node in self.between:
            found[self.group_of[node]][self.topic(node)] = node
        for name, output in self._graph.outputs.items():
            if output.source in self.group_of:
                found[self.group_of[output.source]][outputs[name]] = output.source
        return found


def _topic(graph: Graph, node: str, name: str) -> str:
    """The topic of an input, a stage, or an output; an output of an input is the input's."""
    return f"{graph.name}.{node if node in graph.inputs else name}"


def _is_window(binding: Binding, step: Step) -> bool:
    return binding.calls[step.name][0].scope == "window"


def _keyed(binding: Binding, step: Step) -> KeyedTopic:
    """The topic of a window's rows, by its key.

    Raises:
        Refuse: ``flow.partitions``: its rows cannot be parted.
    """
    graph, calls = binding.graph, binding.calls[step.name]
    schema = binding.schemas[graph.takes(step)[0]]
    kinds = [call.kind(config_of(call.kind.Config, call.config, call.operation)) for call in calls]
    keys = {getattr(kind, "keyed", None) for kind in kinds}
    key = keys.pop()
    if key is None:
        why = f"is {calls[0].operation}, which looks at all rows of a topic, in their order"
    elif keys:
        why = "has calls of several keys or times"
    elif odd := [name for name in key.by if not is_key(schema.field(name).type)]:
        why = f"has a key of {odd[0]!r}, which is {schema.field(odd[0]).type}"
    else:
        return KeyedTopic(f"{graph.name}.{step.name}.keyed", key.by, key.time)
    error = Refuse("flow.partitions", f"stage {step.name!r} {why}", "leave out --partitions")
    raise place(graph, error, "stages", graph.stages.index(step))


def _check(binding: Binding, step: Step) -> None:
    """A stage is told by the rows that it takes when to work."""
    if not binding.graph.takes(step):
        why = f"stage {step.name!r} takes no rows, so nothing on a topic tells it to work"
        error = Refuse("flow.stage", why, "give it an input, or run the workflow without --stream")
        raise place(binding.graph, error, "stages", binding.graph.stages.index(step))


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
