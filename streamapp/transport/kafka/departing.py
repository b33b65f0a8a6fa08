"""What goes to one partition: record batches, written in C, whatever form their records have."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streamapp.core.clock import now_ms
from streamapp.core.errors import Refuse
from streamapp.core.packed import Part
from streamapp.transport.bundle import Bundle
from streamapp.transport.clients import Outgoing

try:
    from streamapp.transport.kafka import _departing
except ImportError as error:
    raise Refuse(
        "transport.not_built",
        f"the C extension that writes record batches cannot be loaded: {error}",
        "build it with `pip install -e .` (needs gcc)",
    ) from None


class Identity(NamedTuple):
    """Who the broker believes a batch is from."""

    producer: int
    epoch: int


def encoded(
    pieces: Iterable[Sequence[Outgoing]], nbytes: int, identity: Identity, sequence: int
) -> bytes:
    """All records as one batch, https://kafka.apache.org/documentation/#recordbatch.

    Args:
        pieces: one record at least.
        nbytes: about what the records come to.
        identity: of the producer.
        sequence: the first record's place among all that this producer sent to the partition.
    """
    parts = tuple(chain.from_iterable(map(_parts, pieces)))
    return _departing.encode(parts, *identity, sequence, now_ms(), nbytes)


def partitions_of(bundle: Bundle, partitions: int, keyless: int) -> npt.NDArray[np.int32]:
    """The partition of every record, as ``routing.partition_of``; without a key ``keyless``."""
    found = [
        np.frombuffer(_departing.partitions(*part, partitions, keyless), np.int32)
        for part in bundle.packed.parts
    ]
    return np.concatenate([np.empty(0, np.int32), *found])


def _parts(records: Sequence[Outgoing]) -> Sequence[list[Outgoing] | Part]:
    if isinstance(records, list):
        return [records]
    return records.packed.parts if isinstance(records, Bundle) else [list(records)]
