"""The protobuf codec, against bytes written down from the specification and against itself."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.errors import Refuse
from streamapp.flight import wire

_values = st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=300))


def test_the_specifications_examples():
    """https://protobuf.dev/programming-guides/encoding/"""
    assert wire.encode((1, 150)) == bytes.fromhex("089601")
    assert wire.encode((2, "testing")) == bytes.fromhex("120774657374696e67")
    assert wire.decode(bytes.fromhex("089601")) == {1: [150]}
    packed = wire.decode(bytes.fromhex("3206038e029ea705"))
    assert wire.numbers(packed, 6) == [3, 270, 86942]
    assert wire.numbers({6: [3, 270]}, 6) == [3, 270]


def test_fixed_width_fields_are_stepped_over():
    assert wire.decode(b"\x09" + b"\x01" * 8 + b"\x15" + b"\x02" * 4 + b"\x18\x01") == {
        1: [b"\x01" * 8],
        2: [b"\x02" * 4],
        3: [1],
    }


@given(st.lists(st.tuples(st.integers(1, 2**20), _values), max_size=8))
def test_what_is_encoded_is_decoded(fields):
    message = wire.decode(wire.encode(*fields))
    expected = {}
    for number, value in fields:
        expected.setdefault(number, []).append(value)
    assert message == expected


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_refused(content):
    with contextlib.suppress(Refuse):
        wire.decode(content)
    assert wire.unpack(content) is None or content.find(b"type.googleapis.com") >= 0


def test_any():
    packed = wire.pack("CommandGetTables", (1, "db"), (2, None), (5, 1), (4, "VIEW"))
    name, message = wire.unpack(packed)
    assert name == "CommandGetTables"
    assert wire.first_text(message, 1) == "db"
    assert wire.first_text(message, 2) is None
    assert wire.flag(message, 5)
    assert not wire.flag(message, 6)
    assert wire.texts(message, 4) == ["VIEW"]
    assert wire.unpack(b"SELECT 1") is None


@pytest.mark.parametrize("content", [b"\x08", b"\x12\x05ab", b"\x0b", b"\x08" + b"\xff" * 11])
def test_cut_short(content):
    with pytest.raises(Refuse, match="not one of Flight SQL"):
        wire.decode(content)
