from collections.abc import Iterable
from typing import Any, TypeAlias

from numpy.typing import NDArray

Columns: TypeAlias = tuple[int, int, bytes | None, bytes | None, bytes | None]

def bindings_of_rows(rows: tuple[Columns, ...], positions: list[int], /) -> list[Any]: ...
def bindings_of_packed(data: memoryview, places: NDArray[Any], /) -> list[Any]: ...
def pack(rows: Iterable[Columns], bytes_max: int, /) -> tuple[bytes, bytes, int]: ...
