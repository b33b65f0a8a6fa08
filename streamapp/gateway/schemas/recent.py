"""The newest events that came through this gateway."""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from streamapp.core.slice import Headers
from streamapp.gateway.schemas.rules import HEADER as VIOLATION
from streamapp.gateway.schemas.rules import Letter
from streamapp.gateway.stamp import Stamped, rfc3339
from streamapp.transport.clients import Address, Outgoing

RECENT_MAX = 1_000
_NOTE_BYTES_MAX = 500


class Recent(NamedTuple):
    """One event, as its headers had it."""

    id: bytes
    type: bytes
    source: bytes
    status: str
    received_us: int
    topic: str
    partition: int | None
    offset: int | None
    note: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "id": self.id.decode(),
            "type": self.type.decode(),
            "source": self.source.decode(),
            "status": self.status,
            "received": rfc3339(self.received_us),
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            **({"note": self.note} if self.note else {}),
        }


#: What a :class:`Recent` is made of, for who asks: headers, status, time, note, and where it is.
_Noted = tuple[Headers, str, int, str, Address | tuple[str, None, None]]


class Newest:
    """The last ``RECENT_MAX`` of them."""

    def __init__(self) -> None:
        self._noted: deque[_Noted] = deque(maxlen=RECENT_MAX)

    def took(
        self, records: Sequence[Outgoing], addresses: Sequence[Address], received_us: int
    ) -> None:
        """The log has these."""
        if len(records) > RECENT_MAX:
            records, addresses = records[-RECENT_MAX:], addresses[-RECENT_MAX:]
        for record, address in zip(records, addresses, strict=True):
            status, note = "received", ""
            if isinstance(record, Letter):
                status, note = "dead-lettered", record.why.message
            self._noted.append((record.headers, status, received_us, note, address))

    def refused(self, topic: str, stamped: Stamped, received_us: int, note: str) -> None:
        """Its topic's schema does not take this one."""
        address = topic, None, None
        headers = stamped.record.headers
        self._noted.append((headers, "rejected", received_us, note, address))

    def newest(self, count: int, kind: str | None = None) -> list[Recent]:
        """The newest events, newest first; of one type if ``kind`` says so."""
        wanted = None if kind is None else kind.encode()
        every = (_recent(noted) for noted in reversed(self._noted))
        found = (one for one in every if wanted in {None, one.type})
        return [one for _, one in zip(range(count), found, strict=False)]


def _recent(noted: _Noted) -> Recent:
    pairs, status, received_us, note, (topic, partition, offset) = noted
    headers = dict(pairs)
    said = headers.get(VIOLATION, b"")[:_NOTE_BYTES_MAX]
    return Recent(
        headers.get("ce_id", b""),
        headers.get("ce_type", b""),
        headers.get("ce_source", b""),
        status,
        received_us,
        topic,
        partition,
        offset,
        note or said.decode(errors="replace"),
    )
