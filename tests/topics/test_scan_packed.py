"""Places that are not in their buffer are left, and nothing outside of it is read."""

import numpy as np
import pytest
from batches import packed
from scanning import BYTES_MAX

from streamapp.core.packed import PLACE, Packed, Part
from streamapp.core.slice import Record
from streamapp.topics._scan import scan_packed
from streamapp.topics.columns import decode_plain

NAMES = b"t", b"t-0-"


def left_of(places, data=b'{"id":"e"}'):
    _, left = scan_packed(((memoryview(data), np.array(places, PLACE)),), *NAMES, BYTES_MAX)
    return left


def place(key=(0, -1), value=(0, 10), headers=(0, 0)):
    return (0, 7, 0, *key, *value, *headers, 0)


def test_a_record_whose_parts_lie_in_the_buffer_is_taken():
    assert left_of([place()]) == []
    assert left_of([place(key=(10, 0), headers=(10, 0))]) == []


@pytest.mark.parametrize("part", ["key", "value", "headers"])
@pytest.mark.parametrize(
    "where", [(-1, 10), (1, 10), (0, 11), (11, 0), (10, 1), (2**31 - 1, 2**31 - 1), (-(2**31), 1)]
)
def test_a_part_that_lies_elsewhere_is_left(part, where):
    assert left_of([place(), place(**{part: where}), place()]) == [1]


def test_headers_that_are_none_are_left():
    for headers in (
        b"\x06ce",
        b"\x01\x00",
        b"\x00",
        b"\x80" * 11,
        b"\x0ace_id\x08\xff\xff\xff\xff",
    ):
        data = b'{"id":"e"}' + headers
        assert left_of([place(headers=(10, len(headers)))], data) == [0]
    headers = b"\x0ace_id\x01\x04ab\x02x"  # a null, and one that is no attribute
    data = b'{"id":"e"}' + headers
    assert left_of([place(headers=(10, len(headers)))], data) == []


@pytest.mark.parametrize("parts", [(b"no part",), ((b"data",),), ((b"a", "b"),), ((1, b""),)])
def test_what_is_no_part_is_refused(parts):
    with pytest.raises(TypeError):
        scan_packed(parts, *NAMES, BYTES_MAX)


def test_half_a_place_is_none():
    _, left = scan_packed(((b"", bytes(PLACE.itemsize - 1)),), *NAMES, BYTES_MAX)
    assert left == []


def test_rows_are_of_all_parts_in_order_and_what_is_left_is_named():
    values = [b'{"id":"%d"}' % n if n % 3 else b"no json" for n in range(9)]
    found = packed([Record(n, n, None, value) for n, value in enumerate(values)])
    assert len(found.parts) == 2
    rows, left = decode_plain(found, "t", 0, event_bytes_max=BYTES_MAX)
    assert rows.column("source_offset").to_pylist() == [1, 2, 4, 5, 7, 8]
    assert [record.offset for record in left] == [0, 3, 6]
    rows, left = decode_plain(Packed(), "t", 0, event_bytes_max=BYTES_MAX)
    assert (rows.num_rows, left) == (0, [])


def test_a_buffer_may_be_anything_that_holds_bytes():
    data = b'{"id":"e"}'
    part = Part(memoryview(bytearray(data)), np.array([place()], PLACE))
    rows, _ = decode_plain(Packed([part]), "t", 0, event_bytes_max=BYTES_MAX)
    assert rows.column("id").to_pylist() == ["e"]
