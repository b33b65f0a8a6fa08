from typing_extensions import Buffer

def siphash(
    source_offsets: Buffer,
    source_bytes: Buffer,
    source_first: int,
    id_offsets: Buffer,
    id_bytes: Buffer,
    id_first: int,
    n: int,
    secret: bytes,
    /,
) -> list[bytes]: ...
