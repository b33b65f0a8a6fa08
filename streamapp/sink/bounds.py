"""Macros in front of DuckDB's functions that make something huge, or take hours, of little.

DuckDB interrupts no function in the middle of a call, counts no memory of the texts and lists that
one makes, and calls a function for 2,048 rows at once.  So what one row may get is bounded.
"""

from collections.abc import Iterator

TEXT_BYTES_MAX = 1_000_000
LIST_ITEMS_MAX = 100_000
#: An edit distance takes as long as the lengths of two texts multiplied.
EDITS_MAX = 1_000_000
#: What replaces can come as often as the text is long.
REPLACEMENT_BYTES_MAX = 10_000
#: ``format`` and ``printf`` take any number of values; a macro takes those that it names.
_VALUES_MAX = 20

_EDIT_DISTANCES = ("damerau_levenshtein", "editdist3", "levenshtein")
_SERIES = ("generate_series", "range")
_RESIZED = ("array_resize", "list_resize")
_PADDED = ("lpad", "rpad")
#: Which width is too large, or comes from a value, once the escaped signs are gone.
_WIDTHS = {
    "format": ("{{", r"\{[^{}]*:[^{}]*([0-9]{4,}|\{)"),
    "printf": ("%%", r"%[^a-zA-Z%]*([0-9]{4,}|\*)"),
}
#: Clients may call these as they are, but not by a schema's name, which would go past the macro.
BOUNDED = frozenset(
    {*_EDIT_DISTANCES, *_SERIES, *_RESIZED, *_PADDED, *_WIDTHS}
    | {"bitstring", "regexp_replace", "repeat", "replace"}
)


def macros() -> Iterator[str]:
    """The statements that make them; in the store a macro is found before DuckDB's function."""
    for name in _EDIT_DISTANCES:
        yield _macro(name, _edit_distance(name))
    for name in _SERIES:
        yield _macro(name, *_series(name))
    for name in _RESIZED:
        long = _refused(name, "a list of ' || n || ' items is too long: FROM range(n) makes rows")
        bytes_each = "greatest(strlen(v::VARCHAR), 1)"
        yield _macro(
            name,
            f"(l, n) AS {_real(name)}(l, if(n > {LIST_ITEMS_MAX}, {long}, n))",
            f"(l, n, v) AS {_real(name)}(l, if(n > {LIST_ITEMS_MAX} OR "
            f"n > {TEXT_BYTES_MAX} / {bytes_each}, {long}, n), v)",
        )
    for name in _PADDED:
        long = _refused(name, "a text of ' || n || ' characters is too long")
        yield _macro(name, f"(s, n, p) AS {_real(name)}(s, if(n > {TEXT_BYTES_MAX}, {long}, n), p)")
    for name in _WIDTHS:
        yield _macro(name, *_formats(name))
    long = _refused("bitstring", "' || n || ' bits are too many")
    yield _macro(
        "bitstring", f"(b, n) AS {_real('bitstring')}(b, if(n > {TEXT_BYTES_MAX}, {long}, n))"
    )
    long = _refused("repeat", "' || n || ' times ' || strlen(s::VARCHAR) || ' bytes are too many")
    yield _macro(
        "repeat",  # of an empty text it would count all the same
        f"(s, n) AS {_real('repeat')}(s, if(n > {TEXT_BYTES_MAX} / "
        f"greatest(strlen(s::VARCHAR), 1), {long}, n))",
    )
    yield _macro("replace", _replaced("replace", "s, f, t"))
    yield _macro(
        "regexp_replace",
        _replaced("regexp_replace", "s, f, t"),
        _replaced("regexp_replace", "s, f, t, o"),
    )


def _macro(name: str, *bodies: str) -> str:
    return f"CREATE OR REPLACE MACRO {name}{', '.join(bodies)}"


def _real(name: str) -> str:
    return f"system.main.{name}"


def _refused(name: str, why: str) -> str:
    return f"error('{name}: {why}')"


def _edit_distance(name: str) -> str:
    slow = _refused(
        name,
        "texts of ' || strlen(a) || ' and ' || strlen(b) || ' bytes would take too long: "
        "compare left(text, 1000)",
    )
    return f"(a, b) AS {_real(name)}(if(strlen(a) * strlen(b) > {EDITS_MAX}, {slow}, a), b)"


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
    yield f"(a) AS {call}(if(a > {LIST_ITEMS_MAX}, {long}, a))"
    yield f"(a, b) AS {call}(a, if(b::DOUBLE - a::DOUBLE > {LIST_ITEMS_MAX}, {long}, b))"
    yield f"(a, b, c) AS {call}(a, b, if({items} > {LIST_ITEMS_MAX}, {long}, c))"


def _amount(argument: str, time: str = "TIMESTAMPTZ") -> str:
    """A number, or the seconds of a time."""
    return (
        f"coalesce(TRY_CAST({argument}::VARCHAR AS DOUBLE), "
        f"epoch(TRY_CAST({argument}::VARCHAR AS {time})))"
    )


def _formats(name: str) -> Iterator[str]:
    """By number of values."""
    escaped, pattern = _WIDTHS[name]
    wide = _refused(name, "write widths of three digits at most into the format")
    found = f"regexp_matches({_real('replace')}(f, '{escaped}', ''), '{pattern}')"
    for count in range(_VALUES_MAX + 1):
        values = "".join(f", v{number}" for number in range(count))
        yield f"(f{values}) AS {_real(name)}(if({found}, {wide}, f){values})"


def _replaced(name: str, arguments: str) -> str:
    """The first argument is named once: calls in calls are usual, and would double each time."""
    long = _refused(name, "' || strlen(t) || ' bytes in place of each are too long")
    checked = f"if(strlen(t) > {REPLACEMENT_BYTES_MAX}, {long}, t)"
    values = arguments.replace(" t", f" {checked}")
    return f"({arguments}) AS {_real(name)}({values})"
