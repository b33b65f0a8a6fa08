"""Batches that are written in C are those that aiokafka would write."""

import gc
import sys

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from batches import bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.core.packed import PLACE, Packed, Part
from streamapp.transport.bundle import Bundle
from streamapp.transport.clients import Outgoing
from streamapp.transport.kafka import departing
from streamapp.transport.kafka.departing import Identity, encoded, partitions_of
from streamapp.transport.routing import partition_of

NOW_MS = 1_795_336_200_123
IDENTITY = Identity(1 << 40, 7)


@pytest.fixture(autouse=True)
def now(monkeypatch):
    monkeypatch.setattr(departing, "now_ms", lambda: NOW_MS)


def theirs(records, identity=IDENTITY, sequence=0):
    builder = DefaultRecordBatchBuilder(
        2,
        0,
        is_transactional=0,
        producer_id=identity.producer,
        producer_epoch=identity.epoch,
        base_sequence=sequence,
        batch_size=1 << 30,
    )
    for n, (value, key, headers, _, timestamp_ms) in enumerate(records):
        stamp = NOW_MS if timestamp_ms is None else timestamp_ms
        builder.append(n, stamp, key, value, list(headers))
    return bytes(builder.build())


texts = st.none() | st.binary(max_size=200)
headers = st.lists(st.tuples(st.text(max_size=70), st.binary(max_size=70)), max_size=3)
plain = st.tuples(texts, texts, headers).map(lambda parts: Outgoing(*parts))
times = st.none() | st.integers(0, 1 << 42)  # -1 is "none yet" to aiokafka's builder
timed = st.tuples(plain, times).map(lambda both: both[0]._replace(timestamp_ms=both[1]))


@given(st.lists(timed, min_size=1, max_size=5), st.integers(0, (1 << 31) - 1))
@settings(deadline=None)
def test_objects(records, sequence):
    assert encoded([records], 10, IDENTITY, sequence) == theirs(records, IDENTITY, sequence)


@given(st.lists(st.lists(plain, min_size=1, max_size=4), min_size=1, max_size=4))
@settings(deadline=None)
def test_pieces_of_both_forms_are_one_batch(pieces):
    mixed = [bundle(piece) if n % 2 else piece for n, piece in enumerate(pieces)]
    everything = [record for piece in pieces for record in piece]
    assert encoded(mixed, 0, IDENTITY, 3) == theirs(everything, sequence=3)


@given(st.lists(plain, min_size=1, max_size=40), st.integers(1, 100))
@settings(deadline=None)
def test_a_bundle_is_a_list_of_records(records, partitions):
    made = bundle(records)
    assert list(made) == records
    assert [made[n] for n in range(-1, len(records))] == [records[-1], *records]
    assert list(made[1:7]) == records[1:7]
    assert list(made[::2]) == records[::2]
    odd = np.arange(len(records)) % 2 == 1
    assert list(made.where(odd)) == records[1::2]
    assert partitions_of(made, partitions, 0).tolist() == [
        0 if record.key is None else partition_of(record.key, partitions) for record in records
    ]


def test_who_has_no_key_goes_where_it_is_told():
    assert partitions_of(bundle([Outgoing(b"x")] * 3), 8, 5).tolist() == [5, 5, 5]


def test_more_than_a_size_of_one_byte():
    records = [Outgoing(b"v" * 100_000, b"k" * 70, [("n" * 130, b"v" * 9_000)])] * 300
    assert encoded([records], 0, IDENTITY, 0) == theirs(records)


@pytest.mark.parametrize(
    ("piece", "error"),
    [
        ([], ValueError),
        ([Outgoing("text")], TypeError),
        ([Outgoing(b"x", "key")], TypeError),
        ([Outgoing(b"x", None, [("n", "text")])], TypeError),
        ([Outgoing(b"x", None, [b"n"])], TypeError),
        ([Outgoing(b"x", None, [("\ud800", b"")])], UnicodeEncodeError),
        ([Outgoing(b"x", timestamp_ms=1 << 64)], OverflowError),
        ([b"x"], TypeError),
    ],
)
def test_what_is_no_record_is_said(piece, error):
    with pytest.raises(error):
        encoded([piece], 0, IDENTITY, 0)


@pytest.mark.parametrize("at", [(-1, 1), (0, 4), (3, 1), (1 << 30, 1)])
def test_a_place_outside_its_buffer_is_refused(at):
    places = np.array([(0, 0, 0, 0, -1, *at, 0, 0, 0)], PLACE)
    wrong = Bundle(Packed([Part(memoryview(b"abc"), places)]))
    with pytest.raises(ValueError, match="not in its buffer"):
        encoded([wrong], 0, IDENTITY, 0)


def test_what_is_encoded_is_not_held():
    record = Outgoing(b"value", b"key", [("name", b"header")])
    packed, both = bundle([record]), [[record], [Outgoing("wrong")]]
    held = [record, record.value, record.headers[0][1], packed.packed.parts[0].places, None]
    gc.collect()  # what earlier tests left behind holds None too
    before = [sys.getrefcount(one) for one in held]
    for _ in range(5_000):
        encoded([[record], packed], 0, IDENTITY, 0)
        partitions_of(packed, 3, 0)
        with pytest.raises(TypeError):
            encoded(both, 0, IDENTITY, 0)
    after = [sys.getrefcount(one) for one in held]
    gone = [abs(one - other) for one, other in zip(before, after, strict=True)]
    assert max(gone[:-1]) < 10, gone
    assert gone[-1] < 4_000, "threads and the collector count None as well: a leak is 5,000"
