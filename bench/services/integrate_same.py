"""Whether two ways of the integration wrote the same: every row, every value, every conflict."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

#: Sums of floats differ in their last digits by the order of their terms.
_RELATIVE = 1e-12


class Different(Exception):
    """What differs."""


def check(ours: Path, theirs: Path) -> int:
    """How many rows the results have.

    Args:
        ours: a folder with ``customers.parquet``, with ``_conflicts``.
        theirs: another, with ``COLUMN_conflict`` for each column.

    Raises:
        Different: in a value of a row.
    """
    one, other = (pq.read_table(folder / "customers.parquet") for folder in (ours, theirs))
    if one.num_rows != other.num_rows:
        raise Different(f"{one.num_rows} things in {ours}, {other.num_rows} in {theirs}")
    names = [name for name in one.schema.names if not name.startswith("_")]
    flags = _flags(one.column("_conflicts"), names)
    for name in names:
        same = _same(one.column(name), other.column(name))
        _say(same, f"{name} of {ours} and {theirs}")
        _say(flags[name] == other.column(f"{name}_conflict").to_numpy(), f"conflicts of {name}")
    return int(one.num_rows)


def _same(one: pa.ChunkedArray, other: pa.ChunkedArray) -> np.ndarray:
    nulls = one.is_null().to_numpy()
    if pa.types.is_floating(one.type):
        values = np.isclose(one.to_numpy(), other.to_numpy(), rtol=_RELATIVE, atol=0)
    else:
        values = pc.equal(one, other.cast(one.type)).fill_null(False).to_numpy()
    both: np.ndarray = np.where(nulls, other.is_null().to_numpy(), values)
    return both


def _flags(lists: pa.ChunkedArray, names: list[str]) -> dict[str, np.ndarray]:
    """Which rows' lists have each name."""
    row = pc.list_parent_indices(lists).to_numpy()
    said = pc.list_flatten(lists)
    found = {}
    for name in names:
        found[name] = np.zeros(len(lists), np.bool_)
        found[name][row[pc.equal(said, name).to_numpy()]] = True
    return found


def _say(same: np.ndarray, what: str) -> None:
    if not same.all():
        raise Different(f"{what}: {int((~same).sum())} rows, such as {int((~same).argmax())}")
