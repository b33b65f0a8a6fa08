"""However large a batch is, its records cover its range once and carry every row, reject and state."""

import random
from hashlib import sha256
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.agents.publish import (
    RECORD_OVERHEAD_BYTES,
    Standpoint,
    dead_letter,
    enriched_records,
    lost_record,
    snapshot_record,
)
from streamapp.core.errors import Halt
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.core.state import StateEntry
from streamapp.topics.enriched import decode
from streamapp.topics.wire import decode_slice

STAND = Standpoint(snapshot=3, provenance="[]")


def event(text):
    return msgspec.json.encode({"message": text})


def publish(values, entries=(), bytes_max=8 << 20, first=10):
    records = [Record(first + i, 0, b"k", value) for i, value in enumerate(values)]
    range_ = OffsetRange("events.raw", 2, first - 5, first + len(values) + 1)
    batch = decode_slice(Slice(range_, records), event_bytes_max=1 << 20)
    raw = {record.offset: record for record in records}
    outgoing, rejects = enriched_records(batch, entries, STAND, raw, bytes_max)
    assert all(o.partition == 2 for o in outgoing)
    assert all(len(o.value) + RECORD_OVERHEAD_BYTES <= bytes_max for o in outgoing)
    return [decode(Record(0, 0, None, o.value, o.headers)) for o in outgoing], rejects


def incompressible(size, seed):
    chance = random.Random(seed)
    return "".join(chr(chance.randrange(0x4E00, 0x9FA5)) for _ in range(size))


@settings(max_examples=25)
@given(st.lists(st.integers(0, 900), min_size=1, max_size=24), st.integers(12_000, 30_000))
def test_split_records_are_disjoint_and_complete(sizes, bytes_max):
    values = [event(incompressible(n, n)) if n % 5 else b"bad" * n for n in sizes]
    entries = [StateEntry("s", "k", f"key{i % 3}", 10 + i, i) for i in range(len(values)) if i % 2]
    records, rejects = publish(values, entries, bytes_max)
    covers = [record.cover for record in records]
    assert (covers[0].first, covers[-1].next) == (5, 10 + len(values) + 1)
    assert all(a.next == b.first for a, b in pairwise(covers))
    offsets = [o for r in records for o in r.rows.column("source_offset").to_pylist()]
    bad = [reject.source_offset for r in records for reject in r.rejects]
    assert sorted(offsets + bad) == list(range(10, 10 + len(values)))
    assert offsets == sorted(offsets)
    assert [r.source_offset for r in rejects] == bad
    for record in records:
        for entry in record.states:
            assert record.cover.first <= entry.source_offset < record.cover.next
    last = {e.key: e.value for e in entries}
    replayed = {e.key: e.value for r in records for e in r.states}
    assert replayed == last


def test_an_event_that_alone_is_too_large_becomes_a_reject_and_the_others_go_through():
    big = event(incompressible(9_000, 1))
    records, [reject] = publish([event("a"), big, event("b")], bytes_max=30_000)
    assert (reject.source_offset, reject.code) == (11, "enriched.too_large")
    texts = [text for record in records for text in record.rows.column("text").to_pylist()]
    assert texts == ["a", "b"]


def test_bytes_that_do_not_fit_are_left_on_the_source_log_under_their_digest():
    value = incompressible(9_000, 2).encode()
    _, [reject] = publish([value], bytes_max=12_000)
    assert reject.value is None
    assert sha256(value).hexdigest() in reject.reason
    assert "27,000 bytes" in reject.reason


def test_a_topic_too_small_for_anything_halts_with_the_way_out():
    with pytest.raises(Halt, match="without rows") as caught:
        publish([b"bad"], bytes_max=5_000)
    assert "record_bytes_max" in caught.value.fix


def test_all_rejected_still_covers_the_range():
    records, rejects = publish([b"x", b"y"])
    assert [r.cover.rows for r in records] == [0]
    assert (records[0].cover.first, records[0].cover.next) == (5, 13)
    assert len(rejects) == 2


def test_snapshot_and_loss_are_zero_row_records():
    entries = [StateEntry("kinetics", "conversation", "c", 4, [1.5])]
    out = snapshot_record(OffsetRange("events.raw", 1, 9, 9), entries, "[]")
    back = decode(Record(0, 0, None, out.value, out.headers))
    assert (back.cover.is_snapshot, back.cover.first, back.cover.next) == (True, 9, 9)
    assert list(back.states) == entries
    out = lost_record(OffsetRange("events.raw", 1, 9, 20), STAND)
    back = decode(Record(0, 0, None, out.value, out.headers))
    assert (back.cover.lost, back.cover.rows, back.cover.range) == (11, 0, ("events.raw", 1, 9, 20))


def test_a_dead_letter_keeps_the_bytes_and_says_where_and_why():
    record = Record(7, 99, b"k", b"\x00", [("h", b"1"), ("__connect.errors.topic", b"old")])
    batch = decode_slice(Slice(OffsetRange("events.raw", 3, 7, 8), [record]), event_bytes_max=9)
    letter = dead_letter(batch.range, batch.rejects[0])
    headers = dict(letter.headers)
    assert (letter.key, letter.value) == (b"k", b"\x00")
    assert letter.timestamp_ms is None, "an old event's letter is kept as long as any other"
    assert headers["h"] == b"1"
    assert headers["__connect.errors.topic"] == b"events.raw"
    assert headers["__connect.errors.partition"] == b"3"
    assert headers["__connect.errors.offset"] == b"7"
    assert headers["__connect.errors.timestamp"] == b"99"
    assert headers["__connect.errors.exception.class.name"] == b"event.json"


def test_a_good_event_beside_large_bad_ones_goes_through():
    """Their bytes are carried in the same record; it is they who must move out of the way."""
    bad = [incompressible(3_000, seed).encode() for seed in range(4)]
    records, rejects = publish([*bad[:2], event("good"), *bad[2:]], bytes_max=20_000)
    texts = [text for record in records for text in record.rows.column("text").to_pylist()]
    assert texts == ["good"]
    assert [(r.source_offset, r.value) for r in rejects] == [
        (10, bad[0]), (11, bad[1]), (13, bad[2]), (14, bad[3]),
    ]  # fmt: skip
