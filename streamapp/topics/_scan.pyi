from typing import Any

from numpy.typing import NDArray

from streamapp.core.slice import Headers

def scan(
    values: tuple[bytes | None, ...],
    keys: tuple[bytes | None, ...],
    headers: tuple[Headers, ...],
    offsets: tuple[int, ...],
    timestamps: tuple[int, ...],
    topic: bytes,
    address: bytes,
    value_bytes_max: int,
    /,
) -> tuple[object, list[int]]: ...
def scan_packed(
    parts: tuple[tuple[memoryview, NDArray[Any]], ...],
    topic: bytes,
    address: bytes,
    value_bytes_max: int,
    /,
) -> tuple[object, list[int]]: ...
