"""The local log for one event loop: one thread writes, one reads, the loop waits for neither."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from streamapp.core.errors import Halt, Refuse
from streamapp.transport.clients import TopicSpec
from streamapp.transport.gather import Fetched
from streamapp.transport.local import groups, wake
from streamapp.transport.local.groups import Groups
from streamapp.transport.local.log import TopicLog, create_topic, path_of
from streamapp.transport.local.retention import delete_before
from streamapp.transport.local.rows import BundledRows, Rows
from streamapp.transport.local.wake import Ear
from streamapp.transport.local.writer import OpenTopics, Writer, unknown_topic
from streamapp.transport.routing import check_deletable, no_offset, no_partition

#: Bytes that may wait for the writer; more wait at the caller.
QUEUE_BYTES_MAX = 64 << 20


def folder_of(url: str) -> Path:
    """The folder that ``local:///path`` names.

    Raises:
        Refuse: another form of URL.
    """
    parts = urlsplit(url)
    path = unquote(parts.path)
    if (
        parts.scheme != "local"
        or parts.netloc
        or parts.query
        or parts.fragment
        or path in {"", "/"}
    ):
        raise Refuse(
            "broker.url", f"not the URL of a local log: {url!r}", "write local:///absolute/path"
        )
    return Path(path)


class Wanted(NamedTuple):
    """What to fetch of one partition, and how much at most."""

    topic: str
    partition: int
    offset: int
    records_max: int
    bytes_max: int


class Read(NamedTuple):
    """Pieces of the partitions that go on, and one past the last offset of all asked."""

    pieces: dict[tuple[str, int], Fetched]
    ends: dict[tuple[str, int], int]


class LocalLog:
    """A log folder: topics, groups and wake-ups.  Start it on the event loop that uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._specs: dict[str, TopicSpec] = {}
        self._ear = Ear(folder)
        self._writer: Writer | None = None
        self._reads: ThreadPoolExecutor | None = None
        self._open: OpenTopics | None = None
        self._queued_bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    async def start(self) -> None:
        """Make the folder if need be and start the threads.

        Raises:
            Refuse: the folder cannot be made or written.
        """
        try:
            for folder in (self.folder, self.folder / groups.FOLDER, self.folder / wake.FOLDER):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refuse(
                "log.folder",
                f"cannot use {self.folder} as a log: {error.strerror}",
                "name a folder that this user may write",
            ) from error
        self._ear.start()
        self._writer = Writer(self.folder)
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="log-reader")
        self._open = OpenTopics(self.folder)

    async def stop(self) -> None:
        """Finish accepted appends and end the threads; more than once does nothing."""
        writer, self._writer = self._writer, None
        reads, self._reads = self._reads, None
        if writer is None or reads is None:
            return
        self._ear.stop()
        await writer.stop()
        if self._open is not None:
            await asyncio.get_running_loop().run_in_executor(reads, self._open.close)
        reads.shutdown()

    def spec(self, topic: str) -> TopicSpec | None:
        """What the topic was created with; None when there is no such topic."""
        spec = self._specs.get(topic)
        if spec is None:
            try:
                log = TopicLog(self.folder, topic)
            except FileNotFoundError:
                return None
            spec = self._specs[topic] = log.spec
            log.close()
        return spec

    def require(self, topic: str, partition: int = 0) -> TopicSpec:
        """As :meth:`spec`, but an unknown topic or partition is refused."""
        spec = self.spec(topic)
        if spec is None:
            raise unknown_topic(topic, self.folder)
        if not 0 <= partition < spec.partitions:
            raise no_partition(spec, partition)
        return spec

    def topics(self) -> dict[str, TopicSpec]:
        """Every topic of the log."""
        names = sorted(path.name.removesuffix(".db") for path in self.folder.glob("*.db"))
        return {name: spec for name in names if (spec := self.spec(name)) is not None}

    async def create(self, spec: TopicSpec) -> bool:
        """Create a topic; False when it exists, however it was made."""
        path_of(self.folder, spec.name)
        made: bool = await self._writing.call(lambda: create_topic(self.folder, spec))
        return made

    async def append(self, topic: str, rows: Rows | BundledRows) -> list[int]:
        """Append rows in one durable transaction; see :meth:`TopicLog.append`."""
        size = rows.nbytes
        while self._queued_bytes >= QUEUE_BYTES_MAX:
            self._room.clear()
            await self._room.wait()
        self._queued_bytes += size
        try:
            return await self._writing.append(topic, rows)
        finally:
            self._queued_bytes -= size
            self._room.set()

    async def fetch(self, wanted: Sequence[Wanted]) -> Read:
        """Read several partitions in one visit to the reading thread."""
        return await self._read(_fetch, wanted)  # type: ignore[no-any-return]

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset still kept, and one past the last."""
        return await self._read(  # type: ignore[no-any-return]
            lambda topics: topics.get(topic).bounds(partition)
        )

    async def bytes_kept(self, topic: str) -> int:
        """What the topic's records and their tree take on disk."""
        self.require(topic)
        return await self._read(lambda topics: topics.get(topic).bytes_kept())  # type: ignore[no-any-return]

    async def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Delete the records of partitions before these offsets, so many at a time."""
        for partition, offset in before.items():
            spec = self.require(topic, partition)
            check_deletable(spec)
            if not 0 <= offset <= (await self.bounds(topic, partition))[1]:
                raise no_offset(spec, partition, offset)

        def step(partition: int, offset: int) -> bool:
            with closing(TopicLog(self.folder, topic)) as log:
                return delete_before(log, partition, offset)

        for partition, offset in before.items():
            while await self._writing.call(partial(step, partition, offset)):
                pass

    async def ends(self, topics: Collection[str]) -> dict[tuple[str, int], int]:
        """One past the last offset of every partition of the topics."""
        return await self._read(  # type: ignore[no-any-return]
            lambda open_: {
                (topic, partition): end
                for topic in topics
                for partition, end in open_.get(topic).ends().items()
            }
        )

    async def committed(self, group: str) -> dict[tuple[str, int], int]:
        """What a group committed."""
        return await self._of_groups({}, lambda file: file.committed(group))  # type: ignore[no-any-return]

    async def commit_alone(self, group: str, offsets: Mapping[tuple[str, int], int]) -> bool:
        """Commit for a group without members; False when it has one."""

        def commit() -> bool:
            with closing(Groups(self.folder)) as file:
                return file.commit_alone(group, offsets)

        done: bool = await self._writing.call(commit)
        return done

    async def groups(self) -> list[str]:
        """The groups that ever committed or have a member."""
        return await self._of_groups([], Groups.names)  # type: ignore[no-any-return]

    def listening(self, topics: Collection[str]) -> AbstractContextManager[asyncio.Event]:
        """An event that new records of one of the topics set; see :meth:`Ear.listening`."""
        return self._ear.listening(topics)

    @property
    def _writing(self) -> Writer:
        if self._writer is None:
            raise Halt("log.closed", f"the log {self.folder} is not open", "start the client first")
        return self._writer

    async def _read(self, work: Any, *arguments: Any) -> Any:
        if self._reads is None:
            raise Halt("log.closed", f"the log {self.folder} is not open", "start the client first")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reads, work, self._open, *arguments)

    async def _of_groups(self, none: Any, work: Callable[[Groups], Any]) -> Any:
        def ask() -> Any:
            if not Groups.exist(self.folder):
                return none
            with closing(Groups(self.folder)) as file:
                return work(file)

        return await self._writing.call(ask)


def _fetch(topics: OpenTopics, wanted: Sequence[Wanted]) -> Read:
    read = Read({}, {})
    for topic in dict.fromkeys(want.topic for want in wanted):
        log = topics.get(topic)
        ends = log.ends()
        for want in wanted:
            if want.topic != topic:
                continue
            key, end = (topic, want.partition), ends[want.partition]
            read.ends[key] = end
            if want.offset < end:
                records, size = log.read(
                    want.partition, want.offset, want.records_max, want.bytes_max
                )
                # Retention may have left nothing, then the log goes on at its end.
                next_ = records[-1].offset + 1 if records else end
                read.pieces[key] = Fetched(want.offset, records, next_, size)
    return read
