"""What a writer is given, as the ring stores it: checked, contiguous, in the columns' own types."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Refuse
from streamapp.ring.layout import RECORD_DTYPE, Array, Column


def fit_records(path: Path, records: Array, n: int) -> Array:
    """``n`` records as one block.

    Raises:
        Refuse: they are something else (``ring.rows``).
    """
    if records.dtype != RECORD_DTYPE or records.shape != (n,):
        raise Refuse(
            "ring.rows",
            f"the ring {path} takes ({n},) records,"
            f" not {records.shape} of {_type_name(records.dtype)}",
            "make records with new_records(n) and one row of each column for each",
        )
    return np.ascontiguousarray(records)


def fit_columns(
    path: Path, columns: Sequence[Column], arrays: Mapping[str, npt.ArrayLike], n: int
) -> tuple[Array, ...]:
    """One array (n, dim) for each column of the ring, in its order.

    Numbers of another type are converted to the column's: to the nearest value it has, which for
    ``<f2`` keeps 11 bits.  Without rows, columns may be left out.

    Raises:
        Refuse: a column is missing or unknown, or does not fit (``ring.rows``).
    """
    names = [column.name for column in columns]
    if unknown := [name for name in arrays if name not in names]:
        raise Refuse(
            "ring.rows",
            f"the ring {path} has no column {unknown[0]!r}: it has {', '.join(names)}",
            "name the column in RingSpec(extra=...) or leave it out",
        )
    return tuple(_fit(path, column, arrays.get(column.name), n) for column in columns)


def _fit(path: Path, column: Column, given: npt.ArrayLike | None, n: int) -> Array:
    shape = n, column.dim
    if given is None:
        if n == 0:
            return np.empty(shape, column.dtype)
        raise _refusal(path, column, n, "nothing", f"give {column.name!r} for these rows")
    array = np.asarray(given)
    if array.dtype == column.dtype and array.shape == shape and array.flags.c_contiguous:
        return array
    if array.shape != shape:
        said = f"{array.shape} of {_type_name(array.dtype)}"
        raise _refusal(path, column, n, said, "give one row of it for each record")
    try:
        with np.errstate(over="raise"):
            array = array.astype(column.dtype, order="C", casting="same_kind", copy=False)
    except TypeError:
        raise _refusal(path, column, n, f"{_type_name(array.dtype)}", "give numbers") from None
    except FloatingPointError:
        fix = "scale the values, or make the column <f4"
        raise _refusal(path, column, n, "values beyond the type's range", fix) from None
    return array


def _refusal(path: Path, column: Column, n: int, given: str, fix: str) -> Refuse:
    return Refuse(
        "ring.rows",
        f"column {column.name!r} of the ring {path} takes ({n}, {column.dim}) values of"
        f" {column.dtype}, not {given}",
        fix,
    )


def _type_name(dtype: np.dtype[np.generic]) -> str:
    return f"{dtype.itemsize}-byte structs" if dtype.names else dtype.str
