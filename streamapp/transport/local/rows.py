"""Records to rows of the local log's file, and rows to records, many at once in C."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Refuse
from streamapp.core.packed import PLACE, Packed, Part
from streamapp.core.slice import Headers
from streamapp.transport.bundle import Bundle

try:
    from streamapp.transport.local import _rows
except ImportError as error:
    raise Refuse(
        "transport.not_built",
        f"the C extension that reads and writes rows cannot be loaded: {error}",
        "build it with `pip install -e .` (needs gcc)",
    ) from None

#: ``position = partition * STRIDE + offset``: one clustered tree for all partitions.
STRIDE = 1 << 48

#: What a record costs in memory beside its value, until it is appended.
_RECORD_BYTES = 512

#: Of one read at most, beside its last record: one buffer holds them, of 2 GiB at most.
READ_BYTES_MAX = 1 << 30


class Row(NamedTuple):
    """A record ready to append: its partition is decided and its headers are packed."""

    partition: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: bytes | None


class Rows:
    """Records to append together, each of its partition; immutable.

    Args:
        rows: any number.
    """

    __slots__ = ("_rows", "partitions")

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = tuple(rows)
        #: Of each record.
        self.partitions = [row[0] for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """About what they take in memory."""
        return sum([len(row[3] or b"") for row in self._rows]) + _RECORD_BYTES * len(self)

    def placed(self, ends: dict[int, int]) -> tuple[list[int], list[Any]]:
        """Their offsets, and what is bound for them, row by row.

        Args:
            ends: the next offset of every partition; moved behind these records.

        Raises:
            KeyError: there is no such partition.
        """
        offsets, positions = [], []
        for partition in self.partitions:
            offset = ends[partition]
            ends[partition] = offset + 1
            offsets.append(offset)
            positions.append(partition * STRIDE + offset)
        return offsets, _rows.bindings_of_rows(self._rows, positions)


class BundledRows:
    """The same of a bundle, which has no object for any of its records.

    Args:
        bundle: one record at least.
        partitions: of each.
        timestamp: of all, Unix milliseconds.
    """

    __slots__ = ("_bundle", "_places", "_timestamp", "partitions")

    def __init__(self, bundle: Bundle, partitions: npt.NDArray[np.int32], timestamp: int) -> None:
        self._bundle = bundle
        self._places = partitions
        self._timestamp = timestamp
        self.partitions: list[int] = partitions.tolist()

    def __len__(self) -> int:
        return len(self.partitions)

    @property
    def nbytes(self) -> int:
        """As of :class:`Rows`."""
        return int(self._bundle.sizes().sum()) + _RECORD_BYTES * len(self)

    def placed(self, ends: dict[int, int]) -> tuple[list[int], list[Any]]:
        """As :meth:`Rows.placed`; the rows of each part by partition, as their tree has them."""
        offsets = np.empty(len(self), np.int64)
        for partition in np.unique(self._places).tolist():
            its = np.flatnonzero(self._places == partition)
            offsets[its] = ends[partition] + np.arange(len(its))
            ends[partition] += len(its)
        positions = self._places * np.int64(STRIDE) + offsets
        bound: list[Any] = []
        first = 0
        for data, places in self._bundle.packed.parts:
            its_positions = positions[first : first + len(places)]
            first += len(places)
            order = np.argsort(its_positions)
            placed = places[order]
            placed["offset"] = its_positions[order]
            placed["timestamp"] = self._timestamp
            bound += _rows.bindings_of_packed(data, placed)
        return offsets.tolist(), bound


def pack_headers(headers: Headers) -> bytes | None:
    """Headers as msgpack, order and duplicates kept; None when there are none."""
    return msgspec.msgpack.encode(list(headers)) if headers else None


def packed(rows: Iterable[Any], bytes_max: int) -> tuple[Packed, int]:
    """Records of rows, and the bytes of their keys and values.

    Args:
        rows: offset, timestamp, key, value and headers of each, in the order of offsets; no more
            are asked for than are packed.
        bytes_max: no more records once they reach it with their headers; one is there in any case.

    Raises:
        ValueError: headers that :func:`pack_headers` did not make.
        TypeError: what is no such row.
    """
    data, places, nbytes = _rows.pack(rows, min(bytes_max, READ_BYTES_MAX))
    return Packed([Part(memoryview(data), np.frombuffer(places, PLACE))]), nbytes
