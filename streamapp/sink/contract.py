"""What every sink promises: enriched records in, each source offset exactly once; rows out."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

import duckdb
import pyarrow as pa

from streamapp.core.ranges import Ledger
from streamapp.sink.answers import Answers
from streamapp.sink.intake import StoredRecord
from streamapp.sink.store import Written


class Sink(Protocol):
    """Where the store agent writes.  ``tests/contract/test_sink.py`` holds every sink to it.

    ``write`` may be called from any thread, one at a time; ``reader`` from any thread at any time.
    """

    @property
    def path(self) -> str:
        """How messages name it: a file or a URL."""
        ...

    @property
    def ledger(self) -> Ledger:
        """The source ranges that are stored.  Read it only while no ``write`` runs."""
        ...

    def positions(self) -> dict[tuple[str, int], int]:
        """Where to go on reading: (enriched topic, partition) to the offset after the last."""
        ...

    def reader(self) -> duckdb.DuckDBPyConnection:
        """A cursor for queries on ``events`` and the other tables.

        It is for one thread, reaches nothing outside the sink, and sees all that was stored when it
        was made.

        Raises:
            Retry: the sink is closed.
        """
        ...

    def prepare(self, functions: AbstractSet[str], check: Callable[[], None]) -> None:
        """Have ready what a statement that calls these functions searches.

        ``check`` is called between pieces of the work, and ends it with what it raises.
        """
        ...

    def write(self, records: Sequence[StoredRecord]) -> Written:
        """Store the records, all or none; when it returns they are durable, or were before.

        Records of one enriched partition come in log order; what was stored already is skipped, so
        any record may come again.

        Raises:
            Retry: the outside failed; nothing is lost, call again with the same records.
            Halt: a source offset comes with another event than the one stored there, or a record
            contradicts itself.  Nothing of it is stored.
        """
        ...

    def write_answers(self, answers: Answers) -> int:
        """Append rows to table ``answers`` and move its position, all or none; how many were new.

        Raises:
            Retry: as ``write``.
        """
        ...

    def subscribe(self, callback: Callable[[pa.Table, Written], None]) -> Callable[[], None]:
        """Have ``callback(rows, written)`` called after each commit; returns how to end that."""
        ...

    def close(self) -> None:
        """Let go of it; harmless when it is closed."""
        ...
