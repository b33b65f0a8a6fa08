"""CloudEvents 1.0 over HTTP: binary, structured and batch mode, and the delivery handshake.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md

Whatever the mode, the record is what binary mode of the Kafka binding would have: the data as
value, the attributes as ``ce_*`` headers.  One thing differs: an event without data has ``{}`` as
its value, for a null would be a tombstone, and nobody's event.
"""

import enum
import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

import msgspec
from aiohttp import web
from multidict import CIMultiDictProxy, istr

from streamapp.core.errors import Reject
from streamapp.core.event import open_envelope
from streamapp.core.slice import Headers
from streamapp.gateway.idempotency import unquoted
from streamapp.gateway.problem import SERVER, ProblemError
from streamapp.gateway.split import unknown_media
from streamapp.gateway.stamp import Stamped, is_clean, too_large

StampOne = Callable[..., Stamped]
REQUIRED = ("specversion", "id", "source", "type")
_PREFIX = "ce-"
_HEADERS = tuple(istr(_PREFIX + name) for name in REQUIRED)
RECORD_PREFIX = "ce_"
_STRUCTURED, _BATCH = "application/cloudevents", "application/cloudevents-batch"
_NAME = re.compile(r"[a-z0-9]{1,64}")
#: A DNS name with an optional port (http-webhook, section 4.1.1).
_ORIGIN = re.compile(r"[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?")
_value = msgspec.json.Decoder(str | bool | int | None)
_text = msgspec.json.Decoder(str | None)
#: What an Integer may be (core specification, section 3.1).
INTEGERS = range(-(1 << 31), 1 << 31)
_ATTRIBUTES_BYTES_MAX = 64 << 10
_NO_DATA = b"{}"


class Mode(enum.Enum):
    """How a request carries CloudEvents."""

    BINARY = enum.auto()
    STRUCTURED = enum.auto()
    BATCH = enum.auto()


def mode_of(headers: CIMultiDictProxy[str], media: str) -> Mode | None:
    """The mode of a request, None when it carries no CloudEvents; the media type counts first.

    Raises:
        ProblemError: 415 CloudEvents, or their data, in another format than JSON.
    """
    kind, _, event_format = media.partition("+")
    if kind in {_STRUCTURED, _BATCH}:
        if event_format not in {"", "json"}:
            raise ProblemError(
                415,
                "request.content_type",
                f"CloudEvents format {event_format[:40]!r} is not known",
                f"send {kind}+json",
            )
        return Mode.BATCH if kind == _BATCH else Mode.STRUCTURED
    if not _has_any(headers):
        return None
    if not _is_json(headers.get("Content-Type", "")):
        raise unknown_media(media, "application/json for the data of this topic's events")
    return Mode.BINARY


def _has_any(headers: CIMultiDictProxy[str]) -> bool:
    for name in _HEADERS:  # noqa: SIM110  # any() takes four times as long, for every event
        if name in headers:
            return True
    return False


def binary_attributes(headers: CIMultiDictProxy[str], *, whole: bool) -> dict[str, str] | None:
    """The ``ce-*`` headers without prefix, decoded (HTTP binding 3.1.3); None for no CloudEvent.

    Args:
        headers: of the request.
        whole: refuse an event that lacks a required attribute.

    Raises:
        Reject: ``event.specversion``, ``event.header``, ``event.attribute``.
    """
    if not whole and not _has_any(headers):
        return None
    attributes: dict[str, str] = {}
    for header, value in headers.items():
        name = header.lower()
        if name.startswith(_PREFIX):
            name = _attribute_name(name.removeprefix(_PREFIX))
            if name == "datacontenttype":
                raise Reject(
                    "event.header",
                    "ce-datacontenttype must not be sent",
                    "say it in Content-Type (CloudEvents HTTP 3.1.1)",
                )
            if name in attributes:
                raise Reject("event.header", f"ce-{name} comes twice", "send it once")
            attributes[name] = _decoded(name, value)
    return _checked(attributes, whole=whole)


def record_attributes(headers: Headers) -> dict[str, str] | None:
    """The ``ce_*`` headers of a Kafka record without prefix (Kafka binding 3.2); None without any.

    One that says no version is of ours.

    Raises:
        Reject: ``event.specversion``, ``event.header``, ``event.attribute``.
    """
    attributes: dict[str, str] = {}
    for header, value in headers:
        if header.startswith(RECORD_PREFIX):
            name = _attribute_name(header.removeprefix(RECORD_PREFIX))
            if name in attributes:
                raise Reject("event.header", f"{header} comes twice", "send it once")
            try:
                attributes[name] = value.decode()
            except UnicodeDecodeError:
                raise Reject("event.header", f"{header} is not UTF-8", "encode it so") from None
    return _checked({"specversion": "1.0"} | attributes, whole=False) if attributes else None


