"""Sources' rows as records: common columns, and which row of which source each one is."""

from collections.abc import Mapping

import polars as pl
import pyarrow as pa

from streamapp.plugin import Work
from streamapp.services.integrate.fields import ROW, SOURCE, frame_of
from streamapp.services.integrate.layout import Layout
from streamapp.services.integrate.pace import Pace


def fitting(number: int, layout: Layout, table: pa.Table, work: Work) -> pl.DataFrame:
    """A source's records; rows with a value that does not fit its type are set aside.

    Args:
        number: of the source.
        layout: of all sources.
        table: the source's rows.
        work: where rows are set aside.
    """
    return _kept(layout.names[number], table, work, _framed(number, layout, table))


def _framed(number: int, layout: Layout, table: pa.Table) -> tuple[pl.DataFrame, pl.Series]:
    """A source's rows as records, and which of them do not fit."""
    frame, bad = frame_of(layout.shapes[number], table, layout.common)
    return frame.with_columns(
        pl.lit(number, pl.UInt16).alias(SOURCE), pl.int_range(pl.len(), dtype=pl.UInt32).alias(ROW)
    ), bad


def _kept(
    name: str, table: pa.Table, work: Work, framed: tuple[pl.DataFrame, pl.Series]
) -> pl.DataFrame:
    frame, bad = framed
    if bad.any():
        work.quarantine(table.filter(bad.to_arrow()), unfit(name))
        frame = frame.filter(~bad)
    return frame


def unfit(name: str) -> str:
    """Why rows of a source were set aside."""
    return f"a value of {name!r} does not fit the type in config.mapping.{name}"


def all_records(
    tables: Mapping[str, pa.Table], layout: Layout, work: Work, pace: Pace
) -> pl.DataFrame:
    """Every source's records in common columns, with ``SOURCE`` and ``ROW``, in source order."""
    ordered = [tables[name] for name in layout.names]
    numbers = range(len(ordered))
    framed = pace.map(lambda number: _framed(number, layout, ordered[number]), numbers)
    frames = []
    for name, table, records in zip(layout.names, ordered, framed, strict=True):
        frames.append(_kept(name, table, work, records))
        pace.check(table.num_rows)
    # in one piece, or each step that takes records from all over it would make one
    return pl.concat(frames, how="diagonal", rechunk=True).select(*layout.common.names, SOURCE, ROW)
