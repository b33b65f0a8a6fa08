"""Macros in front of DuckDB's functions that make something huge, or take hours, of little.

DuckDB interrupts no function in the middle of a call, counts no memory of the texts and lists that
one makes, and calls a function for 2,048 rows at once.  So what one row may get is bounded.
"""

from collections.abc import Iterator

TEXT_BYTES_MAX = 1_000_000
LIST_ITEMS_MAX = 100_000
#: An edit distance takes as long as the lengths of two texts multiplied.
EDITS_MAX = 1_000_000

_EDIT_DISTANCES = ("damerau_levenshtein", "editdist3", "levenshtein")
_SERIES = ("generate_series", "range")
_RESIZED = ("array_resize", "list_resize")
_PADDED = ("lpad", "rpad")
#: Clients may call these as they are, but not by a schema's name, which would go past the macro.
BOUNDED = frozenset({*_EDIT_DISTANCES, *_SERIES, *_RESIZED, *_PADDED, "repeat"})


def macros() -> Iterator[str]:
    """The statements that make them; in the store a macro is found before DuckDB's function."""
    for name in _EDIT_DISTANCES:
        yield _macro(name, _edit_distance(name))
    for name in _SERIES:
        yield _macro(name, *_series(name))
    for name in _RESIZED:
        long = _refused(name, "a list of ' || n || ' items is too long: FROM range(n) makes rows")
        bytes_each = "greatest(strlen(v::VARCHAR), 1)"
        too_many = f"n > {LIST_ITEMS_MAX} OR n > {TEXT_BYTES_MAX} / {bytes_each}"
        yield _macro(
            name,
            f"(l, n) AS {_real(name)}(l, {_unless(f'n > {LIST_ITEMS_MAX}', long, 'n')})",
            f"(l, n, v) AS {_real(name)}(l, {_unless(too_many, long, 'n')}, v)",
        )
    for name in _PADDED:
        long = _refused(name, "a text of ' || n || ' characters is too long")
        width = _unless(f"n > {TEXT_BYTES_MAX}", long, "n", "NULL::INTEGER")
        yield _macro(name, f"(s, n, p) AS {_real(name)}(s, {width}, p)")
    long = _refused("repeat", "' || n || ' times ' || strlen(s::VARCHAR) || ' bytes are too many")
    # Of an empty text it would count all the same.
    times = _unless(
        f"n > {TEXT_BYTES_MAX} / greatest(strlen(s::VARCHAR), 1)", long, "n", "NULL::BIGINT"
    )
    yield _macro("repeat", f"(s, n) AS {_real('repeat')}(s, {times})")


def _macro(name: str, *bodies: str) -> str:
    return f"CREATE OR REPLACE MACRO {name}{', '.join(bodies)}"


def _real(name: str) -> str:
    return f"system.main.{name}"


def _refused(name: str, why: str) -> str:
    """No ``error()``: what calls it is volatile, and not for PARTITION BY, HAVING and TRY."""
    return f"CAST('{name}: {why}' AS BOOLEAN)"


def _unless(condition: str, refused: str, value: str, like: str = "NULL") -> str:
    """The value unless the condition holds, of its own type.

    A literal text has the type of what it is ``like``, as DuckDB has it bind to what takes that.
    """
    return f"if(if({condition}, {refused}, false), {like}, {value})"


def _edit_distance(name: str) -> str:
    slow = _refused(
        name,
        "texts of ' || strlen(a) || ' and ' || strlen(b) || ' bytes would take too long: "
        "compare left(text, 1000)",
    )
    text = _unless(f"strlen(a) * strlen(b) > {EDITS_MAX}", slow, "a")
    return f"(a, b) AS {_real(name)}({text}, b)"


def _series(name: str) -> Iterator[str]:
    """By number of arguments; three are numbers, or two times and an interval.

    Read as texts they are told apart: DuckDB 2.0.0 cannot bind an overload by type in a lateral
    join (``FROM events, unnest(range(...))``).
    """
    call = _real(name)
    long = _refused(
        name,
        f"a list of more than {LIST_ITEMS_MAX:,} items is too long: FROM {name}(...) makes rows",
    )
    items = f"({_amount('b')} - {_amount('a')}) / nullif({_amount('c', 'INTERVAL')}, 0)"
    length = "b::DOUBLE - a::DOUBLE"
    end = _unless(f"a > {LIST_ITEMS_MAX}", long, "a", "NULL::BIGINT")
    yield f"(a) AS {call}({end})"
    end = _unless(f"{length} > {LIST_ITEMS_MAX}", long, "b", "NULL::BIGINT")
    yield f"(a, b) AS {call}(a, {end})"
    yield f"(a, b, c) AS {call}({_unless(f'{items} > {LIST_ITEMS_MAX}', long, 'a', 'b')}, b, c)"


def _amount(argument: str, time: str = "TIMESTAMPTZ") -> str:
    """A number, or the seconds of a time."""
    return (
        f"coalesce(TRY_CAST({argument}::VARCHAR AS DOUBLE), "
        f"epoch(TRY_CAST({argument}::VARCHAR AS {time})))"
    )