def stamp_binary(one: StampOne, body: bytes, headers: CIMultiDictProxy[str]) -> Stamped:
    """The record of an event in binary mode, by ``stamp.stamp`` with its other arguments bound.

    Raises:
        Reject: as ``stamp`` and :func:`binary_attributes` do.
    """
    attributes = binary_attributes(headers, whole=True)
    if not body:
        return one(_NO_DATA, attributes=attributes)
    return one(body, attributes=attributes, content_type=headers.get("Content-Type", ""))


def stamp_envelope(one: StampOne, value: bytes, bytes_max: int) -> Stamped:
    """The record of an event in structured mode, the same that binary mode makes of it.

    ``bytes_max`` is of the data; base64 and the attributes may add to it.

    Raises:
        Reject: as ``stamp`` does, and ``event.specversion``, ``event.attribute``,
            ``event.datacontenttype``.
    """
    if len(value) > bytes_max * 4 // 3 + _ATTRIBUTES_BYTES_MAX:
        raise too_large(value, bytes_max)
    members, data = open_envelope(value)
    said = {
        _attribute_name(name): _json_text(name, raw)
        for name, raw in members.items()
        if name not in {"data", "data_base64"}
    }
    attributes = _checked(
        {name: text for name, text in said.items() if text is not None}, whole=True
    )
    content_type = attributes.pop("datacontenttype", "")
    if not _is_json(content_type):
        raise Reject(
            "event.datacontenttype",
            f"the event's data is {content_type[:80]!r}",
            "this topic takes JSON objects: send application/json",
        )
    return one(data, attributes=attributes, content_type=content_type)


async def handshake(request: web.Request) -> web.Response:
    """``OPTIONS``: whoever asks may deliver, as fast as it likes; 429 says when that is too fast.

    Asked without a token: deliveries need it, and the permission says no more than that we are one
    who expects them.  It is given at once, so ``WebHook-Request-Callback`` is never called.
    """
    headers = {**SERVER, "Allow": "OPTIONS, POST"}
    origin = request.headers.get("WebHook-Request-Origin")
    if origin is not None:
        if not _ORIGIN.fullmatch(origin):
            raise ProblemError(
                400,
                "request.webhook_origin",
                "WebHook-Request-Origin is no DNS name",
                'send one like "eventemitter.example.com"',
            )
        headers["WebHook-Allowed-Origin"] = origin
        if "WebHook-Request-Rate" in request.headers:
            headers["WebHook-Allowed-Rate"] = "*"
    return web.Response(headers=headers)


def _checked(attributes: dict[str, str], *, whole: bool) -> dict[str, str]:
    version = attributes.get("specversion", "")
    if version != "1.0" and (version or not whole):
        raise Reject("event.specversion", f"specversion is {version[:20]!r}", "send 1.0")
    if whole:
        missing = [name for name in REQUIRED if not attributes.get(name)]
        if missing:
            raise Reject(
                "event.attribute",
                f"a CloudEvent without {', '.join(missing)}",
                f"{', '.join(REQUIRED)} are required (CloudEvents 1.0, section 3)",
            )
    for name, text in attributes.items():
        if not is_clean(text):
            raise Reject(
                "event.attribute",
                f"attribute {name} has a control character or a noncharacter",
                "leave it out (CloudEvents 1.0, section 3.1)",
            )
    return {name: text for name, text in attributes.items() if text}


def _attribute_name(name: str) -> str:
    if name in {"data", "data_base64"} or not _NAME.fullmatch(name):
        raise Reject(
            "event.attribute",
            f"{name[:64]!r} is no attribute's name",
            "use a-z and 0-9 only (CloudEvents 1.0, section 3.1)",
        )
    return name


def _decoded(name: str, value: str) -> str:
    """Unquoted, then percent-decoded once (HTTP binding 3.1.3.2)."""
    try:
        return unquote_to_bytes(unquoted(value)).decode()
    except UnicodeError:
        raise Reject(
            "event.header",
            f"ce-{name} is not UTF-8 after percent-decoding",
            "see CloudEvents HTTP 3.1.3.2",
        ) from None


def _json_text(name: str, raw: msgspec.Raw) -> str | None:
    """An attribute's canonical text (core specification, section 3.1)."""
    try:
        if name in REQUIRED:
            text: str | None = _text.decode(raw)
            return text
        value = _value.decode(raw)
    except msgspec.DecodeError:
        kinds = "a string" if name in REQUIRED else "a string, an integer or a boolean"
        raise Reject(
            "event.attribute", f"attribute {name} is not {kinds}", f"make it {kinds}"
        ) from None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value not in INTEGERS:
        raise Reject(
            "event.attribute",
            f"attribute {name} is {str(value)[:40]}, no integer of 32 bits",
            "send it as a string (CloudEvents 1.0, section 3.1)",
        )
    return None if value is None else str(value)


def _is_json(content_type: str) -> bool:
    """True for what may be a record's content type: JSON, and no event within the event."""
    media = content_type.partition(";")[0].strip().lower()
    kind, _, suffix = media.rpartition("/")[2].rpartition("+")
    is_text = content_type.isascii() and content_type.isprintable()
    return is_text and suffix in {"", "json"} and not kind.startswith("cloudevents")
