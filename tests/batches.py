"""Packed records: record batches as a broker sends them, made by aiokafka's own builder, and ours to send."""

import numpy as np
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from streamapp.core.packed import PLACE, Packed, Part, pack_headers
from streamapp.transport.bundle import Bundle
from streamapp.transport.kafka.arrived import Arrived

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
LOG_APPEND_TIME, TRANSACTIONAL, CONTROL = 0x08, 0x10, 0x20


def sealed(data):
    """The batch with the checksum that it should have."""
    data = bytearray(data)
    data[17:21] = calc_crc32c(bytes(data[21:])).to_bytes(4, "big")
    return bytes(data)


def batch(records, base=0, *, codec=0, attributes=0, skipped=0):
    """One batch of magic 2.

    Args:
        records: (offset from ``base``, timestamp, key, value, headers).
        base: the batch's first offset.
        codec: how it is compressed.
        attributes: to be set beside it.
        skipped: offsets behind the last record that compaction took.
    """
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 30)
    for delta, timestamp, key, value, headers in records:
        builder.append(delta, timestamp, key, value, list(headers))
    data = bytearray(builder.build())
    data[0:8] = base.to_bytes(8, "big")
    data[22] |= attributes
    last = records[-1][0] + skipped
    data[23:27] = last.to_bytes(4, "big")
    return sealed(data)


def packed(records):
    """Records as a fetch brings them; None for what no batch can hold."""
    if not records:
        return Packed()
    first = records[0].offset
    rows = [(r.offset - first, r.timestamp, r.key, r.value, r.headers) for r in records]
    if sorted({row[0] for row in rows}) != [row[0] for row in rows]:
        return None
    try:
        data = batch(rows, first)
    except (TypeError, OverflowError, UnicodeEncodeError, AttributeError):
        return None
    found = Arrived(data, first, check_crcs=True).take(len(rows), 1 << 40).records
    middle = len(found) // 2
    return found[:middle] + found[middle:]  # of two fetches


def bundle(records):
    """Records to append, in one buffer."""
    data, places = b"", []
    for record in records:
        found = {}
        for name, text in (
            ("key", record.key),
            ("value", record.value),
            ("headers", pack_headers(record.headers)),
        ):
            found[name] = len(data), -1 if text is None else len(text)
            data += text or b""
        places.append((0, 0, 0, *found["key"], *found["value"], *found["headers"], 0))
    return Bundle(Packed([Part(memoryview(data), np.array(places, PLACE))]))
