"""Where a record goes and whether it may, the same for every log."""

from collections.abc import Sequence
from functools import lru_cache
from struct import unpack_from

from streamapp.core.errors import Refuse, Reject
from streamapp.transport.clients import Outgoing, TopicSpec

_M, _32_BITS = 0x5BD1E995, 0xFFFFFFFF
_BYTES = (bytes, bytearray, memoryview)


@lru_cache(maxsize=65_536)
def murmur2(key: bytes) -> int:
    """Kafka's hash of a key, 32 bits (org.apache.kafka.common.utils.Utils.murmur2)."""
    size = len(key)
    hashed = 0x9747B28C ^ size
    for word in unpack_from(f"<{size >> 2}I", key):
        mixed = word * _M & _32_BITS
        hashed = (hashed * _M & _32_BITS) ^ ((mixed ^ mixed >> 24) * _M & _32_BITS)
    if rest := key[size & ~3 :]:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * _M & _32_BITS
    hashed = (hashed ^ hashed >> 13) * _M & _32_BITS
    return hashed ^ hashed >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition Kafka's default partitioner gives to a key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions if partitions > 1 else 0


def size_of(record: Outgoing) -> int:
    """Bytes of key, value and headers: what ``record_bytes_max`` limits.

    Raises:
        Reject: a header that is not str with bytes: no reader could get past it.
    """
    size = len(record.value or b"") + len(record.key or b"")
    for name, value in record.headers or ():
        if not isinstance(name, str) or not isinstance(value, _BYTES):
            raise Reject(
                "record.header",
                f"a header is str with bytes, not {type(name).__name__} with"
                f" {type(value).__name__}: {str(name)[:80]!r}",
                "encode its value, decode its name",
            )
        size += len(name) + len(value)
    return size


def route(spec: TopicSpec, record: Outgoing, keyless: int) -> tuple[int, int]:
    """Partition and size of a record; without key and partition it goes to ``keyless``.

    Raises:
        Refuse: a partition that the topic does not have.
        Reject: the record is too large, or has a header that is none.
    """
    partition = record.partition
    if partition is None:
        key = record.key
        partition = keyless if key is None else partition_of(key, spec.partitions)
    elif not 0 <= partition < spec.partitions:
        raise no_partition(spec, partition)
    size = size_of(record)
    if size > spec.record_bytes_max:
        raise Reject(
            "record.too_large",
            f"a record of {size} bytes is more than topic {spec.name!r} takes:"
            f" {spec.record_bytes_max}",
            "make it smaller or raise the topic's record_bytes_max",
        )
    return partition, size


def no_partition(spec: TopicSpec, partition: int) -> Refuse:
    """The error for a partition number that the topic does not have."""
    return Refuse(
        "topic.partition",
        f"topic {spec.name!r} has partitions 0 to {spec.partitions - 1}, not {partition}",
        "use one of those",
    )


def check_deletable(spec: TopicSpec) -> None:
    """Refuse to delete records by offset where that cannot be.

    Raises:
        Refuse: the topic keeps each key's last record.
    """
    if spec.compacted:
        raise Refuse(
            "topic.compacted",
            f"topic {spec.name!r} is compacted: its records go by key, not by offset",
            "send the key without a value",
        )


def no_offset(spec: TopicSpec, partition: int, offset: int) -> Refuse:
    """The error for an offset that a partition does not have."""
    return Refuse(
        "topic.offset",
        f"{spec.name!r} [{partition}] does not go as far as offset {offset}",
        "name one between its first and the one past its last",
    )


def checked_spec(existing: TopicSpec, asked: TopicSpec) -> None:
    """Refuse a declaration whose number of partitions differs from what exists.

    Raises:
        Refuse: it does.
    """
    if existing.partitions != asked.partitions:
        raise Refuse(
            "topic.partitions",
            f"topic {asked.name!r} has {existing.partitions} partitions, not {asked.partitions}",
            "partition counts never change in place; use the number it has, or another name",
        )


def routed(
    spec: TopicSpec, records: Sequence[Outgoing], keyless: int
) -> tuple[list[int], list[int]]:
    """Partition and size of every record, as :func:`route`."""
    pairs = [route(spec, record, keyless) for record in records]
    return [partition for partition, _ in pairs], [size for _, size in pairs]
