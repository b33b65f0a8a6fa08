"""YAML 1.2 as plain values with the place of each: nothing is executed, nothing is expanded far."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from streamapp.core.errors import Refuse
from streamapp.workflow.graph.marks import Marks, Place, Where

BYTES_MAX = 1 << 20
VALUES_MAX = 20_000
DEPTH_MAX = 50
_PLAIN = {
    f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "map", "seq")
}
_TIME = "tag:yaml.org,2002:timestamp"


def read_yaml(path: Path) -> tuple[Any, Marks]:
    """A file's content and the places in it.

    Raises:
        Refuse: not readable, larger than 1 MiB, not UTF-8, not YAML, a key stands twice, or a tag
            that is no plain value; the message starts with file:line:column where there is one.
    """
    return parse_yaml(_text(path), path)


def parse_yaml(text: str, path: Path) -> tuple[Any, Marks]:
    """As ``read_yaml``, of a text that is, or will be, that file's."""
    try:
        # Of its two loaders only the one in Python gives places.
        loader = YAML(typ="safe", pure=True)
        loader.Composer = _Composer
        node = loader.compose(text)
        if node is None:
            raise Refuse(
                "workflow.empty", f"{path}:1:1: the file is empty", "see docs/workflows.md"
            )
        reading = _Reading(path, loader)
        return reading.value(node, ()), Marks(path, reading.keys, reading.values)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if "end of stream" in str(error.problem):  # where it begins says more
            mark = error.context_mark or mark
        place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        what = " ".join(str(error.problem or error.context or "cannot be parsed").split())
        raise Refuse("workflow.yaml", f"{path}:{place}: {what}", _fix(text, mark)) from None
    except YAMLError as error:
        what = " ".join(str(error).split())
        raise Refuse("workflow.yaml", f"{path}:1:1: {what}", "write YAML 1.2") from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_MAX + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        fix = "check the path and its mode"
        raise Refuse("workflow.file", f"{path}: {error.strerror}", fix) from None
    except UnicodeDecodeError as error:
        why = f"{path}: byte {error.start} is not UTF-8"
        raise Refuse("workflow.file", why, "save it as UTF-8") from None
    if len(content) > BYTES_MAX:
        raise Refuse("workflow.file", f"{path}: it is larger than 1 MiB", "split it")
    return text


def _fix(text: str, mark: Any) -> str:
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "indent with spaces, not with tabs"
    return "check the indentation and the quotes of this line and of the one before"


class _Composer(Composer):
    """Stops at too deep a nesting before the scanner, which is slow there, has seen all of it."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            mark = self.parser.peek_event().start_mark
            raise ComposerError(None, None, f"it is nested deeper than {DEPTH_MAX}", mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Reading:
    """One walk over the composed nodes."""

    def __init__(self, path: Path, loader: YAML) -> None:
        self.keys: dict[Where, Place] = {}
        self.values: dict[Where, Place] = {}
        self._path, self._loader = path, loader
        self._left = VALUES_MAX

    def value(self, node: Node, where: Where) -> Any:
        """The plain value of a node; its places are noted on the way."""
        self._left -= 1
        if self._left < 0 or len(where) > DEPTH_MAX:  # aliases of aliases grow without end
            raise self._refuse(node, "it holds too many values, or too deep", "use fewer aliases")
        self.values[where] = _place(node)
        if node.tag not in _PLAIN and node.tag != _TIME:
            raise self._refuse(node, f"tag {str(node.tag)!r} is no plain value", "remove the tag")
        if isinstance(node, MappingNode):
            return self._mapping(node, where)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*where, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, ScalarNode)  # noqa: S101  # there are three kinds
        return self._scalar(node)

    def _mapping(self, node: MappingNode, where: Where) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            here = (*where, key)
            if key in found:
                line, column = self.keys[here]
                why = f"key {key!r} stands twice, first in line {line}, column {column}"
                raise self._refuse(key_node, why, "remove one of the two")
            self.keys[here] = _place(key_node)
            found[key] = self.value(value_node, here)
        return found

    def _key(self, node: Node) -> str:
        if not isinstance(node, ScalarNode):
            raise self._refuse(
                node, "a key is a list or a mapping", "write a name before the colon"
            )
        if node.tag == "tag:yaml.org,2002:merge":
            raise self._refuse(node, "merge keys (<<) are not of YAML 1.2", "repeat the keys")
        text: str = node.value
        return text

    def _scalar(self, node: ScalarNode) -> Any:
        if node.tag == _TIME:
            return node.value  # a date is what its column makes of it
        return self._loader.constructor.construct_object(node)

    def _refuse(self, node: Node, why: str, fix: str) -> Refuse:
        line, column = _place(node)
        return Refuse("workflow.yaml", f"{self._path}:{line}:{column}: {why}", fix)


def _place(node: Node) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1
