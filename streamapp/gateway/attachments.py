"""Attachments: large ones are kept by themselves, and the event refers to them.

``POST /v1/attachments`` keeps one and says what to write into an event.  An event that holds one in
base64, and a form with an event and files, are rewritten so.  Small ones stay in the event.
"""

import asyncio
import binascii
import logging
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from streamapp.core.clock import Clock
from streamapp.core.errors import Halt, Refuse, Reject, Retry
from streamapp.gateway import forms
from streamapp.gateway.blobs import Blobs, open_blobs
from streamapp.gateway.problem import RETRY_AFTER, ProblemError
from streamapp.gateway.split import ARRAY_COMMAS_MAX

#: Content above this many bytes is kept by itself.
INLINE_BYTES_MAX = 512 << 10
_URL = "/v1/attachments/"
_MEDIA = re.compile(r"[\w.+-]{1,127}/[\w.+-]{1,127}(;[ -~]{0,200})?", re.ASCII)
_DEFAULT_MEDIA = "application/octet-stream"
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=-]+)*;base64,", re.ASCII)
#: Members of an attachment that may hold its content.
_CODED = ("data_base64", "data")
_USED_ASKED_EVERY_S = 60.0
#: Texts that may be large content, before anything is decoded; base64 has no quotes.
_LARGE_TEXT = re.compile(rb'"[^"]{%d,}"' % (INLINE_BYTES_MAX * 4 // 3))
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_elements = msgspec.json.Decoder(list[msgspec.Raw])
_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("streamapp.gateway")


class Reference(msgspec.Struct):
    """What an event says of an attachment that is kept by itself."""

    sha256: str
    bytes: int
    content_type: str
    url: str


def attachments_of(
    url: str, bytes_max: int, clock: Clock, *, event_bytes_max: int
) -> "Attachments | None":
    """Where a gateway keeps attachments; None when ``url`` is empty.

    Raises:
        Refuse: as :func:`blobs.open_blobs`.
    """
    if not url:
        return None
    return Attachments(open_blobs(url), bytes_max, clock, event_bytes_max=event_bytes_max)


class Attachments:
    """Keeps attachments; what touches the disk runs in threads.

    Args:
        blobs: where.
        bytes_max: of all together; 0: no limit.
        clock: for how often the room is measured.
        event_bytes_max: an event with more beside its large attachments stays as it is.
    """

    def __init__(self, blobs: Blobs, bytes_max: int, clock: Clock, *, event_bytes_max: int) -> None:
        self._blobs = blobs
        self._bytes_max = bytes_max
        self._clock = clock
        self._event_bytes_max = event_bytes_max
        self._used = 0
        self._asked_s = float("-inf")

    async def keep(self, data: bytes, media: str) -> Reference:
        """Keep content, durably.

        Raises:
            ProblemError: 507 there is no room, 503 the store does not answer.
        """
        try:
            await self._require_room(len(data))
            digest = await asyncio.to_thread(self._blobs.put, data)
        except Refuse as error:
            _log.error("%s", error)  # no path for the client
            raise ProblemError(
                507, error.code, "there is no room for attachments", "tell its operator"
            ) from None
        except Retry as error:
            raise _unreachable(error) from None
        self._used += len(data)
        kind = media if _MEDIA.fullmatch(media) else _DEFAULT_MEDIA
        return Reference(digest, len(data), kind, _URL + digest)

    async def read(self, digest: str) -> bytes | None:
        """Content that is kept; None when it is not.

        Raises:
            ProblemError: 503, 500 it is not what it was, which is no reason to end.
        """
        try:
            return await asyncio.to_thread(self._blobs.read, digest)
        except Halt as error:
            _log.critical("%s", error)
            raise ProblemError(
                500, error.code, "the attachment is damaged", "send its content again"
            ) from None
        except Retry as error:
            raise _unreachable(error) from None

    async def lightened(self, value: bytes) -> bytes:
        """An event's JSON with its large attachments kept, and referred to; else as it was.

        Raises:
            Reject: ``event.attachment`` a large one that is not base64.
            ProblemError: as :meth:`keep`.
        """
        if len(value) <= INLINE_BYTES_MAX or b'"attachments"' not in value:
            return value
        large = sum(found.end() - found.start() for found in _LARGE_TEXT.finditer(value))
        if not large or len(value) - large > self._event_bytes_max:
            return value  # nothing to do, or too large anyway: not worth being decoded
        try:
            raw = _members.decode(value).get("attachments")
            found = msgspec.json.decode(raw) if raw is not None else None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return value  # whoever reads the event says what is wrong with it
        items = found if isinstance(found, list) else [found]
        changed = False
        for number, item in enumerate(items):
            if isinstance(item, dict) and (coded := _large(item)) is not None:
                items[number] = await self._referred(item, coded, number)
                changed = True
        if not changed or raw is None:
            return value
        before, _, after = value.partition(bytes(raw))
        return before + _encode(items if isinstance(found, list) else items[0]) + after

    async def lightened_all(self, body: bytes, *, lines: bool) -> bytes:
        """The same of many events, in lines or a JSON array; what cannot be read stays as it is.

        Raises:
            ProblemError: as :meth:`keep`.
        """
        if not lines and not body.lstrip().startswith(b"["):
            return await self._tried(body)
        separators = body.count(b"\n" if lines else b",")
        if separators > ARRAY_COMMAS_MAX or not _LARGE_TEXT.search(body):
            return body
        try:
            values = body.split(b"\n") if lines else [bytes(one) for one in _elements.decode(body)]
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return body
        if max(map(len, values), default=0) <= INLINE_BYTES_MAX:
            return body
        lighter = [await self._tried(value) for value in values]
        return b"\n".join(lighter) if lines else b"[%b]" % b",".join(lighter)

    async def from_form(self, content_type: str, body: bytes) -> bytes:
        """The event of a form: field ``event``, with the other fields as its attachments.

        Raises:
            ProblemError: 400 ``request.form``, or as :meth:`keep`.
        """
        parts = forms.parts_of(content_type, body)
        events = [part.content for part in parts if part.name == "event"]
        files = [part for part in parts if part.name != "event"]
        value = events[0].strip() if len(events) == 1 else b""
        if not (value.startswith(b"{") and value.endswith(b"}")):
            raise ProblemError(
                400,
                "request.form",
                f"the form has {len(events)} fields called event, or it is no JSON object",
                "send one, with a JSON object in it; the other fields are attachments",
            )
        if not files:
            return value
        if b'"attachments"' in value:
            raise ProblemError(
                400, "request.form", "the form's event has attachments, too", "send only files"
            )
        listed = _encode([await self._filed(part) for part in files])
        rest = value[:-1].rstrip()
        comma = b"" if rest == b"{" else b","
        return b"%b%b%b%b}" % (rest, comma, b'"attachments":', listed)

    async def _tried(self, value: bytes) -> bytes:
        try:
            return await self.lightened(value)
        except Reject:
            return value

    async def _filed(self, part: forms.Part) -> Mapping[str, Any]:
        named = {"name": part.filename or part.name}
        if len(part.content) > INLINE_BYTES_MAX:
            return {**named, **msgspec.structs.asdict(await self.keep(part.content, part.media))}
        media = part.media if _MEDIA.fullmatch(part.media) else _DEFAULT_MEDIA
        return {**named, "content_type": media, "data_base64": part.content}

    async def _referred(self, item: dict[str, Any], name: str, number: int) -> dict[str, Any]:
        text = item[name]
        said = _DATA_URL.match(text)
        try:
            data = binascii.a2b_base64(text[said.end() if said else 0 :], strict_mode=True)
        except ValueError as error:
            raise Reject(
                "event.attachment",
                f"attachments[{number}].{name}: {error}",
                "see RFC 4648, section 4",
            ) from None
        media = item.get("content_type") or (said and said[1]) or ""
        kept = await self.keep(data, media if isinstance(media, str) else "")
        others = {key: value for key, value in item.items() if key != name}
        return {**others, **msgspec.structs.asdict(kept)}

    async def _require_room(self, size: int) -> None:
        if not (most := self._bytes_max):
            return
        if self._clock.monotonic_s() - self._asked_s > _USED_ASKED_EVERY_S:
            found = await asyncio.to_thread(self._blobs.all)
            self._used = sum(blob.size for blob in found)
            self._asked_s = self._clock.monotonic_s()
        if self._used + size > most:
            raise Refuse(
                "attachment.full",
                f"attachments have {self._used:,} of {most:,} bytes, {size:,} more do not fit",
                "sweep (`streamapp attachments sweep`), or raise STREAMAPP_ATTACHMENTS_BYTES_MAX",
            )


def _large(item: dict[str, Any]) -> str | None:
    """Which member of an attachment holds large content in base64."""
    for name in _CODED:
        text = item.get(name)
        if isinstance(text, str) and len(text) * 3 // 4 > INLINE_BYTES_MAX:
            return name
    return None


def _unreachable(error: Retry) -> ProblemError:
    _log.error("%s", error)
    what = "attachments cannot be kept or read now"
    return ProblemError(503, error.code, what, "send it again", RETRY_AFTER)
