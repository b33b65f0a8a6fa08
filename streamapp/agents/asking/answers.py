"""What came of an ask: records of ``events.answers``, and rows of the store's table of them."""

import logging
from typing import Literal

import msgspec
import pyarrow as pa

from streamapp.agents.asking.asks import Ask
from streamapp.core.slice import Slice
from streamapp.models.llm.question import Answer
from streamapp.sink.answers import ANSWERS
from streamapp.transport.clients import Outgoing

logger = logging.getLogger("streamapp")
_HEADERS = (("content-type", b"application/json"),)
_REASON_CHARS = 300


class Answered(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An answer by source address.

    ``source``: ``llm``, or ``fallback`` when there was none, for the ``reason``; then ``answer`` is
    what the local models had said, which is in ``local`` anyway.
    """

    kind: str
    topic: str
    partition: int
    offset: int
    id: str
    answer: str
    source: Literal["llm", "fallback"]
    local: str
    answered_us: int
    confidence: float | None = None
    model: str = ""
    prompt: str = ""
    reason: str = ""
    tokens_in: int = 0
    tokens_out: int = 0

    def record(self) -> Outgoing:
        """As it is published."""
        return Outgoing(_encode(self), self.id.encode(), _HEADERS, partition=0)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Answered).decode


def answered(ask: Ask, answer: Answer, said: str, prompt: str, now_us: int) -> Answered:
    """What a model said of an ask."""
    percent = answer.value.get("confidence")
    return Answered(
        kind=ask.kind,
        topic=ask.topic,
        partition=ask.partition,
        offset=ask.offset,
        id=ask.id,
        answer=said,
        source="llm",
        local=ask.local,
        answered_us=now_us,
        confidence=None if percent is None else percent / 100,
        model=answer.model,
        prompt=prompt,
        tokens_in=0 if answer.cached else answer.tokens_in,
        tokens_out=0 if answer.cached else answer.tokens_out,
    )


def fallback(ask: Ask, reason: str, now_us: int) -> Answered:
    """What holds when no model said anything."""
    return Answered(
        kind=ask.kind,
        topic=ask.topic,
        partition=ask.partition,
        offset=ask.offset,
        id=ask.id,
        answer=ask.local,
        source="fallback",
        local=ask.local,
        answered_us=now_us,
        confidence=ask.confidence,
        reason=reason[:_REASON_CHARS],
    )


def rows_of(slice_: Slice) -> pa.Table:
    """Records of the topic as rows of the store's table; what is not ours is passed over."""
    rows = []
    for record in slice_.records:
        try:
            one = _decode(record.value or b"")
        except (msgspec.DecodeError, UnicodeError) as error:
            what = "%s-%d: the record at offset %d is no answer: %s"
            logger.warning(what, slice_.range.topic, slice_.range.partition, record.offset, error)
            continue
        rows.append(
            {
                "source_topic": one.topic,
                "source_partition": one.partition,
                "source_offset": one.offset,
                "id": one.id,
                "kind": one.kind,
                "answer": one.answer,
                "confidence": one.confidence,
                "source": one.source,
                "local": one.local,
                "model": one.model or None,
                "prompt": one.prompt or None,
                "reason": one.reason or None,
                "tokens_in": one.tokens_in,
                "tokens_out": one.tokens_out,
                "answered_at": one.answered_us,
                "log_offset": record.offset,
            }
        )
    return pa.Table.from_pylist(rows, schema=ANSWERS)
