"""Flight SQL's messages: a protobuf codec of the two wire types they use, and their Any wrapper.

https://protobuf.dev/programming-guides/encoding/ and FlightSql.proto of Apache Arrow.  The messages
are a few strings each, so this replaces a dependency on protobuf and its generated code.
"""

from collections.abc import Iterator

from streamapp.core.errors import Refuse

TYPE_URL = b"type.googleapis.com/arrow.flight.protocol.sql."

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}

#: Field number to its values in order: int for varints, bytes for everything else.
Message = dict[int, list[int | bytes]]


def bearer(token: str) -> bytes:
    """The value of the ``authorization`` header.

    Raises:
        Refuse: gRPC sends no such characters in a header.
    """
    if not (token.isascii() and token.isprintable()):
        raise Refuse(
            "flight.token",
            "the token has characters that are not printable ASCII",
            "use letters and digits, such as `openssl rand -hex 32` gives",
        )
    return b"Bearer " + token.encode()


def encode(*fields: tuple[int, int | str | bytes | None]) -> bytes:
    """A message of (number, value) pairs; None is left out."""
    out = bytearray()
    for number, value in fields:
        if value is None:
            continue
        if isinstance(value, int):
            out += _varint(number << 3 | _VARINT) + _varint(value)
        else:
            content = value.encode() if isinstance(value, str) else value
            out += _varint(number << 3 | _BYTES) + _varint(len(content)) + content
    return bytes(out)


def decode(content: bytes) -> Message:
    """The fields of a message.

    Raises:
        Refuse: it is cut short, or has a wire type that no message of ours has.
    """
    message: Message = {}
    at = 0
    while at < len(content):
        key, at = _read_varint(content, at)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if kind == _VARINT:
            value, at = _read_varint(content, at)
        else:
            if kind == _BYTES:
                size, at = _read_varint(content, at)
            elif kind in _FIXED_SIZES:
                size = _FIXED_SIZES[kind]
            else:
                raise _malformed()
            value, at = content[at : at + size], at + size
            if at > len(content):
                raise _malformed()
        message.setdefault(number, []).append(value)
    return message


def pack(name: str, *fields: tuple[int, int | str | bytes | None]) -> bytes:
    """The Flight SQL message ``name`` in an Any."""
    return encode((1, TYPE_URL + name.encode()), (2, encode(*fields)))


def unpack(content: bytes) -> tuple[str, Message] | None:
    """(name, fields) when the bytes are a Flight SQL message in an Any, else None."""
    try:
        wrapped = decode(content)
        url = first_bytes(wrapped, 1)
        if url is None or not url.startswith(TYPE_URL):
            return None
        return url[len(TYPE_URL) :].decode(), decode(first_bytes(wrapped, 2) or b"")
    except (Refuse, UnicodeDecodeError):  # bytes that are no protobuf
        return None


def first_bytes(message: Message, number: int) -> bytes | None:
    """The first value of a bytes field; None when the message has none."""
    values = message.get(number)
    return values[0] if values and isinstance(values[0], bytes) else None


def first_text(message: Message, number: int) -> str | None:
    """The first value of a string field; None when the message has none.

    Raises:
        Refuse: it is not UTF-8.
    """
    value = first_bytes(message, number)
    return None if value is None else text(value)


def texts(message: Message, number: int) -> list[str]:
    """All values of a repeated string field.

    Raises:
        Refuse: one is not UTF-8.
    """
    return [text(value) for value in message.get(number, []) if isinstance(value, bytes)]


def flag(message: Message, number: int) -> bool:
    """A bool field; false when the message has none."""
    return bool(message.get(number, [0])[0])


def numbers(message: Message, number: int) -> list[int]:
    """All values of a repeated unsigned field, whether packed or not.

    Raises:
        Refuse: what is packed is cut short.
    """
    found: list[int] = []
    for value in message.get(number, []):
        found.extend([value] if isinstance(value, int) else _packed(value))
    return found


def text(content: bytes) -> str:
    """What a client sent as text.

    Raises:
        Refuse: it is not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise _malformed() from None


def signed32(value: int) -> int:
    """An int32 as its varint came."""
    low = value & 0xFFFFFFFF
    return low - (1 << 32) if low >= 1 << 31 else low


def _malformed() -> Refuse:
    return Refuse("flight.message", "the message is not one of Flight SQL, nor SQL text")


def _packed(content: bytes) -> Iterator[int]:
    at = 0
    while at < len(content):
        value, at = _read_varint(content, at)
        yield value


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers are their two's complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _malformed()
