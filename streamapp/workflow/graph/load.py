"""A workflow's file as a Graph, every key checked; what is wrong says where and what was meant."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from streamapp.core.errors import Refuse
from streamapp.workflow.graph.marks import Marks, Where
from streamapp.workflow.graph.names import suggest
from streamapp.workflow.graph.spec import (
    Document,
    Graph,
    Input,
    Name,
    Output,
    Resources,
    RetryPolicy,
    Step,
    StepTest,
)
from streamapp.workflow.graph.yaml import read_yaml

_PARTS: Mapping[str, type[msgspec.Struct]] = {
    "retry": RetryPolicy,
    "resources": Resources,
    "tests": StepTest,
}
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`")
_PATH = re.compile(r" - at `\$(?P<path>.*)`$")
_STEP = re.compile(r"\.([A-Za-z_]\w*)|\[(\d+|\.\.\.)\]|key")
#: What people write who come from elsewhere.
_MEANT = {"needs": "depends_on", "with": "config", "if": "when", "timeout": "timeout_s"}


def load_graph(path: Path) -> Graph:
    """The workflow of a file; nothing that it names is looked up (see ``check``).

    Raises:
        Refuse: ``workflow.*``, the first of ``read_graph``'s problems.
    """
    graph, problems = read_graph(path)
    if graph is None or problems:
        raise problems[0]
    return graph


def read_graph(path: Path) -> tuple[Graph | None, list[Refuse]]:
    """The workflow of a file and all that is wrong with its keys and types.

    None where it cannot be read at all.  Parts that are wrong are left out of the graph.
    """
    try:
        content, marks = read_yaml(path)
    except Refuse as error:
        return None, [error]
    if not isinstance(content, dict):
        fix = "begin with name:, inputs:, stages: and outputs:"
        why = f"{marks.at()}: a workflow is a mapping of keys, not {_kind(content)}"
        return None, [Refuse("workflow.type", why, fix)]
    reading = _Reading(marks)
    graph = reading.graph(content, path)
    return graph, reading.problems


def graph_of(content: Mapping[str, Any], folder: Path) -> Graph:
    """The workflow of plain values, as a file's would be.

    Raises:
        Refuse: as ``load_graph``; places are paths of keys.
    """
    reading = _Reading(Marks())
    graph = reading.graph(dict(content), None, folder)
    if reading.problems:
        raise reading.problems[0]
    return graph


class _Reading:
    """One reading of a document, part by part, so that one mistake does not hide another."""

    def __init__(self, marks: Marks) -> None:
        self.problems: list[Refuse] = []
        self._marks = marks

    def graph(self, content: dict[str, Any], path: Path | None, folder: Path = Path()) -> Graph:
        inputs = self._named(content.pop("inputs", {}), "inputs", Input)
        outputs = self._named(content.pop("outputs", {}), "outputs", Output)
        stages = self._stages(content.pop("stages", []))
        if isinstance(content.get("version"), int | float):
            content["version"] = str(content["version"])
        top = self._convert(content, Document, ()) or Document(name="unnamed")
        fields = {name: getattr(top, name) for name in Document.__struct_fields__}
        fields |= {"inputs": inputs, "outputs": outputs, "stages": stages}
        folder = path.absolute().parent if path else folder
        return Graph(**fields, folder=folder, path=path, marks=self._marks)

    def _named(self, content: Any, key: str, kind: type[Any]) -> dict[str, Any]:
        if not isinstance(content, dict):
            self._wrong_kind(
                (key,),
                content,
                "a mapping of names",
                f"write {key}: {{NAME: {{...}}}}, or a NAME on each line",
            )
            return {}
        found = {}
        for name, value in content.items():
            try:
                msgspec.convert(name, Name)
            except msgspec.ValidationError:
                why = f"{name!r} is no name"
                self._add((key, name), why, "use letters, digits, - and _", is_key=True)
            made = self._convert(value, kind, (key, name))
            if made is not None:
                found[name] = made
        return found

    def _stages(self, content: Any) -> tuple[Step, ...]:
        if not isinstance(content, list):
            self._wrong_kind(("stages",), content, "a list", "begin each stage with '- name: ...'")
            return ()
        made = []
        for index, value in enumerate(content):
            if isinstance(value, dict):
                for key in ("depends_on", "inputs"):
                    if isinstance(value.get(key), str):
                        value[key] = [value[key]]
                if isinstance(value.get("retry"), int) and not isinstance(value["retry"], bool):
                    value["retry"] = {"max": value["retry"]}
            made.append(self._convert(value, Step, ("stages", index)))
        return tuple(step for step in made if step is not None)

    def _convert(self, value: Any, kind: type[Any], where: Where) -> Any:
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            self._explain(str(error), kind, where)
            return None

    def _explain(self, text: str, kind: type[msgspec.Struct], where: Where) -> None:
        """One message of msgspec as one of ours, at its place."""
        found = _PATH.search(text)
        text = text[: found.start()] if found else text
        inner = _steps(found["path"]) if found else ()
        part = next((_PARTS[str(key)] for key in reversed(inner) if key in _PARTS), kind)
        whole = (*where, *inner)
        if unknown := _UNKNOWN.match(text):
            name = unknown["name"]
            known = part.__struct_fields__
            meant = _MEANT.get(name)
            fix = f"did you mean {meant!r}?" if meant in known else suggest(name, known, "keys are")
            why = f"{_what(whole)} has no key {name!r}"
            self._add((*whole, name), why, fix, code="workflow.key", is_key=True)
        elif missing := _MISSING.match(text):
            why = f"{_what(whole)} has no {missing['name']!r}"
            self._add(whole, why, f"add {missing['name']}:", code="workflow.missing")
        else:
            why = text.replace("`", "").replace("object", "mapping").replace("array", "list")
            if "regex" in why:
                self._add(whole, "it is no name", "use letters, digits, - and _, 100 at most")
                return
            last = next((step for step in reversed(whole) if isinstance(step, str)), "")
            self._add(whole, f"{last}: {why}" if last else why, "see docs/workflows.md#keys")

    def _wrong_kind(self, where: Where, value: Any, wanted: str, fix: str) -> None:
        self._add(where, f"{where[-1]} is {_kind(value)}, not {wanted}", fix)

    def _add(
        self, where: Where, why: str, fix: str, *, code: str = "workflow.type", is_key: bool = False
    ) -> None:
        self.problems.append(Refuse(code, f"{self._marks.at(*where, key=is_key)}: {why}", fix))


def _steps(path: str) -> Where:
    """``.tests[0].rows[...]`` as ("tests", 0, "rows"); what is not said is left out."""
    steps: list[str | int] = []
    for name, index in _STEP.findall(path):
        if name:
            steps.append(name)
        elif index.isdigit():
            steps.append(int(index))
        else:
            break
    return tuple(steps)


def _what(where: Where) -> str:
    """The part of a file that a place is in, in words."""
    if not where:
        return "a workflow"
    words = {"stages": "a stage", "inputs": "an input", "outputs": "an output", "tests": "a test"}
    last = next(
        part for part in reversed(where) if isinstance(part, str) and part in {*words, *_PARTS}
    )
    return words.get(last, last)


def _kind(value: Any) -> str:
    kinds: dict[type, str] = {
        dict: "a mapping",
        list: "a list",
        str: "a text",
        bool: "true or false",
        type(None): "empty",
    }
    return kinds.get(type(value), "a number")
