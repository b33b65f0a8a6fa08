"""Tensors in the Open Inference Protocol v2, as JSON and as binary data.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
and Triton's extension ``binary_tensor_data``: after the JSON come the tensors' bytes, little
endian, in order; each text as its length in four bytes and then itself.
"""

import struct
from array import array as plain_array
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import msgspec
import numpy as np

from streamapp.core.errors import Reject
from streamapp.models.session import DTYPES, STRING, Array, Tensor, dtype_name

#: The protocol's names of types, by ours.
DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    STRING: "BYTES",
}
OURS = {theirs: ours for ours, theirs in DATATYPES.items()}
#: Header: how many bytes of the body are JSON.
JSON_LENGTH = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"
EXTENSION = "binary_tensor_data"
SIZE = "binary_data_size"
_AXES_MAX = 32
_SHOWN_CHARS = 80
#: What JSON may hold for a type that is none of floats, and what that is called.
_TAKEN: dict[str, tuple[set[type], str]] = {
    "bool": ({bool, int}, "true or false"),
    STRING: ({str}, "texts"),
}
_INTEGERS: tuple[set[type], str] = ({int}, "integers")


class Entry(msgspec.Struct, frozen=True):
    """One tensor of a request or an answer; ``data`` is flat or nested, absent where binary."""

    name: str
    datatype: str = ""
    shape: list[int] = []
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class Described(msgspec.Struct, frozen=True):
    """A tensor of a model's metadata."""

    name: str
    datatype: str
    shape: list[int]

    def tensor(self) -> Tensor:
        """As ours.

        Raises:
            Reject: a type that we do not have.
        """
        return Tensor(self.name, our_type(self.name, self.datatype), tuple(self.shape))


class Metadata(msgspec.Struct, frozen=True):
    """``GET /v2/models/NAME``."""

    name: str
    inputs: list[Described]
    outputs: list[Described]
    versions: list[str] = []
    platform: str = ""


def our_type(name: str, datatype: str) -> str:
    """Our name of one of the protocol's types."""
    if datatype not in OURS:
        raise Reject(
            "models.datatype",
            f"tensor {_short(name)!r} is of type {_short(datatype)!r}",
            f"use one of {', '.join(OURS)}",
        )
    return OURS[datatype]


def encode(tensors: Mapping[str, Array], *, binary: bool) -> tuple[list[dict[str, Any]], bytes]:
    """Tensors as the JSON's list of them, and the bytes that follow the JSON, none if not binary.

    Half floats go as binary data in either case: the protocol has no JSON for them.
    """
    entries: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, array in tensors.items():
        kind = dtype_name(array)
        entry: dict[str, Any] = {
            "name": name,
            "datatype": DATATYPES[kind],
            "shape": list(array.shape),
        }
        if binary or kind == "float16":
            blobs.append(_bytes_of(array, kind))
            entry["parameters"] = {SIZE: len(blobs[-1])}
        elif kind == STRING:
            entry["data"] = [_text(one) for one in array.ravel().tolist()]
        else:
            entry["data"] = array.ravel().tolist()
        entries.append(entry)
    return entries, b"".join(blobs)


def decode(entries: Iterable[Entry], blob: bytes | memoryview) -> dict[str, Array]:
    """The tensors of a body, by name.

    Args:
        entries: of the JSON.
        blob: what follows the JSON.

    Raises:
        Reject: a type, a shape or a size that cannot be; bytes that nobody claims.
    """
    found: dict[str, Array] = {}
    rest = memoryview(blob)
    for entry in entries:
        size = entry.parameters.get(SIZE)
        if size is None:
            found[entry.name] = _from_json(entry)
            continue
        if type(size) is not int or not 0 <= size <= len(rest):
            raise _wrong(entry, f"says {SIZE} = {_short(size)}, {len(rest)} bytes are left")
        found[entry.name] = _from_bytes(entry, rest[:size])
        rest = rest[size:]
    if len(rest):
        why = f"{len(rest)} bytes follow the tensors"
        raise Reject("models.tensor", why, f"say {SIZE} of each tensor")
    return found


