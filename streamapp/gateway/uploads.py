"""``POST /v1/attachments``, ``GET /v1/attachments/{sha256}``, and bodies with attachments in them.

Content is answered as bytes to be saved: whoever sent it does not decide what a browser does with
it.
"""

from aiohttp import hdrs, web

from streamapp.gateway.attachments import INLINE_BYTES_MAX, Attachments
from streamapp.gateway.blobs import DIGEST
from streamapp.gateway.body import defer_continue, media_type, read_body
from streamapp.gateway.budget import Budget, Lease
from streamapp.gateway.connections import write_answer
from streamapp.gateway.forms import FORM
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.problem import SERVER, ProblemError, json_response
from streamapp.gateway.split import JSON, LINES

PATH = "/v1/attachments"
#: Of the bytes that all requests may hold: answers that their readers have not read.
_UNREAD_SHARE = 0.25
_KEPT = {
    **SERVER,
    hdrs.CONTENT_TYPE: "application/octet-stream",
    hdrs.CONTENT_DISPOSITION: "attachment",
    hdrs.CACHE_CONTROL: "private, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


def routes(gateway: Gateway) -> list[web.RouteDef]:
    """The protocol's routes."""
    uploads = Uploads(gateway)
    return [
        web.post(PATH, uploads.keep, expect_handler=defer_continue),
        web.get(f"{PATH}/{{sha256}}", uploads.content),
    ]


async def event_bytes(
    gateway: Gateway, media: str, request: web.Request, body: bytes, lease: Lease
) -> bytes:
    """One event's JSON out of a body: a form's event, and large attachments only referred to.

    Raises:
        Reject: ``event.attachment`` a large one that is not base64.
        ProblemError: 400 a form that cannot be read, 415 a form where none is taken, 503, 507, 429.
    """
    attachments = gateway.attachments
    if media == FORM:
        lease.take(nbytes=len(body))
        return await _required(gateway).from_form(request.headers[hdrs.CONTENT_TYPE], body)
    if attachments is None or len(body) <= INLINE_BYTES_MAX:
        return body
    lease.take(nbytes=len(body))
    return await attachments.lightened(body)


async def lighter_body(gateway: Gateway, request: web.Request, body: bytes, lease: Lease) -> bytes:
    """A body of many events with their large attachments only referred to, or a form's event.

    One that is not base64 stays where it is, and the limit of an event holds for it.

    Raises:
        ProblemError: as :func:`event_bytes`.
    """
    media = media_type(request.headers.get(hdrs.CONTENT_TYPE, ""))
    if media == FORM:
        return await event_bytes(gateway, media, request, body, lease)
    if gateway.attachments is None or len(body) <= INLINE_BYTES_MAX or media not in JSON | LINES:
        return body
    if b'"attachments"' not in body:
        return body
    lease.take(nbytes=len(body))
    return await gateway.attachments.lightened_all(body, lines=media in LINES)


class Uploads:
    """The handlers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        # Who does not read must not hold what requests need.
        nbytes = int(gateway.config.inflight_bytes_max * _UNREAD_SHARE)
        self._unread = Budget(events_max=0, bytes_max=nbytes)

    async def keep(self, request: web.Request) -> web.Response:
        """Keep a body; 201 with what to write into an event."""
        attachments = _required(self._gateway)
        with self._gateway.budget.lease() as lease:
            body = await read_body(request, self._gateway.config, lease)
            if not body:
                raise ProblemError(
                    400, "attachment.empty", "the body is empty", "send the attachment's bytes"
                )
            kept = await attachments.keep(body, request.headers.get(hdrs.CONTENT_TYPE, ""))
        answer = json_response(kept, 201)
        answer.headers[hdrs.LOCATION] = kept.url
        return answer

    async def content(self, request: web.Request) -> web.Response:
        """The bytes of one."""
        digest = request.match_info["sha256"]
        tag = f'"{digest}"'
        if not DIGEST.fullmatch(digest):
            raise _missing("the name of an attachment is 64 hexadecimal digits, in lower case")
        attachments = _required(self._gateway)
        with self._gateway.budget.lease() as lease:
            lease.take(nbytes=self._gateway.config.body_bytes_max)  # it is no larger
            data = await attachments.read(digest)
        if data is None:
            raise _missing("there is no such attachment, or not any more")
        headers = {**_KEPT, hdrs.ETAG: tag}
        if tag in [one.strip() for one in request.headers.get("If-None-Match", "").split(",")]:
            return web.Response(status=304, headers=headers)
        with self._unread.lease() as lease:
            lease.take(nbytes=len(data))
            response = web.Response(body=data, headers=headers)
            await write_answer(request, response, self._gateway.config.answer_s_max)
        return response


def _required(gateway: Gateway) -> Attachments:
    if gateway.attachments is None:
        raise ProblemError(
            415, "attachment.none", "this gateway keeps no attachments", "set STREAMAPP_HOME"
        )
    return gateway.attachments


def _missing(what: str) -> ProblemError:
    return ProblemError(404, "attachment.unknown", what, "send it again")
