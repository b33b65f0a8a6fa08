from typing_extensions import Buffer

BATCHES_ENOUGH: int
BATCHES_END: int
BATCHES_COMPRESSED: int
BATCHES_OLD: int
BATCHES_CHECKSUM: int
BATCHES_MALFORMED: int

def read_batches(
    data: Buffer, at: int, position: int, enough: int, check_crcs: bool, /
) -> tuple[bytes, int, int, int]: ...
def crc32c(data: Buffer, /) -> tuple[int, int]: ...
