"""A group's rows parted by a key: those of one key in one partition, whoever made them.

A keyed topic gets what is in another topic of the group already, its rows' own.  So whoever takes a
partition over sends the parts of its last record again; windows leave out what they have (see
``fronts``).  Every partition hears of every record, since event time is the least of all sources.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streamapp.agents.flow.record import Mark, encode
from streamapp.transport.clients import Outgoing
from streamapp.transport.routing import partition_of

_BYTES = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_binary_view,
)


@dataclass(frozen=True, slots=True)
class KeyedTopic:
    """A topic of a window's rows: by the columns of its key, at the time of a column."""

    name: str
    by: tuple[str, ...]
    time: str


def is_key(kind: pa.DataType) -> bool:
    """Whether rows can be parted by a column of this type."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    other = isinstance(kind, pa.BaseExtensionType) or pa.types.is_interval(kind)
    return not (other or pa.types.is_nested(kind))


def parts(mark: Mark, rows: pa.Table, source: int, keyed: KeyedTopic, count: int) -> list[Outgoing]:
    """A record for each partition of a keyed topic.

    Args:
        mark: of the record whose rows these are.
        rows: of that record.
        source: the partition that it is in.
        keyed: the topic.
        count: of its partitions.
    """
    mark = Mark(
        mark.first,
        mark.next,
        mark.run,
        mark.end,
        source=source,
        latest_us=latest_us(rows, keyed),
    )
    places = partitions_of(rows, keyed.by, count)
    nothing = encode(mark, rows.slice(0, 0))
    found = [nothing._replace(partition=partition) for partition in range(count)]
    for partition in np.unique(places).tolist():
        its = rows.filter(pa.array(places == partition))
        found[partition] = encode(mark, its, partition=partition)
    return found


def idle_parts(at: int, source: int, count: int) -> list[Outgoing]:
    """What tells each partition not to wait for rows of a source, which stands at ``at``."""
    mark = Mark(at, at, source=source, is_idle=True)
    nothing = encode(mark, pa.table({}))
    return [nothing._replace(partition=partition) for partition in range(count)]


def partitions_of(rows: pa.Table, by: Sequence[str], count: int) -> npt.NDArray[np.int64]:
    """The partition of each row, as Kafka's default partitioner gives it to the key's bytes.

    Those of one column are its value as text, in UTF-8; those of several are joined by a zero.
    """
    if not by or not rows.num_rows:
        return np.zeros(rows.num_rows, np.int64)
    columns = [_bytes_of(rows.column(name)) for name in by]
    keys = pc.binary_join_element_wise(
        *columns, pa.scalar(b"\0", pa.large_binary()), null_handling="replace", null_replacement=b""
    )
    encoded = pc.dictionary_encode(keys).combine_chunks()
    places = [partition_of(key, count) for key in encoded.dictionary.to_pylist()]
    found: npt.NDArray[np.int64] = np.array(places, np.int64)[encoded.indices.to_numpy()]
    return found


def _bytes_of(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as bytes; values that SQL takes for one are the same bytes."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        column = pc.add(column.cast(pa.float64()), 0.0)  # of two zeros one
    if pa.types.is_temporal(column.type) and not pa.types.is_date(column.type):
        column = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
    if not any(is_bytes(column.type) for is_bytes in _BYTES):
        column = column.cast(pa.large_string())
    return column.cast(pa.large_binary())


def latest_us(rows: pa.Table, keyed: KeyedTopic) -> int | None:
    """The greatest time of rows; None where none has one."""
    latest = pc.max(rows.column(keyed.time))
    found: int | None = latest.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).as_py()
    return found
