"""Table ``answers``: what a language model said of events, by their source address.

It is filled from a topic of its own, whose position moves in the rows' transaction, so that each
record is stored once.  An event may have several answers: a process that was killed asks again.
"""

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from streamapp.core.batch import TIME

ANSWERS = pa.schema(
    [
        pa.field("source_topic", pa.string(), nullable=False),
        pa.field("source_partition", pa.int32(), nullable=False),
        pa.field("source_offset", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),  # the event's
        pa.field("kind", pa.string(), nullable=False),  # intent or type
        pa.field("answer", pa.string(), nullable=False),
        pa.field("confidence", pa.float32()),
        pa.field("source", pa.string(), nullable=False),  # llm or fallback
        pa.field("local", pa.string(), nullable=False),  # what the local models had said
        pa.field("model", pa.string()),
        pa.field("prompt", pa.string()),  # which one, and its version
        pa.field("reason", pa.string()),  # of a fallback
        pa.field("tokens_in", pa.int32(), nullable=False),
        pa.field("tokens_out", pa.int32(), nullable=False),
        pa.field("answered_at", TIME, nullable=False),
        pa.field("log_offset", pa.int64(), nullable=False),  # in the topic of answers
    ]
)


class Answers(NamedTuple):
    """Rows of :data:`ANSWERS` from one partition of their topic, and the offset after them."""

    topic: str
    partition: int
    next: int
    rows: pa.Table

    def after(self, position: int) -> pa.Table | None:
        """The rows at or behind a position; None when it is behind all of them already."""
        if self.next <= position:
            return None
        if not self.rows.num_rows or self.rows["log_offset"][0].as_py() >= position:
            return self.rows
        return self.rows.filter(pc.greater_equal(self.rows["log_offset"], position))
