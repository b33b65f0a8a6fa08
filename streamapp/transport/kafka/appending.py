"""A Produce request of one batch, and its answer, without a look at their schemas.

aiokafka walks through the types of each field; for a batch of a few records that takes as long as
all the rest of sending it.  What is encoded here is the same to the byte; versions 5 to 7 are
(https://kafka.apache.org/protocol#The_Messages_Produce), any other is left to aiokafka.
"""

from dataclasses import dataclass
from io import BytesIO
from struct import Struct, pack
from typing import Any, ClassVar, NamedTuple

from aiokafka.protocol.api import ResponseHeader_v0
from aiokafka.protocol.produce import (
    ProduceRequest,
    ProduceRequest_v5,
    ProduceRequest_v6,
    ProduceRequest_v7,
)

_ALL_IN_SYNC = -1
_NO_TRANSACTION = -1
#: Partition, error code, offset, timestamp, first offset of the log.
_DONE = Struct(">ihqqq")
_ALIKE = {ProduceRequest_v5, ProduceRequest_v6, ProduceRequest_v7}


class Append(ProduceRequest):
    """Append a batch to a partition, acknowledged by all replicas in sync."""

    def __init__(self, topic: str, partition: int, batch: bytes, timeout_ms: int) -> None:
        super().__init__(None, _ALL_IN_SYNC, timeout_ms, [(topic, [(partition, batch)])])
        name = topic.encode()
        head = pack(
            f">hhiih{len(name)}siii",
            _NO_TRANSACTION,
            _ALL_IN_SYNC,
            timeout_ms,
            1,
            len(name),
            name,
            1,
            partition,
            len(batch),
        )
        self._body = head + batch

    def build(self, request_struct_class: Any) -> Any:
        if request_struct_class not in _ALIKE:
            return super().build(request_struct_class)
        return _Encoded(request_struct_class.API_VERSION, self._body)


class Done(NamedTuple):
    """As ``ProduceResponse``."""

    topics: list[tuple[str, list[tuple[int, ...]]]]

    @classmethod
    def decode(cls, data: BytesIO) -> "Done":
        """Of one partition, as was asked."""
        frame = data.read()
        size = int.from_bytes(frame[4:6])
        name, at = frame[6 : 6 + size].decode(), 10 + size
        return cls([(name, [_DONE.unpack_from(frame, at)])])


@dataclass(slots=True)
class _Encoded:
    """What a connection asks of a request that it sends."""

    version: int
    body: bytes

    RESPONSE_TYPE: ClassVar = Done
    parse_response_header: ClassVar = staticmethod(ResponseHeader_v0.decode)

    def encode(self) -> bytes:
        return self.body

    def build_request_header(self, correlation_id: int, client_id: str) -> "_Encoded":
        name = client_id.encode()
        head = pack(">hhih", ProduceRequest.API_KEY, self.version, correlation_id, len(name))
        return _Encoded(self.version, head + name)
