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
    shape = layout.shapes[number]
    frame, bad = frame_of(shape, table, layout.common)
    frame = frame.with_columns(
        pl.lit(number, pl.UInt16).alias(SOURCE), pl.int_range(pl.len(), dtype=pl.UInt32).alias(ROW)
    )
    if bad.any():
        work.quarantine(table.filter(bad.to_arrow()), unfit(shape.name))
        frame = frame.filter(~bad)
    return frame


def unfit(name: str) -> str:
    """Why rows of a source were set aside."""
    return f"a value of {name!r} does not fit the type in config.mapping.{name}"


def all_records(
    tables: Mapping[str, pa.Table], layout: Layout, work: Work, pace: Pace
) -> pl.DataFrame:
    """Every source's records in common columns, with ``SOURCE`` and ``ROW``, in source order."""
    frames = []
    for number, shape in enumerate(layout.shapes):
        frames.append(fitting(number, layout, tables[shape.name], work))
        pace.check(tables[shape.name].num_rows)
    return pl.concat(frames, how="diagonal").select(*layout.common.names, SOURCE, ROW)