def split(body: bytes, json_length: str | None) -> tuple[memoryview, memoryview]:
    """A body's JSON and what follows it, by the header ``JSON_LENGTH``.

    Raises:
        Reject: the header is no number within the body.
    """
    view = memoryview(body)
    if json_length is None:
        return view, view[len(view) :]
    # A longer number is no size, and Python would not even read it.
    is_number = json_length.isascii() and json_length.isdigit() and len(json_length) <= 18
    if not is_number or (size := int(json_length)) > len(view):
        raise Reject(
            "models.tensor",
            f"{JSON_LENGTH} is {_short(json_length)!r}, the body has {len(view)} bytes",
            "send the length of the JSON",
        )
    return view[:size], view[size:]


def _from_json(entry: Entry) -> Array:
    kind = our_type(entry.name, entry.datatype)
    if entry.data is None:
        raise _wrong(entry, f"has neither data nor {SIZE}")
    try:
        return _shaped(entry, _array(_flat(entry.data), kind))
    except (ValueError, ArithmeticError) as error:
        raise _wrong(entry, str(error)) from None


def _array(flat: list[Any], kind: str) -> Array:
    """Values as an array; what the type cannot hold is an error, not another value."""
    if kind.startswith("float"):
        try:
            numbers = plain_array("d", flat)  # which takes no texts and no nulls, as NumPy does
        except TypeError:
            raise ValueError("has data that are not all numbers") from None
        with np.errstate(over="raise"):
            return np.asarray(numbers).astype(DTYPES[kind], copy=False)
    taken, named = _TAKEN.get(kind, _INTEGERS)
    if not taken.issuperset(map(type, flat)) or (kind == "bool" and not {0, 1}.issuperset(flat)):
        raise ValueError(f"has data that are not all {named}")
    return np.fromiter(flat, DTYPES[kind], len(flat))


def _from_bytes(entry: Entry, data: memoryview) -> Array:
    kind = our_type(entry.name, entry.datatype)
    if kind == STRING:
        texts = _texts(entry, data)
        array = np.empty(len(texts), object)
        array[:] = texts
        return _shaped(entry, array)
    dtype = np.dtype(DTYPES[kind]).newbyteorder("<")
    if len(data) % dtype.itemsize:
        raise _wrong(entry, f"has {len(data)} bytes, each number takes {dtype.itemsize}")
    native = np.frombuffer(data, dtype).astype(DTYPES[kind], copy=False)
    return _shaped(entry, native)


def _texts(entry: Entry, data: memoryview) -> list[str]:
    texts, at = [], 0
    while at < len(data):
        if at + 4 > len(data):
            raise _wrong(entry, "ends within a text's length")
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + size > len(data):
            raise _wrong(entry, f"ends within a text of {size} bytes")
        texts.append(_utf8(entry, bytes(data[at : at + size])))
        at += size
    return texts


def _shaped(entry: Entry, array: Array) -> Array:
    shape = entry.shape
    if len(shape) > _AXES_MAX:  # before they are multiplied
        raise _wrong(entry, f"has {len(shape)} axes, {_AXES_MAX} are the most")
    if any(size < 0 for size in shape) or prod(shape) != array.size:
        raise _wrong(entry, f"has shape {_short(shape)} and {array.size} values")
    try:
        return array.reshape(shape)
    except (ValueError, OverflowError):  # without values, and yet too large
        raise _wrong(entry, f"has shape {_short(shape)}, which is no array's") from None


def _flat(data: list[Any]) -> list[Any]:
    """Nested lists as one.

    Raises:
        ValueError: lists of one level differ in length, or stand beside values.
    """
    while data and isinstance(data[0], list):
        if any(type(part) is not list or len(part) != len(data[0]) for part in data):
            raise ValueError("has data whose lists are not alike")
        data = [one for part in data for one in part]
    return data


def _bytes_of(array: Array, kind: str) -> bytes:
    if kind == STRING:
        texts = [_text(one).encode() for one in array.ravel().tolist()]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    dtype = np.dtype(DTYPES[kind]).newbyteorder("<")
    return np.ascontiguousarray(array, dtype).tobytes()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _utf8(entry: Entry, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _wrong(entry, "has a text that is not UTF-8") from None


def _wrong(entry: Entry, why: str) -> Reject:
    what = f"tensor {_short(entry.name)!r} {why}"
    return Reject("models.tensor", what, "send the tensor as it is said")


def _short(said: Any) -> str:
    """What a stranger said, for a message: he may have said a lot."""
    return str(said)[:_SHOWN_CHARS]
