"""Embedded formats: how a record's key and value stand in JSON, both ways."""

import binascii
from base64 import b64decode, b64encode
from typing import Any

import msgspec

from streamapp.gateway.confluent.errors import BAD_JSON, BAD_PAYLOAD, unprocessable

NULL = msgspec.Raw(b"null")
_text = msgspec.json.Decoder(str)
#: As records are taken: numbers of any size.
_json = msgspec.json.Decoder(msgspec.Raw)


def base64_of(text: str) -> bytes:
    """The bytes that a base64 text stands for.

    Raises:
        ValueError: with Confluent's words.
    """
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"data={_short(text)} is not a base64 string.") from None


def decode(raw: msgspec.Raw, format_: str, where: str) -> bytes | None:
    """A key or value as its bytes; None for null.

    Args:
        raw: as it stands in the request.
        format_: json (the bytes as they were sent), binary (base64) or text.
        where: what it is, for the error.

    Raises:
        ConfluentError: 42206, or 42203 for what is no JSON.
    """
    data = bytes(raw)
    if data == b"null":
        return None
    if format_ == "json":
        return data
    try:
        text = _text.decode(data)
    except msgspec.DecodeError:
        raise unprocessable(f"{where} is not a string, which {format_} asks for", 42206) from None
    if format_ == "text":
        return text.encode()
    try:
        return base64_of(text)
    except ValueError as error:
        raise unprocessable(f"{where}: {error}", BAD_PAYLOAD) from None


def encode(data: bytes | None, format_: str, what: str = "value") -> Any:
    """Bytes of the log as they stand in an answer; ``what`` they are, for the error.

    Raises:
        ConfluentError: 42203 json asked of what is none.
    """
    if data is None:
        return None
    if format_ == "binary":
        return b64encode(data).decode()
    if format_ == "text":
        return data.decode(errors="replace")
    try:
        data.decode()
        _json.decode(data)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        raise unprocessable(
            f"Conversion of a record's {what} to JSON failed: it is none (consume it as binary)",
            BAD_JSON,
        ) from None
    return msgspec.Raw(data)


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "..."
