"""A workflow written in Python: the same graph as its file's.

::

    from streamapp import Workflow

    workflow = (
        Workflow("reviews")
        .input("documents", pattern="*.txt")
        .stage("analysis", "text.analyze", config={"analyze_sentiment": True})
        .output("scores", source="analysis", format="jsonl")
    )
    workflow.save("reviews.yaml")           # or workflow.to_yaml()
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from streamapp.core.errors import Refuse
from streamapp.workflow.graph.load import graph_of
from streamapp.workflow.graph.spec import Graph
from streamapp.workflow.graph.writing import minimal, yaml_of

if TYPE_CHECKING:
    from streamapp.workflow.run.engine import Services
    from streamapp.workflow.run.events import Observer
    from streamapp.workflow.run.report import Report


class Workflow:
    """Builds a ``Graph``; each call adds a part, checks it, and returns the workflow itself.

    Args:
        name: of the workflow.
        version: of the workflow.
        description: for people.
        params: what ``${params.NAME}`` in a config stands for.
        folder: where relative paths begin; None: the working directory.

    Raises:
        Refuse: ``workflow.*``, here and in the methods: a key that there is none of, a value of
            another type, or a name that stands twice.
    """

    def __init__(
        self,
        name: str,
        version: str = "1",
        *,
        description: str = "",
        params: Mapping[str, str | int | float | bool | None] | None = None,
        folder: str | Path | None = None,
    ) -> None:
        self._content: dict[str, Any] = {"name": name, "version": version}
        if description:
            self._content["description"] = description
        if params:
            self._content["params"] = dict(params)
        self._folder = Path(folder).absolute() if folder is not None else Path.cwd()
        self._graph = graph_of(_copied(self._content), self._folder)

    @classmethod
    def of(cls, graph: Graph) -> "Workflow":
        """A workflow that goes on from a graph, of a file for example."""
        made = cls(graph.name, folder=graph.folder)
        made._content = minimal(graph.declared())  # its own
        made._graph = graph
        return made

    def input(self, name: str, **keys: Any) -> Self:
        """Rows that come from outside.

        Args:
            name: of the input.
            keys: of ``Input``: ``pattern``, ``path``, ``format``, ``source``, ``type``, ``url``,
                ``table``, ``query``, ``options``.
        """
        return self._add("inputs", name, keys)

    def stage(
        self, name: str, operation: str, *, config: Mapping[str, Any] | None = None, **keys: Any
    ) -> Self:
        """One operation on what stages or inputs give.

        Args:
            name: of the stage.
            operation: ``service.operation``, like ``text.analyze``.
            config: of the operation.
            keys: others of ``Step``: ``depends_on``, ``inputs``, ``when``, ``foreach``, ``retry``
                and so on.
        """
        service, _, own = operation.partition(".")
        step = {"name": name, "service": service, "operation": own, **keys}
        if config:
            step["config"] = dict(config)
        if any(known["name"] == name for known in self._content.get("stages", ())):
            raise _twice("stage", name)
        return self._take({"stages": [*self._content.get("stages", ()), step]})

    def output(self, name: str, source: str, **keys: Any) -> Self:
        """Rows that are written.

        Args:
            name: of the output.
            source: a stage, or an input.
            keys: others of ``Output``: ``format``, ``path``, ``url``, ``table``, ``options``.
        """
        return self._add("outputs", name, {"source": source, **keys})

    def graph(self) -> Graph:
        """What was built; equal to that of ``to_yaml``."""
        return self._graph

    def to_yaml(self) -> str:
        """The file of this workflow."""
        return yaml_of(self._graph)

    def save(self, path: str | Path) -> None:
        """Write ``to_yaml`` to a file."""
        Path(path).write_text(self.to_yaml(), "utf-8")

    def run(
        self,
        *,
        folder_out: str | Path,
        services: "Services",
        params: Mapping[str, Any] | None = None,
        progress: "Observer | None" = None,
    ) -> "Report":
        """Run it as ``streamapp run`` runs its file; see ``engine.run``."""
        from streamapp.workflow.run.engine import run
        from streamapp.workflow.run.events import nobody

        return run(
            self._graph,
            folder_out=Path(folder_out),
            services=services,
            params=params,
            progress=progress or nobody,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Workflow) and self._graph == other._graph

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Workflow({self._graph.name!r}, {len(self._graph.stages)} stages)"

    def _add(self, key: str, name: str, part: dict[str, Any]) -> Self:
        known = self._content.get(key, {})
        if name in known:
            raise _twice(key.removesuffix("s"), name)
        return self._take({key: {**known, name: part}})

    def _take(self, more: dict[str, Any]) -> Self:
        """Keep what was added, if the whole is still a workflow."""
        content = self._content | more
        self._graph = graph_of(_copied(content), self._folder)
        self._content = content
        return self


def _copied(content: dict[str, Any]) -> dict[str, Any]:
    """Plain values of its own: what a caller changes later changes nothing here."""
    copied: dict[str, Any] = msgspec.to_builtins(content, builtin_types=(bytes,))
    return copied


def _twice(what: str, name: str) -> Refuse:
    return Refuse("workflow.twice", f"there are two {what}s {name!r}", "rename one of them")
