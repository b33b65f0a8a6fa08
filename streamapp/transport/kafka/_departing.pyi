from typing import Any

from numpy.typing import NDArray

from streamapp.transport.clients import Outgoing

def encode(
    pieces: tuple[list[Outgoing] | tuple[memoryview, NDArray[Any]], ...],
    producer: int,
    epoch: int,
    sequence: int,
    now_ms: int,
    room: int,
    /,
) -> bytes: ...
def partitions(data: memoryview, places: NDArray[Any], count: int, keyless: int, /) -> bytes: ...
