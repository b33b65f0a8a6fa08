"""Dead letters sent to where they came from, and marked; or marked as purged.

A letter is sent first and marked then: whoever is killed in between sends it again, and its event
has the same id, so that it is stored once (``ids.once``).  The other order would lose it.
"""

from array import array
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from sys import maxsize
from typing import NamedTuple

import msgspec

from streamapp.agents.letters import Found, Letters, Progress, no_progress
from streamapp.core.errors import Refuse, Reject, StreamappError
from streamapp.core.event import Event
from streamapp.core.slice import Headers, Record
from streamapp.topics.dead import (
    LETTER,
    MARK,
    MARK_KEY,
    REPLAYS,
    RUNS_MAX,
    Letter,
    LetterAddress,
    Mark,
    Source,
    runs,
)
from streamapp.topics.wire import CE_PREFIX, TIMESTAMP_MS, decode_record
from streamapp.transport.clients import Outgoing, Producer

#: An event that failed so often again is not sent once more unless that is asked for.
REPLAYS_MAX = 3
_ID = f"{CE_PREFIX}id"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: A letter whose record had no time that a calendar has says 0, and some producers write -1.
_TIMES_MS = range(1, TIMESTAMP_MS.stop)


class Sent(NamedTuple):
    """A letter, and where it went."""

    letter: LetterAddress
    to: Source


class Failed(NamedTuple):
    """A letter that could not be sent, and why."""

    letter: LetterAddress
    error: StreamappError


class Chosen:
    """Letters to replay, latest of each partition first; it takes twelve bytes for each."""

    def __init__(self) -> None:
        self._parts: dict[int, tuple[array[int], array[int]]] = {}

    def see(self, found: Found) -> None:
        """One more letter, which lies before those of its partition that were seen."""
        partition, offset = found.letter.address
        offsets, times = self._parts.setdefault(partition, (array("q"), array("I")))
        offsets.append(offset)
        times.append(found.times)

    def __len__(self) -> int:
        """How many letters are chosen."""
        return sum(len(offsets) for offsets, _ in self._parts.values())

    def oldest_first(self) -> Iterator[tuple[int, Sequence[int], Sequence[int]]]:
        """Of each partition its number, the offsets, and how often each event was replayed."""
        for partition, (offsets, times) in sorted(self._parts.items()):
            yield partition, offsets[::-1], times[::-1]


def objection(
    found: Found, letters: Letters, *, replays_max: int = REPLAYS_MAX, force: bool = False
) -> Refuse | None:
    """Why a letter should not be replayed, if there is a reason.

    Args:
        found: the letter.
        letters: it is one of them.
        replays_max: how often one event may be replayed.
        force: whatever was replayed before.
    """
    letter = found.letter
    if letter.source is None:
        return Refuse(
            "dlq.foreign",
            f"letter {letter.address} does not say which topic it came from: someone else wrote it",
            "look at it with `streamapp dlq show`, and send it with a producer of your own",
        )
    topic = letter.source.topic
    if topic not in letters.specs or topic == letters.topic:
        return Refuse(
            "dlq.source",
            f"letter {letter.address} came from topic {topic!r}, which the log has not"
            if topic != letters.topic
            else f"letter {letter.address} came from {topic!r}, the topic of dead letters itself",
            "create that topic again, or purge the letter",
        )
    if found.replayed and not force:
        last = found.replayed[0]
        return Refuse(
            "dlq.replayed",
            f"letter {letter.address} was replayed already, to {last.to}",
            "replay what became of it if that failed too, or insist with --force",
        )
    if found.times >= replays_max and not force:
        return Refuse(
            "dlq.loop",
            f"the event of letter {letter.address} was replayed {found.times} times and failed "
            "again",
            f"mend its stage or the event first (`streamapp dlq edit {letter.address}`), then "
            "insist with --force",
        )
    return None


