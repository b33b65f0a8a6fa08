"""The results of one run off the topics, into a file for each output and for rows set aside."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa

from streamapp.agents.flow.record import Aside, decode, mark_of
from streamapp.agents.flow.units import Repeats
from streamapp.agents.outcome import persist
from streamapp.core.metrics import Metrics
from streamapp.core.slice import Slice
from streamapp.transport.clients import Reader

_WAIT_MS_MAX = 200
_READ_BYTES_MAX = 8 << 20
#: Where to read each partition of a topic from.
Places = dict[str, list[int]]


class Collect:
    """Reads topics of groups until each partition says that the run has ended.

    Args:
        reader: started.
        partitions: of each topic.
        run: which rows are meant.
        begin: where earlier runs ended, by topic; the others are read from their beginning.
        metrics: of this process.
        on_rows: told of rows that were read.
    """

    def __init__(
        self,
        reader: Reader,
        partitions: int,
        run: int,
        begin: Places,
        metrics: Metrics,
        on_rows: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._reader, self._partitions, self._run = reader, partitions, run
        self._begin, self._metrics, self._on_rows = begin, metrics, on_rows
        #: Where this run ended.
        self.ended: Places = {}

    async def rows(self, topic: str, schema: pa.Schema, into: Path) -> list[Aside]:
        """Write the topic's rows of the run as an Arrow IPC stream; what was set aside.

        Raises:
            Halt: the topic has records that are not ours, or overlap.
        """
        asides: list[Aside] = []
        with ExitStack() as stack:
            out = stack.enter_context(pa.ipc.new_stream(str(into), schema))
            ended = [
                await self._partition(topic, partition, out, asides)
                for partition in range(self._partitions)
            ]
        self.ended[topic] = ended
        return asides

    async def _partition(
        self, topic: str, partition: int, out: pa.ipc.RecordBatchStreamWriter, asides: list[Aside]
    ) -> int:
        first, _ = await self._reader.bounds(topic, partition)
        at = max(self._begin.get(topic, [0] * self._partitions)[partition], first)
        repeats = Repeats()
        while True:
            slice_ = await self._read(topic, partition, at)
            for record in slice_.records:
                mark = mark_of(record)
                if mark is None or mark.run != self._run or not repeats.is_new(mark):
                    continue
                part = decode(record)
                await asyncio.to_thread(out.write_table, part.rows)
                asides += part.asides
                self._on_rows(part.rows.num_rows)
                if mark.end:
                    return record.offset + 1
            at = max(at, slice_.range.next)

    async def _read(self, topic: str, partition: int, at: int) -> Slice:
        found = await persist(
            "collect",
            lambda: self._reader.read(
                topic, partition, at, bytes_max=_READ_BYTES_MAX, wait_ms_max=_WAIT_MS_MAX
            ),
            self._metrics,
        )
        assert found is not None  # noqa: S101  # persist without still_ours returns
        return found


def joined(asides: Sequence[Aside]) -> Mapping[tuple[str, str], pa.Table]:
    """Rows that were set aside, by stage and reason."""
    found: dict[tuple[str, str], list[pa.Table]] = {}
    for aside in asides:
        found.setdefault((aside.stage, aside.reason), []).append(aside.rows)
    return {key: pa.concat_tables(tables) for key, tables in found.items()}
