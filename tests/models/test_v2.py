"""Tensors of the Open Inference Protocol: what goes out comes back, and nothing else gets in."""

import json
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from streamapp.core.errors import Reject
from streamapp.models.formats import v2
from streamapp.models.session import DTYPES, STRING

NUMBERS = [name for name in DTYPES if name != STRING]


@st.composite
def tensors(draw):
    shape = draw(arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
    if draw(st.integers(0, 4)) == 0:
        flat = draw(
            st.lists(
                st.text(max_size=6), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))
            )
        )
        array = np.empty(len(flat), object)
        array[:] = flat
        return array.reshape(shape)
    dtype = np.dtype(DTYPES[draw(st.sampled_from(NUMBERS))])
    options = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    return draw(arrays.arrays(dtype, shape, elements=arrays.from_dtype(dtype, **options)))


@given(
    named=st.dictionaries(st.text(min_size=1, max_size=5), tensors(), max_size=3),
    binary=st.booleans(),
)
def test_round_trip(named, binary):
    entries, blob = v2.encode(named, binary=binary)
    sent = msgspec.json.decode(json.dumps(entries).encode(), type=list[v2.Entry])
    found = v2.decode(sent, blob)
    assert list(found) == list(named)
    for name, array in named.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def entry(**changes):
    given = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]} | changes
    return msgspec.convert(given, v2.Entry)


def test_data_may_be_nested_and_numbers_whole():
    found = v2.decode([entry(shape=[2, 2], data=[[1, 2], [3, 4.5]])], b"")["x"]
    assert found.tolist() == [[1, 2], [3, 4.5]]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"datatype": "FP7"}, "FP7"),
        ({"data": None}, "neither data nor"),
        ({"shape": [3]}, "has shape"),
        ({"shape": [-2]}, "has shape"),
        ({"shape": [2, 2]}, "has shape"),
        ({"shape": [2] + [1] * 64}, "axes"),
        ({"shape": [10**20] * 100_000}, "axes"),
        ({"shape": [2**62, 2**62, 0], "data": []}, "no array's"),
        ({"shape": [2**70, 0], "data": []}, "no array's"),
        ({"data": [1.0, None]}, "not all numbers"),
        ({"data": ["1", "nan"]}, "not all numbers"),
        ({"data": [1.0, {"2": 2}]}, "not all numbers"),
        ({"data": [[1.0], 2.0]}, "not alike"),
        ({"data": [[1.0], {"2": 2}]}, "not alike"),
        ({"shape": [4], "data": [[1.0], [2.0, 3.0, 4.0]]}, "not alike"),
        ({"datatype": "BYTES", "shape": [3], "data": [["ab"], "cd"]}, "not alike"),
        ({"datatype": "FP32", "data": [1.0, 3e39]}, "overflow"),
        ({"datatype": "INT64", "data": [1.5, 2]}, "integers"),
        ({"datatype": "INT64", "data": [True, 2]}, "integers"),
        ({"datatype": "INT64", "data": [None, 2]}, "integers"),
        ({"datatype": "INT8", "data": [1, 300]}, "300"),
        ({"datatype": "UINT8", "data": [1, -1]}, "-1"),
        ({"datatype": "INT64", "data": [1, 2**70]}, "large"),
        ({"datatype": "BOOL", "data": [1, 2]}, "true or false"),
        ({"datatype": "BOOL", "data": ["true", False]}, "true or false"),
        ({"datatype": "BYTES", "data": ["a", 1]}, "texts"),
        ({"parameters": {v2.SIZE: 9}}, "are left"),
        ({"parameters": {v2.SIZE: -1}}, "are left"),
        ({"parameters": {v2.SIZE: "8"}}, "are left"),
        ({"parameters": {v2.SIZE: True}}, "are left"),
        ({"parameters": {v2.SIZE: 10**4000}}, "are left"),
        ({"parameters": {v2.SIZE: 7}}, "each number takes 4"),
        ({"parameters": {v2.SIZE: 4}}, "has shape"),
        ({"parameters": {v2.SIZE: 8}, "datatype": "BYTES"}, "ends within a text"),
    ],
)
def test_what_is_no_tensor_is_a_reject_that_names_it(changes, says):
    with pytest.raises(Reject) as caught:
        v2.decode([entry(**changes)], b"\xff" * 8 if "parameters" in changes else b"")
    assert says in caught.value.message
    assert "'x'" in caught.value.message
    assert len(caught.value.message) < 300


def test_bytes_that_nobody_claims_and_texts_that_are_none():
    with pytest.raises(Reject, match="3 bytes follow"):
        v2.decode([entry()], b"abc")
    text = struct.pack("<I", 2) + b"\xff\xfe"
    raw = entry(datatype="BYTES", shape=[1], data=None, parameters={v2.SIZE: len(text)})
    with pytest.raises(Reject, match="not UTF-8"):
        v2.decode([raw], text)
    with pytest.raises(Reject, match="within a text's length"):
        v2.decode([entry(datatype="BYTES", shape=[1], parameters={v2.SIZE: 2})], b"ab")


@pytest.mark.parametrize("length", ["x", "-1", "7", "1.0", "", "²", "٢", "9" * 5000])
def test_a_length_of_the_json_that_cannot_be(length):
    with pytest.raises(Reject, match=v2.JSON_LENGTH):
        v2.split(b"{} abc", length)


def test_split():
    assert [bytes(part) for part in v2.split(b"{}abc", "2")] == [b"{}", b"abc"]
    assert [bytes(part) for part in v2.split(b"{}", None)] == [b"{}", b""]
