"""Functions of SQL that make a large value of a small one, with a limit in front of them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb

#: Values of a list, or characters of a text, that one call may make.  They are made for some
#: thousand rows at once, outside of DuckDB's own limit of memory.
VALUES_MAX = 10_000
#: What the call of one that would make more fails with.
TOO_LARGE = f"a call would make a list or a text of more than {VALUES_MAX:,} values"

#: A number, or a moment or an interval in seconds.
_AMOUNT = (
    "coalesce(try_cast({0}::VARCHAR AS DOUBLE), epoch(try_cast({0}::VARCHAR AS TIMESTAMP)),"
    " epoch(try_cast({0}::VARCHAR AS INTERVAL)))"
)
_FROM, _TO, _STEP = (_AMOUNT.format(name) for name in ("a_", "b_", "c_"))
#: By name: parameters, which of them says how much, and how much that is.
_LIMITED = {
    **dict.fromkeys(
        ("range", "generate_series"),
        (
            ("a_", "a_", "a_"),
            ("a_, b_", "b_", "b_ - a_"),
            ("a_, b_, c_", "b_", f"({_TO} - {_FROM}) / nullif({_STEP}, 0)"),
        ),
    ),
    "repeat": (("a_, b_", "b_", "b_::DOUBLE * greatest(length(a_::VARCHAR), 1)"),),
    **dict.fromkeys(("lpad", "rpad"), (("a_, b_, c_", "b_", "b_"),)),
    **dict.fromkeys(
        ("list_resize", "array_resize"), (("a_, b_", "b_", "b_"), ("a_, b_, c_", "b_", "b_"))
    ),
    "bitstring": (("a_, b_", "b_", "b_"),),
    "bar": (("a_, b_, c_", "c_", "0"), ("a_, b_, c_, d_", "d_", "d_")),
}


def limit(connection: duckdb.DuckDBPyConnection) -> None:
    """Put a macro before each function, which fails where it would make too much."""
    for name, forms in _LIMITED.items():
        bodies = []
        for parameters, bound, amount in forms:
            # The argument fails, not the call: constants are worked out before any condition.  It
            # fails by a cast, because TRY takes no error().
            fits = f"CASE WHEN {amount} > {VALUES_MAX} THEN '{TOO_LARGE}'::BOOLEAN ELSE TRUE END"
            given = f"CASE WHEN {fits} THEN {bound} END"
            arguments = [given if each == bound else each for each in parameters.split(", ")]
            bodies.append(f"({parameters}) AS system.main.{name}({', '.join(arguments)})")
        connection.execute(f"CREATE MACRO {name}{', '.join(bodies)}")


#: Where a format of ``format`` says of what width and precision a value is, and one of ``printf``.
_FORMATS = {"format": re.compile(r"\{[^{}:]*:([^}]*)"), "printf": re.compile(r"%([^a-zA-Z%]*)")}
#: What takes the width from another value.
_FROM_VALUE = re.compile(r"[{*]")


def too_much(tree: Any) -> tuple[str, str] | None:
    """What of an expression would go round the limits, and what to do instead.

    Args:
        tree: DuckDB's syntax tree of it.
    """
    for node, lambdas in _calls(tree):
        name = str(node["function_name"]).lower()
        if node.get("schema") or node.get("catalog"):
            return f"calls {name}() by a schema", f"write {name}(...)"
        if name in _LIMITED and lambdas > 1:
            why = f"calls {name}() in a lambda within a lambda"
            return why, "work out the inner list in a column of its own before"
        if name in _FORMATS and (told := _of_format(name, node)):
            return told
    return None


def _calls(tree: Any) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Calls of functions, and how many lambdas each is in."""
    waiting = [(tree, 0)]
    while waiting:
        node, lambdas = waiting.pop()
        if isinstance(node, dict):
            if "function_name" in node:
                yield node, lambdas
            lambdas += node.get("class") == "LAMBDA"
            waiting.extend((each, lambdas) for each in node.values())
        elif isinstance(node, list):
            waiting.extend((each, lambdas) for each in node)


def _of_format(name: str, node: Mapping[str, Any]) -> tuple[str, str] | None:
    first = node["arguments"][0]["expression"] if node["arguments"] else {}
    literal = first.get("literal", {})
    if first.get("class") != "CONSTANT" or literal.get("kind") != "STRING":
        return f"calls {name}() with a format that is no text", "write the format in quotes"
    specs = _FORMATS[name].findall(literal["text"].replace("{{", "").replace("%%", ""))
    if any(_FROM_VALUE.search(spec) for spec in specs):
        return f"calls {name}() with a width from another value", "write the width, or use lpad"
    widths = [int(digits) for spec in specs for digits in re.findall(r"[0-9]{1,20}", spec)]
    if sum(widths) > VALUES_MAX:
        why = f"calls {name}() with widths of more than {VALUES_MAX:,} characters"
        return why, "write smaller ones"
    return None
