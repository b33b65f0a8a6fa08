"""Many records to Arrow columns at once, without a Python object for any of their values.

The C extension ``_scan`` reads what is in plain form, which is what producers send, and writes the
columns of a Batch in Arrow's own memory.  A record that it takes has the row that ``core.event``
gives; every other one it leaves, for ``core.event`` alone says what an event is.
"""

from collections.abc import Sequence

import pyarrow as pa

from streamapp.core.batch import EVENT_SCHEMA
from streamapp.core.errors import Refuse
from streamapp.core.packed import Packed
from streamapp.core.slice import RecordLike

try:
    from streamapp.topics._scan import scan, scan_packed
except ImportError as error:
    raise Refuse(
        "topics.not_built",
        f"the C extension that reads events cannot be loaded: {error}",
        "build it with `pip install -e .` (needs gcc)",
    ) from None


class _Scanned:
    """A struct array of the extension, on offer to Arrow once.

    https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html
    """

    def __init__(self, array: object) -> None:
        self._array = array

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        return EVENT_SCHEMA.__arrow_c_schema__(), self._array


def decode_plain(
    records: Sequence[RecordLike], topic: str, partition: int, *, event_bytes_max: int
) -> tuple[pa.RecordBatch, list[RecordLike]]:
    """Rows of the records in plain form, and the records that are left; both in the order given.

    Args:
        records: of one partition.
        topic: of the records, as their source when they name none.
        partition: of the records.
        event_bytes_max: a record with a larger value is left.
    """
    names = topic.encode(), f"{topic}-{partition}-".encode()
    if isinstance(records, Packed):
        array, left = scan_packed(records.parts, *names, event_bytes_max)
    else:
        array, left = scan(
            tuple([record.value for record in records]),
            tuple([record.key for record in records]),
            tuple([record.headers for record in records]),
            tuple([record.offset for record in records]),
            tuple([record.timestamp for record in records]),
            *names,
            event_bytes_max,
        )
    return pa.record_batch(_Scanned(array)), [records[place] for place in left]
