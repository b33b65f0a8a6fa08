"""Functions of SQL that make a large value of a small one, with a limit in front of them."""

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