def identity(value: bytes | None, headers: Headers) -> tuple[str | None, str | None] | None:
    """The id and source that an event says it has; None when it cannot be told."""
    try:
        event = event_of(value, headers)
    except Reject:
        try:
            body = msgspec.json.decode(value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        said = body if isinstance(body, dict) else {}
        known = {name: said.get(name) for name in ("id", "source")}
        texts = {n: None if v is None else str(v) for n, v in known.items()}
        attributes = {name: v.decode(errors="replace") for name, v in headers if v}
        return (
            attributes.get(f"{CE_PREFIX}id") or texts["id"],
            attributes.get(f"{CE_PREFIX}source") or texts["source"],
        )
    return event.id, event.source


def event_of(value: bytes | None, headers: Headers) -> Event:
    """The event of a value, whatever its size.

    Raises:
        Reject: it is none.
    """
    return decode_record(Record(0, 0, None, value, headers), event_bytes_max=maxsize)


def record_of(letter: Letter, times: int, letters: Letters) -> Outgoing:
    """What to send to the letter's source: its key, value and headers, and how often that was done.

    ``times`` says how often before.

    An event without an id or a time had those of its first address; headers now say them, so that
    it stays the same event wherever it lies.  What cannot be read says no id either.  It goes to
    the partition that it came from, where its conversation is; if that is gone, by its key.

    Raises:
        Reject: it has no value.
    """
    source, address = letter.source, f"{letters.topic}:{letter.address}"
    if source is None or letter.value is None:
        raise Reject(
            "dlq.no_value",
            f"letter {letter.address} has no value: there is nothing to send",
            "give it one with `streamapp dlq edit`, or purge it",
        )
    headers = [(n, v) for n, v in letter.headers if n not in {REPLAYS, LETTER}]
    said = identity(letter.value, letter.headers)
    if not (said and said[0]) and not dict(headers).get(_ID):
        first = source if source.partition >= 0 else Source(letters.topic, *letter.address)
        headers.append((_ID, "-".join(map(str, first)).encode()))
    if letter.timestamp in _TIMES_MS and not _has_time(letter):
        headers.append((f"{CE_PREFIX}time", _written(letter.timestamp).encode()))
    headers += [(REPLAYS, b"%d" % (times + 1)), (LETTER, address.encode())]
    there = 0 <= source.partition < letters.partitions_of(source.topic)
    return Outgoing(letter.value, letter.key, headers, source.partition if there else None)


class Replays:
    """Sends and marks letters.

    Args:
        letters: of one topic.
        producer: for the same log, started.
    """

    def __init__(self, letters: Letters, producer: Producer) -> None:
        self._letters = letters
        self._producer = producer

    async def replay(self, chosen: Chosen) -> AsyncIterator[list[Sent | Failed]]:
        """Send letters, oldest first, and mark them, some at a time: whoever stops loses nothing.

        Raises:
            Retry: the log does not answer; the same call again does what is left.
        """
        for partition, offsets, times in chosen.oldest_first():
            before = iter(times)
            async for some in self._letters.read(partition, offsets):
                # One that is gone has a number of its own, too.
                numbered = [(at, letter, next(before)) for at, letter in some]
                gone = [Failed(at, _gone(at)) for at, letter, _ in numbered if letter is None]
                there = [(letter, n) for _, letter, n in numbered if letter is not None]
                yield [*gone, *await self._send(there)]

    async def resend(self, found: Found, letter: Letter, value: bytes) -> Sent:
        """Send a letter with another value, and mark it.

        Raises:
            Reject: it cannot be sent.
            Retry: the log does not answer.
        """
        mended = replace(letter, value=value, headers=_unguessed(letter, value))
        (outcome,) = await self._send([(mended, found.times)], edited=True)
        if isinstance(outcome, Failed):
            raise outcome.error
        return outcome

    async def purge(
        self, partition: int, offsets: Sequence[int], done: Progress = no_progress
    ) -> None:
        """Mark letters at rising offsets of a partition as purged.

        Raises:
            Retry: the log does not answer; the same call again does what is left.
        """
        found = runs(offsets)
        for at in range(0, len(found), RUNS_MAX):
            part = found[at : at + RUNS_MAX]
            await self._mark(partition, Mark("purged", part))
            done(sum(next_ - first for first, next_ in part))

    async def _send(
        self, some: Sequence[tuple[Letter, int]], *, edited: bool = False
    ) -> list[Sent | Failed]:
        """Send letters of one partition, each replayed so often, and mark what was sent."""
        outcomes: list[Sent | Failed] = []
        ready: dict[str, list[tuple[LetterAddress, Outgoing]]] = {}
        for letter, times in some:
            try:
                record = record_of(letter, times, self._letters)
            except Reject as error:
                outcomes.append(Failed(letter.address, error))
            else:
                topic = letter.source.topic if letter.source else ""
                ready.setdefault(topic, []).append((letter.address, record))
        for topic, records in ready.items():
            outcomes += await self._send_to(topic, records, edited)
        return outcomes

    async def _send_to(
        self, topic: str, records: Sequence[tuple[LetterAddress, Outgoing]], edited: bool
    ) -> list[Sent | Failed]:
        try:
            there = await self._producer.send(topic, [record for _, record in records])
        except Reject as error:  # one is too large, and nothing was appended
            if len(records) == 1:
                return [Failed(records[0][0], error)]
            outcomes: list[Sent | Failed] = []
            for one in records:
                outcomes += await self._send_to(topic, [one], edited)
            return outcomes
        mark = Mark(
            "replayed",
            runs([address.offset for address, _ in records]),
            topic,
            [(to.partition, to.offset) for to in there],
            edited,
        )
        await self._mark(records[0][0].partition, mark)
        return [Sent(at, Source(*to)) for (at, _), to in zip(records, there, strict=True)]

    async def _mark(self, partition: int, mark: Mark) -> None:
        record = Outgoing(
            msgspec.json.encode(mark), MARK_KEY, [(MARK, mark.did.encode())], partition
        )
        await self._producer.send(self._letters.topic, [record])


def _gone(address: LetterAddress) -> Refuse:
    return Refuse(
        "dlq.unknown",
        f"letter {address} is not there any more: retention or a purge took it",
        "table dead of the store may still have it",
    )


def _unguessed(letter: Letter, value: bytes) -> Headers:
    """The letter's headers, without the id that a replay gave to what could not be read.

    It goes when the mended value says its own.
    """
    without = tuple(header for header in letter.headers if header[0] != _ID)
    is_guessed = LETTER in dict(letter.headers) and identity(letter.value, without) is None
    return without if is_guessed and event_of(value, without).id else letter.headers


def _has_time(letter: Letter) -> bool:
    try:
        return event_of(letter.value, letter.headers).time_us is not None
    except Reject:
        return True  # as far as can be told


def _written(at_ms: int) -> str:
    """A time as CloudEvents write it (RFC 3339)."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds")
