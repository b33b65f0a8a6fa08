"""Single records among packed ones."""

from collections.abc import Mapping

import numpy as np

from streamapp.core.packed import PLACE, Part, pack_headers
from streamapp.transport.clients import Outgoing


def replaced(part: Part, records: Mapping[int, Outgoing]) -> Part:
    """The part with other records at some places; its bytes are copied once.

    Args:
        part: some records.
        records: by place; none of them names a partition or a time.
    """
    data = bytearray(part.data)
    places = part.places.copy()
    for place, (value, key, headers, *_) in records.items():
        row = np.zeros((), PLACE)
        for name, piece in (("key", key), ("value", value), ("headers", pack_headers(headers))):
            row[f"{name}_at"] = len(data)
            row[f"{name}_size"] = -1 if piece is None else len(piece)
            data += piece or b""
        places[place] = row
    return Part(memoryview(data).toreadonly(), places)
