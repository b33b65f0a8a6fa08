"""What a log offers to code that is not a Faust agent: produce, read and administer, by URL."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from streamapp.core.slice import Headers, Slice


class Outgoing(NamedTuple):
    """A record to append.

    ``partition`` None: by the key (Kafka's murmur2), or spread evenly without one.
    """

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int | None = None
    timestamp_ms: int | None = None


class Address(NamedTuple):
    """Where a record is."""

    topic: str
    partition: int
    offset: int


class TopicSpec(NamedTuple):
    """What a log must know to create a topic.

    ``retention_bytes`` is of each partition, as in Kafka.
    """

    name: str
    partitions: int
    record_bytes_max: int
    retention_ms: int | None = None
    retention_bytes: int | None = None
    compacted: bool = False


class Producer(Protocol):
    """Appends records; an address is returned only when the record is durable."""

    async def start(self) -> None: ...
    async def stop(self) -> None:
        """Flush what was accepted, then close."""
        ...

    async def send(self, topic: str, records: Sequence[Outgoing]) -> list[Address]:
        """Append all records (durable, in order per partition); their addresses in the order given.

        Raises:
            Refuse: unknown topic or partition.
            Reject: a record larger than the topic's ``record_bytes_max``; nothing of the call was
            appended.
            Retry: the log does not answer or is full; some records may have been appended.
        """
        ...


class Reader(Protocol):
    """Reads ranges of a partition without a group."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def read(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        records_max: int = 4096,
        bytes_max: int = 8 << 20,
        wait_ms_max: int = 0,
    ) -> Slice:
        """The next records at or after ``offset``; an empty Slice if none came in time."""
        ...

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset still kept, and one past the last."""
        ...


class Admin(Protocol):
    """Topics and groups of a log."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def topics(self) -> Mapping[str, TopicSpec]: ...

    async def create(self, spec: TopicSpec) -> bool:
        """Create a topic; False when it exists.

        Raises:
            Refuse: it exists with another number of partitions (these never change in place).
        """
        ...

    async def committed(self, group: str) -> Mapping[tuple[str, int], int]:
        """What the group committed, for lag tools only."""
        ...

    async def groups(self) -> list[str]:
        """Every consumer group that ever committed or has a member now, by name."""
        ...

    async def bytes_kept(self, topic: str) -> int | None:
        """What the topic takes on disk; None where the log does not tell."""
        ...
