"""Dead letters as they lie on their topic, and the marks that say what became of them.

A letter is the original key, value and headers with where and why in headers named as Kafka
Connect's are (KIP-298), so that existing dead-letter tools read ours and we read theirs.

A log is append-only, so what was replayed or purged is said by a mark: a record of the same
partition behind the letters it speaks of.  Neither retention nor a purge therefore takes a mark
before its letters.  A mark has the key and header ``streamapp.dlq`` and none of a letter's headers,
which every letter has: no event, whatever its producer wrote, becomes a mark when it dies.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

import msgspec

from streamapp.core.errors import Refuse
from streamapp.core.slice import Headers, RecordLike

#: Kafka Connect's header names begin like this.
CONNECT = "__connect.errors."
#: How often the event was replayed, in digits; it stays with the event when it fails again.
REPLAYS = "streamapp.replays"
#: The letter that a replayed record came from: ``topic:partition:offset``.
LETTER = "streamapp.letter"
MARK = "streamapp.dlq"
MARK_KEY = MARK.encode()
#: Runs of letters that one mark speaks of at most.
RUNS_MAX = 1000
_ADDRESS = re.compile(r"([0-9]{1,9}):([0-9]{1,18})")


class LetterAddress(NamedTuple):
    """Where a letter is on its topic; written ``partition:offset``."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> "LetterAddress":
        """The address that ``str`` wrote.

        Raises:
            Refuse: it is none.
        """
        found = _ADDRESS.fullmatch(text)
        if not found:
            raise Refuse(
                "dlq.address",
                f"{text[:80]!r} is no address of a dead letter",
                "write partition:offset, like 0:17; `streamapp dlq ls` shows them",
            )
        return cls(*map(int, found.groups()))


class Source(NamedTuple):
    """Where the event was when it failed; partition and offset -1: it never got to its topic."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}" if self.partition >= 0 else self.topic


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter.

    ``timestamp`` is the event's, ``failed_ms`` the letter's own, both Unix milliseconds;
    ``headers`` are those it came with, without ours; ``source`` is None for what someone else wrote
    there (``stage`` and ``code`` then say nothing either); ``replays`` counts how often the event
    was replayed before it came here.
    """

    address: LetterAddress
    timestamp: int
    failed_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    source: Source | None
    stage: str
    code: str
    reason: str
    replays: int

    @property
    def is_foreign(self) -> bool:
        """Nothing says where it came from."""
        return self.source is None


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of letters of this partition.

    ``letters`` are runs of offsets, half open and rising; ``sent`` says of each replayed letter, in
    that order, the partition and offset of ``topic`` that it went to.
    """

    did: Literal["replayed", "purged"]
    letters: list[tuple[int, int]]
    topic: str = ""
    sent: list[tuple[int, int]] = []
    edited: bool = False

    def destinations(self) -> Iterator[tuple[int, Source]]:
        """Each replayed letter's offset, and where it went."""
        offsets = chain.from_iterable(range(first, next_) for first, next_ in self.letters)
        for (partition, offset), letter in zip(self.sent, offsets, strict=False):
            yield letter, Source(self.topic, partition, offset)


_decode_mark = msgspec.json.Decoder(Mark).decode


def context_headers(headers: Headers, context: Mapping[str, str]) -> list[tuple[str, bytes]]:
    """The event's headers, and then ours."""
    return [
        *((name, value) for name, value in headers if not name.startswith(CONNECT)),
        *((CONNECT + name, value.encode()) for name, value in context.items()),
    ]


def read(partition: int, record: RecordLike) -> Letter | Mark:
    """What a record of a dead-letter topic is; whatever it is, it is one of both."""
    context = {
        name.removeprefix(CONNECT): (value or b"").decode(errors="replace")
        for name, value in record.headers
        if name.startswith(CONNECT)
    }
    if not context and (mark := _mark(record)) is not None:
        return mark
    source = _source(context)
    return Letter(
        LetterAddress(partition, record.offset),
        _timestamp(context.get("timestamp", ""), record.timestamp),
        record.timestamp,
        record.key,
        record.value,
        tuple((n, v) for n, v in record.headers if not n.startswith(CONNECT)),
        source,
        context.get("stage", ""),
        context.get("exception.class.name", ""),
        context.get("exception.message", ""),
        _count(record.headers),
    )


def runs(offsets: Sequence[int]) -> list[tuple[int, int]]:
    """Rising offsets as half-open runs, which hold no other offset."""
    found: list[tuple[int, int]] = []
    for offset in offsets:
        if found and found[-1][1] == offset:
            found[-1] = found[-1][0], offset + 1
        else:
            found.append((offset, offset + 1))
    return found


def _mark(record: RecordLike) -> Mark | None:
    if record.key != MARK_KEY or MARK not in dict(record.headers):
        return None
    try:
        mark = _decode_mark(record.value or b"")
    except msgspec.DecodeError:
        return None
    return mark if all(0 <= first < next_ for first, next_ in mark.letters) else None


def _source(context: Mapping[str, str]) -> Source | None:
    topic, partition, offset = (context.get(name, "") for name in ("topic", "partition", "offset"))
    nowhere = partition == offset == "-1"
    if not topic or not (nowhere or _ADDRESS.fullmatch(f"{partition}:{offset}")):
        return None
    return Source(topic, int(partition), int(offset))


def _timestamp(said: str, own_ms: int) -> int:
    """The event's; letters of others have their event's time as their own."""
    return int(said) if re.fullmatch(r"-?[0-9]{1,18}", said) else own_ms


def _count(headers: Headers) -> int:
    """What producers wrote into our header counts only when it is a number that can be."""
    said = [value for name, value in headers if name == REPLAYS]
    text = said[-1].decode(errors="replace") if said and said[-1] else ""
    return int(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0
