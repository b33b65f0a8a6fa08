"""Texts that are no values of a column's type: found by columns, not by rows."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamapp.workflow.data.csv_rows import FALSE, TRUE


def misfits(rows: pa.RecordBatch, schema: pa.Schema) -> dict[int, str]:
    """Which rows of texts have a value that Arrow's parser of CSV would not take, and why.

    Args:
        rows: every column a text.
        schema: the types that their values should have.
    """
    found: dict[int, str] = {}
    for texts, field in zip(rows.columns, schema, strict=True):
        kind = field.type
        if pa.types.is_string(kind) or pa.types.is_nested(kind):
            continue
        if not pa.types.is_boolean(kind) and not pa.types.is_timestamp(kind):
            texts = pc.utf8_trim(texts, " \t")  # noqa: PLW2901  # as the parser does with these
        for place in misplaced(texts, kind):
            found.setdefault(place, f"column {field.name!r} is {kind}, not '{texts[place]}'")
    return found


def misplaced(texts: pa.Array, kind: pa.DataType) -> list[int]:
    """The places of texts that are no values of that type."""
    encoded = texts.dictionary_encode()
    wrong = _wrong(encoded.dictionary, kind)
    if not wrong.any():
        return []
    is_wrong = np.append(wrong, False)[pc.fill_null(encoded.indices, len(wrong)).to_numpy()]
    found: list[int] = np.flatnonzero(is_wrong).tolist()
    return found


def _wrong(values: pa.Array, kind: pa.DataType) -> np.ndarray:
    """Whether each is no value of that type."""
    if pa.types.is_boolean(kind):
        return np.isin(values.to_numpy(zero_copy_only=False), [*TRUE, *FALSE], invert=True)
    found = np.zeros(len(values), bool)
    _mark(values, kind, found)
    return found


def _mark(values: pa.Array, kind: pa.DataType, wrong: np.ndarray) -> None:
    """Set ``wrong`` where a value cannot be cast: halves of them, until it is alone."""
    try:
        values.cast(kind)
    except pa.ArrowException:
        if len(values) == 1:
            wrong[0] = True
            return
        middle = len(values) // 2
        _mark(values[:middle], kind, wrong[:middle])
        _mark(values[middle:], kind, wrong[middle:])
