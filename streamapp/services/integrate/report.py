"""What a result says of itself: its rows' sources, conflicts, and every value's origin."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from streamapp.services.integrate.fields import SOURCE
from streamapp.services.integrate.pace import Pace
from streamapp.services.integrate.ranking import ENTITY, Rules
from streamapp.services.integrate.survive import Survivor, merge, named

#: Why records were set aside.
TORN = "records of one thing disagree in a field whose strategy is quarantine"
_ORIGIN = pa.struct([("source", pa.string()), ("row", pa.int64()), ("rule", pa.string())])


def report_fields(wanted: Sequence[str], names: Sequence[str]) -> list[pa.Field]:
    """The columns of the reports ``wanted`` on the columns ``names``."""
    types = {
        "sources": pa.list_(pa.string()),
        "conflicts": pa.list_(pa.string()),
        "lineage": pa.struct([(name, _ORIGIN) for name in names]),
    }
    return [pa.field(f"_{report}", types[report]) for report in wanted]


def merged_of(
    records: pl.DataFrame,
    survivors: Sequence[Survivor],
    rules: Rules,
    wanted: Sequence[str],
    pace: Pace,
) -> pl.DataFrame:
    """What ``merge`` makes of records, and the reports ``wanted``.

    ``_sources`` are the sources of the records that were merged; ``_conflicts`` the columns in
    which they disagree; ``_lineage`` gives per column the source and row (from 0) of its value, and
    the rule: ``agreed`` where all values are equal, else the strategy.
    """
    disputed = {"conflicts", "lineage"}.intersection(wanted) or _guarded(survivors)
    lineage = "lineage" in wanted
    merged = merge(records, survivors, rules, pace, conflicts=bool(disputed), lineage=lineage)
    made: list[pl.Expr | pl.Series] = []
    if "conflicts" in wanted:
        made.append(_conflicts(merged, survivors))
    if lineage:
        made.append(pl.struct(_origin(survivor, rules) for survivor in survivors).alias("_lineage"))
    merged = merged.with_columns(made)
    if "sources" in wanted:
        numbers = records.group_by(ENTITY).agg(pl.col(SOURCE).unique().sort()).sort(ENTITY)
        several = numbers[SOURCE].list.eval(named(pl.element(), rules.names))
        merged = merged.with_columns(several.alias("_sources"))
    return merged


def torn_apart(merged: pl.DataFrame, survivors: Sequence[Survivor]) -> pl.Series:
    """Which rows of ``merged_of`` disagree in a field whose strategy is ``quarantine``."""
    guarded = _guarded(survivors)
    if not guarded:
        return pl.repeat(value=False, n=len(merged), eager=True)
    return merged.select(pl.any_horizontal(f"conflict:{name}" for name in guarded)).to_series()


def _guarded(survivors: Sequence[Survivor]) -> list[str]:
    return [one.field.name for one in survivors if one.conflict.strategy == "quarantine"]


def _conflicts(merged: pl.DataFrame, survivors: Sequence[Survivor]) -> pl.Series:
    """The names of the columns that each thing's records disagree in."""
    names = [survivor.field.name for survivor in survivors]
    flags = np.column_stack([merged[f"conflict:{name}"].to_numpy() for name in names])
    counts = np.add.reduce(flags.T, dtype=np.int32)
    ends = np.append(np.int32(0), np.cumsum(counts, dtype=np.int32))
    said = pl.Series(names).gather(np.flatnonzero(flags) % len(names))
    return pl.Series(
        "_conflicts", pa.ListArray.from_arrays(pl.Series(ends).to_arrow(), said.to_arrow())
    )


def _origin(survivor: Survivor, rules: Rules) -> pl.Expr:
    name = survivor.field.name
    rule = (
        pl.when(pl.col(name).is_null())
        .then(None)
        .when(f"conflict:{name}")
        .then(pl.lit(survivor.conflict.strategy))
        .otherwise(pl.lit("agreed"))
    )
    return pl.struct(
        named(f"source:{name}", rules.names).alias("source"),
        pl.col(f"row:{name}").cast(pl.Int64).alias("row"),
        rule.alias("rule"),
    ).alias(name)
