"""Records to append that lie in a few buffers: no object for any of them until somebody asks."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from streamapp.core.packed import Packed, PackedRecord, Part
from streamapp.transport.clients import Outgoing


class Bundle(Sequence[Outgoing]):
    """As a list of :class:`Outgoing` that name neither partition nor time; immutable.

    Args:
        packed: the records; offsets and timestamps mean nothing, the log gives both.
    """

    __slots__ = ("packed",)

    def __init__(self, packed: Packed) -> None:
        self.packed = packed

    def __len__(self) -> int:
        return len(self.packed)

    @overload
    def __getitem__(self, index: int) -> Outgoing: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Outgoing]: ...
    def __getitem__(self, index: int | slice) -> Outgoing | Sequence[Outgoing]:
        if isinstance(index, int):
            return _outgoing(self.packed[index])
        start, stop, step = index.indices(len(self))
        if step == 1:
            return Bundle(self.packed.cut(start, stop))
        return [self[n] for n in range(start, stop, step)]

    def __iter__(self) -> Iterator[Outgoing]:
        return map(_outgoing, self.packed)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} records)"

    def sizes(self) -> npt.NDArray[np.int64]:
        """Of each record the bytes of key, value and headers, these as Kafka writes them."""
        sizes: npt.NDArray[np.int64] = self.packed.sizes() + self.packed.column("headers_size")
        return sizes

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Bundle":
        """The records for which ``chosen`` has True."""
        parts, first = [], 0
        for data, places in self.packed.parts:
            parts.append(Part(data, places[chosen[first : first + len(places)]]))
            first += len(places)
        return Bundle(Packed(parts))


def _outgoing(record: PackedRecord) -> Outgoing:
    return Outgoing(record.value, record.key, list(record.headers))
