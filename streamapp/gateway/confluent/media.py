"""Confluent's media types: which embedded format a body has, and which answer a client takes."""

from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from streamapp.gateway.body import media_type
from streamapp.gateway.confluent.errors import WRONG_FORMAT, ConfluentError
from streamapp.gateway.problem import SERVER

V2 = "application/vnd.kafka.v2+json"
JSON = "application/json"
#: Embedded formats we speak; Avro, Protobuf and JSON Schema need a schema registry.
FORMATS = ("json", "binary", "text")
#: Types that name no embedded format, with the one they mean in a produce request.  v1's default
#: was binary; in v2 Karapace takes JSON, and so do we.
_PLAIN = {
    "": "json",
    JSON: "json",
    V2: "json",
    "application/vnd.kafka+json": "binary",
    "application/vnd.kafka.v1+json": "binary",
}
_EMBEDDED = {
    f"application/vnd.kafka.{name}.{version}+json": name
    for name in FORMATS
    for version in ("v2", "v1")
} | {f"application/vnd.kafka.{name}+json": name for name in FORMATS}
_ANY = {"*/*", "application/*"}
_encode = msgspec.json.Encoder().encode


class Accepted(NamedTuple):
    """What a client takes: the answer's media type, and the embedded format if it names one."""

    media: str
    format: str | None


def format_of(request: web.Request) -> str:
    """The embedded format of a produce request.

    Raises:
        ConfluentError: 415.
    """
    media = media_type(request.headers.get("Content-Type", ""))
    found = _EMBEDDED.get(media) or _PLAIN.get(media)
    if found is None:
        raise ConfluentError(
            415,
            f"HTTP 415 Unsupported Media Type: {media[:80]!r}"
            f" (send application/vnd.kafka.{{{'|'.join(FORMATS)}}}.v2+json)",
        )
    return found


def accepted(request: web.Request) -> Accepted:
    """What the client takes.

    Raises:
        ConfluentError: 406.
    """
    return _accepted(", ".join(request.headers.getall("Accept", [])))


def json_accepted(request: web.Request) -> None:
    """Refuse, 406, who does not take application/json (v3)."""
    header = ", ".join(request.headers.getall("Accept", []))
    if header and not any(media == JSON or media in _ANY for media in _wanted(header)):
        raise _not_acceptable(header, JSON)


def answer(body: Any, request: web.Request, status: int = 200) -> web.Response:
    """A v2 answer in the type that the client takes."""
    headers = {**SERVER, "Content-Type": accepted(request).media}
    return web.Response(status=status, body=_encode(body), headers=headers)


@lru_cache(maxsize=256)
def _accepted(header: str) -> Accepted:
    if not header.strip():
        return Accepted(V2, None)
    for media in _wanted(header):
        if media in _ANY:
            return Accepted(V2, None)
        if media in _PLAIN:
            return Accepted(media, None)
        if media in _EMBEDDED:
            return Accepted(media, _EMBEDDED[media])
    raise _not_acceptable(header, V2)


def agreed_format(request: web.Request, of_instance: str) -> Accepted:
    """What the client takes of a consumer instance.

    Raises:
        ConfluentError: 40601 another format than the instance's, 406.
    """
    try:
        found = accepted(request)
    except ConfluentError:
        found = Accepted(V2, "another")
    if found.format not in {None, of_instance}:
        raise ConfluentError(
            WRONG_FORMAT,
            "The requested embedded data format does not match the deserializer for this consumer"
            " instance",
        )
    return found


def _wanted(header: str) -> list[str]:
    """Media types that a client takes, the dearest first; of equals the one named first."""
    found: list[tuple[float, str]] = []
    for part in header.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        if media and quality > 0:
            found.append((-quality, media))
    return [media for _, media in sorted(found, key=lambda pair: pair[0])]


def _not_acceptable(header: str, known: str) -> ConfluentError:
    return ConfluentError(406, f"HTTP 406 Not Acceptable: {header[:80]!r} (accept {known})")
