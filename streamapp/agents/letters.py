"""Dead letters to look through: found newest first, with what became of them.

The topic is read backwards, a window of offsets at a time: a mark lies behind the letters it speaks
of, so whatever there is to know of a letter is known when it is met.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from hashlib import sha256
from re import search
from typing import NamedTuple

from streamapp.core.errors import Refuse, Retry
from streamapp.core.ranges import RangeSet
from streamapp.topics.dead import Letter, LetterAddress, Mark, Source, read
from streamapp.transport.clients import Reader, TopicSpec

#: Offsets looked through at a time; of their records only what a list shows is kept.
WINDOW_OFFSETS = 4096
#: Whole letters that are read at a time.
READ_RECORDS = 100
READ_BYTES_MAX = 8 << 20
#: Called with the number of offsets looked through since the last call.
Progress = Callable[[int], None]
#: Of those that a refusal names.
_TOPICS_SHOWN = 5


def no_progress(_offsets: int) -> None:
    """Nobody watches."""


class Replayed(NamedTuple):
    """A replay of a letter: where it went, when (Unix ms), and whether it was edited before."""

    to: Source
    at_ms: int
    edited: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A letter and what became of it, latest replay first; ``size`` are its value's bytes.

    The letter of a list has neither value nor headers: those of all would not fit into memory.
    """

    letter: Letter
    size: int | None
    replayed: tuple[Replayed, ...]
    purged: bool

    @property
    def times(self) -> int:
        """How often the event was replayed: before it came here, and as this letter."""
        return self.letter.replays + len(self.replayed)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters are meant; times are when events failed, Unix ms, ``before`` without its end.

    ``code`` and ``stage`` may have wildcards (``event.*``).
    """

    stage: str | None = None
    code: str | None = None
    topic: str | None = None
    since_ms: int | None = None
    before_ms: int | None = None

    def takes(self, found: Found) -> bool:
        """True for a letter that is meant; one that was purged never is."""
        letter = found.letter
        at_ms = letter.failed_ms
        return (
            not found.purged
            and (self.stage is None or fnmatchcase(letter.stage, self.stage))
            and (self.code is None or fnmatchcase(letter.code, self.code))
            and (self.topic is None or (letter.source or ("",))[0] == self.topic)
            and (self.since_ms is None or at_ms >= self.since_ms)
            and (self.before_ms is None or at_ms < self.before_ms)
        )


class Letters:
    """The letters of one topic.

    Args:
        reader: of the log, started.
        topic: that holds them.
        specs: every topic of the log.

    Raises:
        Refuse: there is no such topic.
    """

    def __init__(self, reader: Reader, topic: str, specs: Mapping[str, TopicSpec]) -> None:
        if topic not in specs:
            there = sorted(name for name in specs if name.endswith(".dead"))[:_TOPICS_SHOWN]
            named = f" ({', '.join(there)})" if there else ""
            fix = f"name another with --dead-topic{named}, or create it by `streamapp topics apply`"
            raise Refuse("dlq.topic", f"the log has no topic {topic!r} of dead letters", fix)
        self.topic = topic
        self.specs = specs
        self._reader = reader

    async def bounds(self) -> dict[int, tuple[int, int]]:
        """First offset and the one past the last, of each partition."""
        partitions = range(self.specs[self.topic].partitions)
        return {p: await self._reader.bounds(self.topic, p) for p in partitions}

    async def newest(
        self, bounds: Mapping[int, tuple[int, int]], progress: Progress = no_progress
    ) -> AsyncIterator[Found]:
        """Every letter within bounds, newest first by when it failed, purged ones too.

        Within a partition the order is the log's.
        """
        ways = {p: self._backwards(p, *ends, progress) for p, ends in bounds.items()}
        heads = {p: await anext(way, None) for p, way in ways.items()}
        while there := {p: head for p, head in heads.items() if head is not None}:
            at = max(there, key=lambda p: (there[p].letter.failed_ms, p))
            yield there[at]
            heads[at] = await anext(ways[at], None)

    async def at(
        self, addresses: Collection[LetterAddress], progress: Progress = no_progress
    ) -> dict[LetterAddress, Found]:
        """What is at these addresses, without values.

        Raises:
            Refuse: nothing is there, or something that is no letter, or a letter that was purged.
        """
        bounds = await self.bounds()
        self.check_within(addresses, bounds)
        firsts: dict[int, int] = {}
        for partition, offset in addresses:
            firsts[partition] = min(firsts.get(partition, offset), offset)
        within = {p: (first, bounds[p][1]) for p, first in firsts.items()}
        wanted = set(addresses)
        found = {
            one.letter.address: one
            async for one in self.newest(within, progress)
            if one.letter.address in wanted
        }
        self.check_found(addresses, found, bounds)
        return found

    def check_within(
        self, addresses: Iterable[LetterAddress], bounds: Mapping[int, tuple[int, int]]
    ) -> None:
        """See that the topic reaches to each of these addresses.

        Raises:
            Refuse: it does not.
        """
        for address in addresses:
            begin, end = bounds.get(address.partition, (0, 0))
            if not begin <= address.offset < end:
                raise self._unknown(address, bounds)

    def check_found(
        self,
        addresses: Iterable[LetterAddress],
        found: Mapping[LetterAddress, Found],
        bounds: Mapping[int, tuple[int, int]],
    ) -> None:
        """See that a letter was found at each of these addresses.

        Raises:
            Refuse: there is none, or it was purged.
        """
        for address in addresses:
            if address not in found:
                raise self._unknown(address, bounds)
            if found[address].purged:
                raise Refuse(
                    "dlq.purged",
                    f"letter {address} was purged",
                    "`streamapp dlq ls` shows those that were not",
                )

    async def whole(self, address: LetterAddress) -> Letter:
        """The letter with all it has.

        Its value is read from its source where it was left there because it was too large.

        Raises:
            Refuse: there is none.
        """
        slice_ = await self._reader.read(
            self.topic, address.partition, address.offset, records_max=1
        )
        for record in slice_.records:
            if record.offset == address.offset:
                letter = read(address.partition, record)
                if isinstance(letter, Letter):
                    return await self.completed(letter)
        raise self._unknown(address, await self.bounds())

    async def completed(self, letter: Letter) -> Letter:
        """The letter, with the value that was left on the source log if it still is there."""
        digest = search(r"\(sha256 ([0-9a-f]{64})\) are left on the source log", letter.reason)
        source = letter.source
        if letter.value is not None or digest is None or source is None:
            return letter
        if not 0 <= source.partition < self.partitions_of(source.topic):
            return letter
        slice_ = await self._reader.read(*source, records_max=1)
        for record in slice_.records:
            value = record.value or b""
            if record.offset == source.offset and sha256(value).hexdigest() == digest[1]:
                return replace(letter, value=value)
        return letter

    async def read(
        self, partition: int, offsets: Sequence[int]
    ) -> AsyncIterator[list[tuple[LetterAddress, Letter | None]]]:
        """The letters at rising offsets of a partition, whole, some at a time.

        None stands for one that is not there any more: retention may be at work.
        """
        done = 0
        while done < len(offsets):
            at = offsets[done]
            slice_ = await self._reader.read(
                self.topic, partition, at, records_max=READ_RECORDS, bytes_max=READ_BYTES_MAX
            )
            records = {record.offset: record for record in slice_.records}
            some: list[tuple[LetterAddress, Letter | None]] = []
            while done < len(offsets) and offsets[done] < max(slice_.range.next, at + 1):
                address = LetterAddress(partition, offsets[done])
                done += 1
                found = records.get(address.offset)
                letter = None if found is None else read(partition, found)
                if isinstance(letter, Letter):
                    some.append((address, await self.completed(letter)))
                else:
                    some.append((address, None))
            yield some

    def partitions_of(self, topic: str) -> int:
        """How many a topic has; 0 when there is none."""
        return self.specs[topic].partitions if topic in self.specs else 0

    async def _backwards(
        self, partition: int, begin: int, end: int, progress: Progress
    ) -> AsyncIterator[Found]:
        purged = RangeSet()
        replayed: dict[int, tuple[Replayed, ...]] = {}
        while end > begin:
            first = max(begin, end - WINDOW_OFFSETS)
            for letter, size in reversed(
                [one async for one in self._window(partition, first, end)]
            ):
                if isinstance(letter, Letter):
                    offset = letter.address.offset
                    yield Found(letter, size, replayed.pop(offset, ()), offset in purged)
                    continue
                at_ms, mark = letter
                if mark.did == "purged":
                    for run in mark.letters:
                        purged.add(*run)
                for offset, to in mark.destinations():
                    one = Replayed(to, at_ms, mark.edited)
                    replayed[offset] = (*replayed.get(offset, ()), one)
            progress(end - first)
            end = first

    async def _window(
        self, partition: int, at: int, end: int
    ) -> AsyncIterator[tuple[Letter | tuple[int, Mark], int | None]]:
        """What a range of offsets holds, in order: letters without their bytes, and marks."""
        while at < end:
            slice_ = await self._reader.read(self.topic, partition, at, records_max=end - at)
            for record in slice_.records:
                if record.offset >= end:
                    return
                size = None if record.value is None else len(record.value)
                entry = read(partition, record)
                if isinstance(entry, Mark):
                    yield (record.timestamp, entry), None
                else:
                    yield replace(entry, key=None, value=None, headers=()), size
            if slice_.range.next <= at:  # not "nothing is there": what is erased must be known
                raise Retry(
                    "log.short",
                    f"{self.topic!r} [{partition}] has nothing from {at} on, and went to {end}",
                    "a partition may be changing its leader: run it again",
                )
            at = slice_.range.next

    def _unknown(self, address: LetterAddress, bounds: Mapping[int, tuple[int, int]]) -> Refuse:
        begin, end = bounds.get(address.partition, (0, 0))
        holds = f"{address.partition}:{begin} to {address.partition}:{end - 1}"
        if address.partition not in bounds:
            holds = f"partitions 0 to {len(bounds) - 1}"
        elif begin == end:
            holds = f"nothing in partition {address.partition}"
        return Refuse(
            "dlq.unknown",
            f"there is no dead letter at {address}: {self.topic} holds {holds}",
            "`streamapp dlq ls` shows the letters that there are",
        )
