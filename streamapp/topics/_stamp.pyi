def stamp(
    values: tuple[bytes, ...],
    numbers: tuple[int, ...],
    source: bytes,
    id_prefix: bytes,
    tail: bytes,
    received_us: int,
    value_bytes_max: int,
    is_enveloped: bool,
    /,
) -> tuple[bytes, bytes, list[str], list[str | None], list[int]]: ...
def stamp_one(
    value: bytes, source: str, identity: str, received_us: int, /
) -> tuple[str, str | None, bytes, list[tuple[str, bytes]]] | None: ...
