"""How large Arrow columns are once every cell is written out.

A dictionary or a view says one long text for many rows, and a null or an empty struct has no bytes
at all: what a few bytes claim must be known before Python objects are made of it.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamapp.gateway.problem import ProblemError

#: What a cell costs at least.
_CELL_BYTES = 4


def footprint(batch: pa.RecordBatch) -> int:
    """Bytes that the batch's cells come to.

    Raises:
        ProblemError: 400 a type that is not read.
    """
    return sum(
        _size(column, name) for name, column in zip(batch.schema.names, batch.columns, strict=True)
    )


def is_text(kind: pa.DataType) -> bool:
    """True for strings in the plain layout."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def unfit(name: str, kind: pa.DataType, why: str) -> ProblemError:
    """400 for a column of a type that does not do."""
    return ProblemError(
        400,
        "event.field",
        f"column {name[:64]!r} is {str(kind)[:80]}: {why}",
        "cast it before you send it",
    )


def _size(array: pa.Array, name: str) -> int:
    kind, types = array.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _size(array.storage, name)
    cells = _CELL_BYTES * len(array)
    if types.is_dictionary(kind):
        return cells + _dictionary_size(array, name)
    if _is_bytes(kind):
        return cells + _sum(pc.binary_length(array))
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return cells + _views_size(array)
    if types.is_nested(kind):
        return cells + sum(_size(child, name) for child in _children(array, name))
    return cells + _width(kind) * len(array)


def _children(array: pa.Array, name: str) -> list[pa.Array]:
    """What a nested array's rows hold, no more and no less."""
    kind, types = array.type, pa.types
    if types.is_struct(kind):
        return list(array.flatten())
    if types.is_map(kind):
        return [array.keys, array.items]
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [array.flatten()]
    raise unfit(name, kind, "unions, run-end encoding and list views are not read")


def _width(kind: pa.DataType) -> int:
    return 0 if pa.types.is_null(kind) else int(kind.bit_width) // 8


def _dictionary_size(array: pa.DictionaryArray, name: str) -> int:
    kind = array.type.value_type
    if _is_bytes(kind):
        return _sum(pc.take(pc.binary_length(array.dictionary), array.indices))
    if pa.types.is_primitive(kind):
        return len(array) * _width(kind)
    raise unfit(name, array.type, "only texts, bytes and numbers may be in a dictionary")


def _views_size(array: pa.Array) -> int:
    """Of views: 16 bytes each, the first four of them its length (null ones have any)."""
    views = np.frombuffer(array.buffers()[1], np.int32).reshape(-1, 4)
    lengths = views[array.offset : array.offset + len(array), 0]
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    return int(lengths[valid].sum(dtype=np.int64))


def _sum(lengths: pa.Array) -> int:
    return int(pc.sum(lengths).as_py() or 0)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
