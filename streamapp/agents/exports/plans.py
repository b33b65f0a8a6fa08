"""What is about to be posted, said on the log before it is.

A batch ends where it is full or its time is up, so nobody could gather the same one again.  Its
rows are therefore written down first: whoever takes over a partition posts the same rows under the
same id, and then goes on.  That a plan exists says that everything before its first row is done.
"""

from collections.abc import Iterable

import msgspec

from streamapp.agents.exports.body import Place
from streamapp.core.slice import RecordLike
from streamapp.topics.catalogue import PLANS as TOPIC
from streamapp.transport.clients import Outgoing, Producer, Reader

_BYTES_MAX = 1 << 20


class Plan(msgspec.Struct, frozen=True):
    """One batch: per record, its offset and the rows of it."""

    export: str
    partition: int
    rows: list[tuple[int, list[int]]]

    @property
    def first(self) -> Place:
        """Where it begins."""
        offset, rows = self.rows[0]
        return Place(offset, rows[0])

    @property
    def after(self) -> Place:
        """One past its last row."""
        offset, rows = self.rows[-1]
        return Place(offset, rows[-1] + 1)

    @classmethod
    def of(cls, export: str, partition: int, places: Iterable[Place]) -> "Plan":
        """For these rows, rising."""
        rows: list[tuple[int, list[int]]] = []
        for offset, row in places:
            if rows and rows[-1][0] == offset:
                rows[-1][1].append(row)
            else:
                rows.append((offset, [row]))
        return cls(export, partition, rows)


_decode = msgspec.json.Decoder(Plan).decode


class Plans:
    """The newest plan of each export and partition."""

    def __init__(self, reader: Reader, producer: Producer) -> None:
        self._reader = reader
        self._producer = producer
        self._at = 0
        self._newest: dict[tuple[str, int], Plan] = {}

    async def find(self, export: str, partition: int) -> Plan | None:
        """The newest, whoever made it; of two with the same begin the older one."""
        begin, end = await self._reader.bounds(TOPIC, 0)
        self._at = max(self._at, begin)
        while self._at < end:
            slice_ = await self._reader.read(TOPIC, 0, self._at, bytes_max=_BYTES_MAX)
            for record in slice_.records:
                self._learn(record)
            if slice_.range.next <= self._at:
                break
            self._at = slice_.range.next
        return self._newest.get((export, partition))

    async def write(self, plan: Plan) -> None:
        """Durably."""
        key = f"{plan.export}/{plan.partition}".encode()
        await self._producer.send(TOPIC, [Outgoing(msgspec.json.encode(plan), key, partition=0)])

    def _learn(self, record: RecordLike) -> None:
        try:
            plan = _decode(record.value or b"")
        except msgspec.DecodeError:
            return  # a client's: we can do without
        if not plan.rows or not all(rows for _, rows in plan.rows):
            return
        key = plan.export, plan.partition
        known = self._newest.get(key)
        if known is None or known.first != plan.first:
            self._newest[key] = plan
