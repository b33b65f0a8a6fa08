"""Windows as SQL, over rows that have a time and the time before which nothing counts any more.

``rows`` has, beside its own columns, three of ours: ``TIME``, the event's time; ``MARK``, the
greatest time of the rows before it less the grace, which is how far windows were closed when it
came; both in microseconds since 1970; and ``ROW``, its place.
"""

from collections.abc import Mapping, Sequence

from streamapp.plugin import BEFORE_ALL_US
from streamapp.services.pipeline.database import ROW, selected
from streamapp.services.pipeline.expression import quoted
from streamapp.services.pipeline.window.spec import Spans

TIME, MARK = " time", " mark"
START, END, KEY = " start", " end", " key "
#: Before and after all times.
FIRST_US, LAST_US = BEFORE_ALL_US, 1 << 62

_T, _M, _R, _S, _E = (quoted(name) for name in (TIME, MARK, ROW, START, END))
_SLOT = '" slot"'


def windows(
    spans: Spans,
    by: Sequence[str],
    columns: Mapping[str, str],
    after_us: int = FIRST_US,
    until_us: int = LAST_US,
    rows: str = "",
) -> str:
    """The windows whose end is after one time and not after another, in order of their end.

    The result has ``ROW``, the first of the window's rows, ``START``, ``END``, the columns, and
    those of the key after ``KEY``.

    Args:
        spans: of the window.
        by: columns of the key.
        columns: name to expression over a window's rows.
        after_us: windows that end there or before are left out.
        until_us: windows that end after it are left out.
        rows: the CTE ``rows``; a table of that name by default.
    """
    keys = [quoted(name) for name in by]
    bounds = f"{_E} > {after_us} AND {_E} <= {until_us}"
    first = {ROW: f"min({_R})"}
    if spans.kind == "session":
        whole = {START: f"min({_T})", END: f"max({_T}) + {spans.gap_us}"}
        named = selected({**first, **whole, **columns, **_keys(by)})
        grouped = ", ".join([*keys, '" run"'])
        body = f"SELECT {named} FROM placed GROUP BY {grouped} HAVING {bounds}"  # noqa: S608
    else:
        named = selected({**first, START: _S, END: _E, **columns, **_keys(by)})
        grouped = ", ".join([*keys, _S, _E])
        body = f"SELECT {named} FROM placed WHERE {bounds} GROUP BY {grouped}"  # noqa: S608
    shown = ", ".join(quoted(name) for name in (ROW, START, END, *columns, *_keys(by)))
    ordered = ", ".join([_E, _S, *(f"{name} NULLS LAST" for name in map(quoted, _keys(by)))])
    given = f"{rows}, " if rows else ""
    return f"WITH {given}{_placed(spans, keys)} SELECT {shown} FROM ({body}) ORDER BY {ordered}"  # noqa: S608


def of_relation(spans: Spans, relation: str, time: str, order_by: str) -> str:
    """The CTE ``rows`` of a table or view of DuckDB, in the order in which its rows came.

    Args:
        spans: of the window.
        relation: its name, as SQL writes it.
        time: its column of times.
        order_by: its column of the order, like ``source_offset``; no two rows have the same.
    """
    before = f"OVER (ORDER BY {quoted(order_by)} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
    at = f"epoch_us({quoted(time)})"
    return (
        f"rows AS (SELECT *, {at} AS {_T}, coalesce(max({at}) {before}, {FIRST_US}) "  # noqa: S608
        f"- {spans.grace_us} AS {_M}, row_number() OVER (ORDER BY {quoted(order_by)}) AS {_R} "
        f"FROM {relation} WHERE {quoted(time)} IS NOT NULL ORDER BY {_R})"
    )


def still_open(spans: Spans, by: Sequence[str], until_us: int) -> str:
    """The ``ROW`` of each row whose session ends after a time, in order."""
    keys = [quoted(name) for name in by]
    over = ", ".join([*keys, '" run"'])
    return (
        f"WITH {_placed(spans, keys)} SELECT {_R} FROM placed "  # noqa: S608
        f"QUALIFY max({_T}) OVER (PARTITION BY {over}) + {spans.gap_us} > {until_us} ORDER BY 1"
    )


def _placed(spans: Spans, keys: Sequence[str]) -> str:
    """The CTE ``placed``: each row as often as it is in windows.

    They are always in the same order, on which sums of floats depend.
    """
    if spans.kind == "session":
        return _runs(spans, keys)
    if spans.kind == "sliding":
        return _slides(spans, keys)
    every, size = spans.every_us, spans.size_us
    last = f"{_T} - (({_T} % {every}) + {every}) % {every}"
    starts = f"{last} - {every} * unnest(range({spans.overlaps}))"
    return (
        f"hops AS (SELECT *, {starts} AS {_S} FROM rows), "  # noqa: S608  # numbers and our names
        f"placed AS (SELECT *, {_S} + {size} AS {_E} FROM hops "
        f"WHERE {_S} + {size} > {_T} AND {_S} + {size} > {_M} ORDER BY {_R})"
    )


def _runs(spans: Spans, keys: Sequence[str]) -> str:
    part = f"PARTITION BY {', '.join(keys)} " if keys else ""
    over = f"({part}ORDER BY {_T}, {_R})"
    begins = f"coalesce({_T} - lag({_T}) OVER {over} >= {spans.gap_us}, TRUE)"
    rows = f"({part}ORDER BY {_T}, {_R} ROWS UNBOUNDED PRECEDING)"
    return (
        f'begun AS (SELECT *, {begins} AS " begins" FROM rows WHERE {_T} >= {_M}), '  # noqa: S608
        f'placed AS (SELECT *, count(*) FILTER (" begins") OVER {rows} AS " run" FROM begun '
        f"ORDER BY {_T}, {_R})"
    )


def _slides(spans: Spans, keys: Sequence[str]) -> str:
    """A window's end is a moment later than it is shown: rows at that moment are in it.

    A window's rows are in the slot of its end, or in the one before.  Slots are as long as windows:
    without them each row would be compared with all of its key.
    """
    size = spans.size_us
    slot = f"{_T} - (({_T} % {size}) + {size}) % {size}"
    mine = ", ".join([*keys, _T])
    same = " AND ".join(
        [f"kept.{key} IS NOT DISTINCT FROM points.{key}" for key in keys]
        + [f"kept.{_SLOT} = points.{_SLOT}"]
        + [f"kept.{_T} > points.{_T} - {size}", f"kept.{_T} <= points.{_T}"]
    )
    return (
        f"kept AS (SELECT *, {slot} AS {_SLOT} FROM rows WHERE {_T} >= {_M}), "  # noqa: S608
        f"ends AS (SELECT DISTINCT {mine}, {_SLOT} FROM kept), "
        f"points AS (SELECT {mine}, unnest([{_SLOT}, {_SLOT} - {size}]) AS {_SLOT} FROM ends), "
        f"placed AS (SELECT kept.*, points.{_T} + 1 - {size} AS {_S}, "
        f"points.{_T} + 1 AS {_E} FROM kept JOIN points ON {same} ORDER BY {_E}, {_R})"
    )


def _keys(by: Sequence[str]) -> dict[str, str]:
    """The key under names that no column of anybody's has, to order by."""
    return {KEY + name: f"any_value({quoted(name)})" for name in by}
