"""aiokafka's consumer, made to hand over what it received where it arrived."""

from types import MethodType
from typing import Any

from aiokafka.record.memory_records import MemoryRecords
from typing_extensions import Buffer

from streamapp.transport.kafka import frames
from streamapp.transport.kafka.arrived import has_batch
from streamapp.transport.kafka.rebound import rebound


class Batches:
    """What aiokafka asks of ``MemoryRecords``, of bytes that are parsed only when it asks for it.

    It does for topics that are not coalesced.
    """

    def __init__(self, data: Buffer | None) -> None:
        #: As they came; the last batch may be there in part.
        self.data = memoryview(data or b"")
        self._parsed: Any = None

    def size_in_bytes(self) -> int:
        return len(self.data)

    def has_next(self) -> bool:
        return has_batch(self.data) if self._parsed is None else self._parsed.has_next()

    def next_batch(self) -> Any:
        if self._parsed is None:
            self._parsed = MemoryRecords(bytes(self.data))
        return self._parsed.next_batch()


def connect_by_frames(client: Any) -> None:
    """The client's connections are :class:`frames.Connection` from now on."""
    _rebind(client, "_get_conn", create_conn=frames.connect)


def keep_batches(fetcher: Any) -> None:
    """``PartitionRecords._records`` of what it fetches are :class:`Batches` from now on."""
    _rebind(fetcher, "_proc_fetch_request", MemoryRecords=Batches)


def _rebind(instance: Any, name: str, **names: Any) -> None:
    """One method of one object."""
    setattr(instance, name, MethodType(rebound(getattr(type(instance), name), **names), instance))
