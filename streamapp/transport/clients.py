"""What a log offers to code that is not a Faust agent: produce, read and administer, by URL."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol, TypeVar

from streamapp.core.errors import Retry
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
        """The next records at or after ``offset``; an empty Slice if none came in time.

        ``range.next`` is behind what the log does not keep any more.
        """
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

    async def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Delete the records of partitions that lie before these offsets, for good.

        Raises:
            Refuse: unknown topic or partition, an offset past the end, a topic that is compacted,
            or we may not.
            Retry: the log does not answer; some may have been deleted.
        """
        ...

    async def cluster(self) -> "Cluster":
        """Who keeps the log."""
        ...

    async def copies(self, topics: Collection[str]) -> Mapping[str, list["Copies"]]:
        """Who keeps each partition of these topics, in their order; unknown topics are left out."""
        ...


class Cluster(NamedTuple):
    """Who keeps a log: Kafka's brokers, or for an embedded log the one broker 0."""

    id: str
    brokers: tuple[int, ...]
    controller: int


class Copies(NamedTuple):
    """Who keeps one partition; ``leader`` is -1 while there is none."""

    partition: int
    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


class Held(NamedTuple):
    """The partitions that a member of a group holds, and the generation that gave them to it."""

    generation: int
    partitions: frozenset[tuple[str, int]]


#: Awaited before a member gives back what it holds; until it returns the member may commit.
OnRevoke = Callable[[Held], Awaitable[None]]


class Member(Protocol):
    """One member of a consumer group: what it holds, and commits for the group.

    It reads nothing; a Reader does that.
    """

    async def start(self) -> None: ...
    async def stop(self) -> None:
        """Leave the group, at once for the others."""
        ...

    async def subscribe(self, topics: Collection[str]) -> None:
        """Join the group for these topics, or ask it for others; with none, leave it."""
        ...

    async def held(self, wait_s_max: float = 0) -> Held | None:
        """What this member holds; None while the group has not distributed its partitions.

        Raises:
            Refuse: ``group.kind`` members of another kind are in the group, or we may not join.
            Retry: the log does not answer.
        """
        ...

    async def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Commit durably that the group is done with all below these offsets.

        One that is not subscribed commits only for a group without members.

        Raises:
            Refuse: ``group.busy`` not subscribed, and others are in the group.
            Retry: ``group.moved`` the partitions are being distributed anew, or no answer.
        """
        ...


class Members(Protocol):
    """Makes members of a log's consumer groups."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def member(self, group: str, on_revoke: OnRevoke) -> Member:
        """A member of the group, to be started."""
        ...


class _Client(Protocol):
    async def start(self) -> None: ...
    async def stop(self) -> None: ...


Started = TypeVar("Started", bound=_Client)


@asynccontextmanager
async def started(client: Started) -> AsyncIterator[Started]:
    """The client, started, and stopped at the end."""
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


def moved(group: str) -> Retry:
    """The error for a member that does not hold its partitions any more."""
    return Retry(
        "group.moved",
        f"group {group[:120]!r} distributes its partitions anew",
        "read again: what was not committed comes again",
    )
