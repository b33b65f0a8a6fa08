"""What a stateful stage remembers, as it is published beside the rows it came from."""

from typing import Any, NamedTuple


class StateEntry(NamedTuple):
    """One ``put`` of a stateful stage: after the event at ``source_offset``, ``key`` was ``value``.

    ``value`` is plain data that msgpack holds exactly (None, bool, int, float64, str, bytes, lists,
    dicts).
    """

    stage: str
    kind: str
    key: str
    source_offset: int
    value: Any
