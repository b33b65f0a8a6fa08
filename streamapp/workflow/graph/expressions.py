"""What a file may compute: conditions (``when``) and values put into a config (``${...}``).

A condition is written as in Python, of names, numbers, texts, lists, comparisons, ``and``, ``or``,
``not``, ``in`` and arithmetic; it calls nothing.  Names are::

    params.limit > 0                        # a parameter
    rows["nlp-analysis"] > 100              # how many rows a stage or input that it takes has
    language in ["de", "fr"]                # a variable of the stage's foreach

In a config ``${params.limit}`` and ``${language}`` stand for the same values, whole values keep
their type, and ``${env:NAME}`` and ``${file:PATH}`` for secrets, which only the process that works
gets to see.  ``$${`` is a ``${`` of its own.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from streamapp.core.errors import Refuse
from streamapp.workflow.graph.names import suggest

_TEMPLATE = re.compile(r"\$(\$\{)|\$\{\s*([^{}]*?)\s*\}")
_SECRET = ("env:", "file:")
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right, ast.NotIn: lambda left, right: left not in right,
}  # fmt: skip
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.Mod: operator.mod,
}  # fmt: skip
CHARS_MAX = 2_000
#: Of parts within each other; a chain like ``1 + 1 + 1`` nests, too.
NESTED_MAX = 100


def parse(text: str) -> ast.expr:
    """A condition, checked to be one.

    Raises:
        Refuse: ``workflow.when``: not written as one, or it would call something.
    """
    if len(text) > CHARS_MAX:
        raise _refuse(text[:40] + "...", f"it is longer than {CHARS_MAX} characters", "shorten it")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refuse(text, str(getattr(error, "msg", error)), "write it as in Python") from None
    for node, depth in _nested(tree):
        if not isinstance(node, _ALLOWED):
            kind = type(node).__name__
            raise _refuse(text, f"{kind} is none of what a condition may hold", _MAY)
        if depth > NESTED_MAX:
            why = f"more than {NESTED_MAX} parts are within each other"
            raise _refuse(text[:40] + "...", why, "shorten it")
    return tree


def _nested(tree: ast.AST) -> Iterator[tuple[ast.AST, int]]:
    """Every node, and how deep it is."""
    waiting = [(tree, 1)]
    while waiting:
        node, depth = waiting.pop()
        yield node, depth
        waiting.extend((child, depth + 1) for child in ast.iter_child_nodes(node))


_MAY = "compare params.NAME, rows.NAME and variables with and, or, not, in and arithmetic"
_ALLOWED = (
    ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Compare, ast.cmpop, ast.BinOp,
    *_ARITHMETIC, ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.List, ast.Tuple,
    ast.Load,
)  # fmt: skip


def names_in(tree: ast.expr) -> Iterator[tuple[str, ...]]:
    """What a condition looks at: ("params", "limit"), ("rows", "nlp-analysis"), ("language",)."""
    inner: set[int] = set()
    for node in ast.walk(tree):
        path = _path(node)
        if path and id(node) not in inner:
            yield path
            inner |= {id(child) for child in ast.walk(node)}


def holds(text: str, values: Mapping[str, Any]) -> bool:
    """Whether a condition holds.

    Args:
        text: the condition.
        values: ``params`` and ``rows`` as mappings, and variables.

    Raises:
        Refuse: ``workflow.when``: not a condition, a name that there is not, or values of types
            that do not go together.
    """
    try:
        return bool(_value(parse(text), values))
    except (TypeError, ZeroDivisionError, OverflowError) as error:
        raise _refuse(text, str(error), "compare values of one type") from None
    except KeyError as error:
        raise _refuse(text, f"there is no {error.args[0]!r}", _MAY) from None


def _value(  # noqa: PLR0911  # one for each kind of node
    node: ast.expr, values: Mapping[str, Any]
) -> Any:
    match node:
        case ast.BoolOp(op=ast.And()):
            return all(_value(part, values) for part in node.values)
        case ast.BoolOp():
            return any(_value(part, values) for part in node.values)
        case ast.UnaryOp(op=ast.Not()):
            return not _value(node.operand, values)
        case ast.UnaryOp():
            return -_value(node.operand, values)
        case ast.BinOp():
            left, right = _value(node.left, values), _value(node.right, values)
            _check_size(node.op, left, right)
            return _ARITHMETIC[type(node.op)](left, right)
        case ast.Compare():
            return _compared(node, values)
        case ast.List() | ast.Tuple():
            return [_value(part, values) for part in node.elts]
        case ast.Constant():
            return node.value
        case _:
            return look_up(_path(node), values)


def _check_size(op: ast.operator, left: Any, right: Any) -> None:
    """Numbers only: a text times a billion would take all memory."""
    if not (isinstance(left, int | float) and isinstance(right, int | float)):
        sign = type(op).__name__
        raise TypeError(f"{sign} of {type(left).__name__} and {type(right).__name__}")


def _compared(node: ast.Compare, values: Mapping[str, Any]) -> bool:
    left = _value(node.left, values)
    for op, part in zip(node.ops, node.comparators, strict=True):
        right = _value(part, values)
        if not _COMPARE[type(op)](left, right):
            return False
        left = right
    return True


def _path(node: ast.AST) -> tuple[str, ...]:
    """``rows["a"]`` and ``rows.a`` as ("rows", "a"); nothing for other nodes."""
    match node:
        case ast.Name(id=name):
            return (name,)
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            return name, attribute
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str(key))):
            return name, key
        case _:
            return ()


def look_up(path: tuple[str, ...], values: Mapping[str, Any]) -> Any:
    """The value of a dotted name; KeyError, with the name, when there is none."""
    found: Any = values
    for part in path:
        if not isinstance(found, Mapping) or part not in found:
            raise KeyError(".".join(path))
        found = found[part]
    if isinstance(found, Mapping) or not path:
        raise KeyError(".".join(path))
    return found


def fill(value: Any, values: Mapping[str, Any], secret: Callable[[str], str] | None = None) -> Any:
    """A config with its ``${...}`` replaced, in lists and mappings too.

    Args:
        value: of the config.
        values: ``params`` as a mapping, and variables.
        secret: gives what ``env:NAME`` and ``file:PATH`` hold; None: these stay as they are.

    Raises:
        Refuse: ``workflow.template``: a name that there is not.
    """
    if isinstance(value, Mapping):
        return {key: fill(inner, values, secret) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [fill(inner, values, secret) for inner in value]
    if not isinstance(value, str) or "$" not in value:
        return value
    whole = _TEMPLATE.fullmatch(value)
    if whole and whole[2] is not None:
        return _named(whole[2], whole[0], values, secret)
    return _TEMPLATE.sub(
        lambda found: found[1] or str(_named(found[2], found[0], values, secret)), value
    )


def _named(
    name: str, template: str, values: Mapping[str, Any], secret: Callable[[str], str] | None
) -> Any:
    if name.startswith(_SECRET):
        return secret(name) if secret else template
    try:
        return look_up(tuple(name.split(".")), values)
    except KeyError:
        params = values.get("params", {})
        offered = [f"params.{key}" for key in params] + [key for key in values if key != "params"]
        fix = suggest(name, offered, "there are")
        raise Refuse("workflow.template", f"{template}: there is no {name!r}", fix) from None


def _refuse(text: str, why: str, fix: str) -> Refuse:
    return Refuse("workflow.when", f"when {text!r}: {why}", fix)
