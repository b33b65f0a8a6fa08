"""Events to the records that carry them, many at once, without a Python object for any value.

The C extension ``_stamp`` takes what is in plain form, as ``_scan`` does on the way back; a record
that it makes is the one that ``gateway.stamp`` makes.  It leaves every other event.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from streamapp.core.errors import Refuse
from streamapp.core.packed import PLACE, Packed, Part, pack_headers
from streamapp.core.slice import Headers

try:
    from streamapp.topics._stamp import stamp, stamp_one
except ImportError as error:
    raise Refuse(
        "topics.not_built",
        f"the C extension that writes records cannot be loaded: {error}",
        "build it with `pip install -e .` (needs gcc)",
    ) from None


#: One event: its value, source and id if it names none, and the time if it has none.  Its record's
#: id, type (None: it says none), key and headers; None when it is not in plain form.
make_record = stamp_one


class Made(NamedTuple):
    """Records of the events in plain form, in order, and of each its id and the type that it says.

    ``left`` are the places of the others.
    """

    records: Packed
    ids: list[str]
    types: list[str | None]
    left: list[int]


def make_records(
    values: Sequence[bytes],
    numbers: Sequence[int],
    *,
    source: str,
    id_prefix: str,
    received_us: int,
    event_bytes_max: int,
    more: Headers,
    is_enveloped: bool = False,
) -> Made:
    """Records of events that are in no topic yet.

    Args:
        values: of events.
        numbers: of each; behind ``id_prefix`` the id of an event without one.
        source: of events that name none.
        id_prefix: see ``numbers``.
        received_us: the time of events that name none, Unix microseconds.
        event_bytes_max: a larger value is left.
        more: headers behind those of the event.
        is_enveloped: the values are CloudEvents in the JSON event format, which say all of that.
    """
    data, places, ids, types, left = stamp(
        tuple(values),
        tuple(numbers),
        source.encode(),
        id_prefix.encode(),
        pack_headers(more),
        received_us,
        event_bytes_max,
        is_enveloped,
    )
    part = Part(memoryview(data), np.frombuffer(places, PLACE))
    return Made(Packed([part]), ids, types, left)
