"""What could not be delivered: the message as it was posted, on a topic of its own.

A letter has the headers of the others' (``topics.dead``), but names no source: sent to where its
rows came from they would be enriched again, and dropped as repeats.  It is replayed by posting it.
"""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from streamapp.agents.exports.body import Message
from streamapp.agents.exports.post import Answer, Poster
from streamapp.core.errors import Reject
from streamapp.core.exports import Export
from streamapp.topics.catalogue import UNDELIVERED as TOPIC
from streamapp.topics.dead import MARK, MARK_KEY, Letter, Mark, context_headers, read, runs
from streamapp.transport.clients import Outgoing, Producer, Reader

_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True)
class Undelivered:
    """One letter that was not replayed, without its body."""

    offset: int
    at_ms: int
    export: str
    id: str
    code: str
    reason: str


async def bury(producer: Producer, name: str, message: Message, code: str, reason: str) -> None:
    """Write a letter; one too large for the topic says what is left out.

    Raises:
        Retry: the log does not answer.
    """
    try:
        await producer.send(TOPIC, [_letter(name, message, message.body, code, reason)])
    except Reject:
        size, digest = len(message.body), sha256(message.body).hexdigest()
        left = f"{reason[:500]}; its {size:,} bytes (sha256 {digest}) are left out"
        await producer.send(TOPIC, [_letter(name, message, None, code, left)])


async def undelivered(reader: Reader, name: str | None = None) -> list[Undelivered]:
    """The letters of one export, or of all, that nobody replayed; the oldest first."""
    found: dict[int, Undelivered] = {}
    async for letter in _entries(reader):
        if isinstance(letter, Mark):
            for first, next_ in letter.letters:
                for offset in [at for at in found if first <= at < next_]:
                    del found[offset]
            continue
        headers = {key: (value or b"").decode(errors="replace") for key, value in letter.headers}
        export = (letter.key or b"").decode(errors="replace")
        if name is None or export == name:
            found[letter.address.offset] = Undelivered(
                letter.address.offset,
                letter.failed_ms,
                export,
                headers.get("webhook-id", ""),
                letter.code,
                letter.reason,
            )
    return list(found.values())


async def replay(
    one: Undelivered, export: Export, reader: Reader, producer: Producer, poster: Poster
) -> Answer:
    """Post a letter once more, under its own id, and mark it when it was taken."""
    slice_ = await reader.read(TOPIC, 0, one.offset, records_max=1, bytes_max=_BYTES_MAX)
    record = next((r for r in slice_.records if r.offset == one.offset), None)
    if record is None or record.value is None:
        return Answer("failed", "its bytes are not there (any more)")
    media = dict(record.headers).get("content-type", b"application/json").decode()
    answer = await poster.post(export, Message(one.id, media, record.value))
    if answer.outcome == "delivered":
        await mark(producer, [one.offset])
    return answer


async def mark(producer: Producer, offsets: Collection[int]) -> None:
    """Say that letters are replayed."""
    done = Mark("replayed", runs(sorted(offsets)))
    value = msgspec.json.encode(done)
    await producer.send(TOPIC, [Outgoing(value, MARK_KEY, [(MARK, done.did.encode())], 0)])


def _letter(name: str, message: Message, value: bytes | None, code: str, reason: str) -> Outgoing:
    context = {
        "stage": "export",
        "exception.class.name": code,
        "exception.message": " ".join(reason.split())[:1000],
    }
    own = [("webhook-id", message.id.encode()), ("content-type", message.media.encode())]
    return Outgoing(value, name.encode(), context_headers(own, context), 0)


async def _entries(reader: Reader) -> AsyncIterator[Letter | Mark]:
    at, end = await reader.bounds(TOPIC, 0)
    while at < end:
        slice_ = await reader.read(TOPIC, 0, at, bytes_max=_BYTES_MAX)
        for record in slice_.records:
            yield read(0, record)
        if slice_.range.next <= at:
            return
        at = slice_.range.next
