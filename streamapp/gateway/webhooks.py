"""``POST /webhooks/{source}``: deliveries of others' services, each proven by its signature.

A delivery is answered when the log has it.  Its id is the event's, so what a service sends again is
stored once.  The payload is the record's value byte for byte; one that is no event by itself (an
array, a ``text`` that is no text) is kept whole under the key ``data``.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from streamapp.core.errors import Refuse, Reject
from streamapp.gateway.body import defer_continue, media_type, read_body
from streamapp.gateway.budget import Budget
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.problem import ProblemError, json_response
from streamapp.gateway.reply import received
from streamapp.gateway.signatures import Headers
from streamapp.gateway.sources import Source
from streamapp.gateway.split import JSON, unknown_media
from streamapp.gateway.stamp import Stamped, stamp
from streamapp.gateway.trace import trace_headers

#: Not asked for the bearer token: a signature says who it is.
PATH = "/webhooks/{source}"
_FORM = "application/x-www-form-urlencoded"
#: A form writes a byte with three, and may have a few other fields.
_FORM_TIMES, _FORM_BYTES = 3, 4096
#: What strangers may hold, of what all requests may: a body is there before its signature fits.
_UNPROVEN_SHARE = 0.25
_GITHUB_EVENT = "X-GitHub-Event"
#: What the event's own fields cannot hold is still a payload.
_NO_EVENT = frozenset({"event.shape", "event.field", "event.time"})
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)


def routes(gateway: Gateway) -> list[web.RouteDef]:
    """The protocol's route.

    Raises:
        Refuse: ``webhook.topic`` a source names a topic that takes no events.
    """
    for source in gateway.config.webhooks.values():
        if source.topic not in gateway.targets:
            raise Refuse(
                "webhook.topic",
                f"[webhooks.{source.name}]: topic {source.topic!r} takes no events",
                f"name one of: {', '.join(sorted(gateway.targets))}",
            )
    return [web.post(PATH, Webhooks(gateway).receive, expect_handler=defer_continue)]


class Webhooks:
    """The handler."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._unproven = Budget(
            events_max=0, bytes_max=int(gateway.config.inflight_bytes_max * _UNPROVEN_SHARE)
        )

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """One delivery; 404 for a source that is not declared, before anything is read."""
        gateway = self._gateway
        source = gateway.config.webhooks.get(request.match_info["source"])
        if source is None:
            raise ProblemError(
                404,
                "webhook.source",
                "no such source of webhooks is declared here",
                "declare [webhooks.NAME] in streamapp.toml",
            )
        with gateway.budget.lease() as lease:
            body, identity = await self._proven(request, source)
            lease.take(events=1, nbytes=len(body))
            if source.kind == "github" and request.headers.get(_GITHUB_EVENT) == "ping":
                return json_response({"status": "pong", "id": identity})
            try:
                stamped = self._stamped(source, identity, _payload(request, body), request.headers)
                stamped = gateway.settled(gateway.target(source.topic), stamped)
            except Reject:
                gateway.delivery.rejected(1)
                raise
            (outcome,) = await gateway.delivery.send(source.topic, [stamped.record])
        return received(stamped, outcome)

    async def _proven(self, request: web.Request, source: Source) -> tuple[bytes, str]:
        """A body that its source signed, and the delivery's id."""
        gateway = self._gateway
        bytes_max = gateway.target(source.topic).event_bytes_max
        if media_type(request.headers.get("Content-Type", "")) == _FORM:
            bytes_max = _FORM_TIMES * bytes_max + _FORM_BYTES
        with self._unproven.lease() as lease:
            body = await read_body(request, gateway.config, lease, bytes_max)
            now_s = gateway.clock.now_us() / 1_000_000
            return body, source.verify(request.headers, body, source.keys, now_s)

    def _stamped(self, source: Source, identity: str, payload: bytes, headers: Headers) -> Stamped:
        members = _members_of(payload)
        kind = _kind(source, members, headers)
        attributes = {
            "id": identity or _required(members, "id"),
            "source": source.address,
            **({"type": source.type_prefix + kind} if kind else {}),
        }
        making: dict[str, Any] = {
            "source": source.address,
            "received_us": self._gateway.clock.now_us(),
            "bytes_max": self._gateway.target(source.topic).event_bytes_max,
            "attributes": attributes,
            "trace": trace_headers(headers),
        }
        try:
            return stamp(payload, **making)
        except Reject as error:
            if error.code not in _NO_EVENT:
                raise
            return stamp(b'{"data":' + payload + b"}", **making)


def _payload(request: web.Request, body: bytes) -> bytes:
    """The JSON in a body, which GitHub may send as a form's field ``payload``.

    Raises:
        ProblemError: 415 neither, 400 no such field.
    """
    media = media_type(request.headers.get("Content-Type", ""))
    if media in JSON or media.endswith("+json") or not media:
        return body
    if media != _FORM:
        raise unknown_media(media, f"application/json or {_FORM}")
    try:
        fields = parse_qs(
            body.decode("ascii"), strict_parsing=True, errors="strict", max_num_fields=8
        )
    except ValueError:
        fields = {}
    if len(fields.get("payload", ())) != 1:
        raise ProblemError(
            400, "webhook.form", "the form has no field payload", "send application/json"
        )
    return fields["payload"][0].encode()


def _members_of(payload: bytes) -> Mapping[str, msgspec.Raw]:
    """A payload's members, none when it is no object; ``stamp`` says what is wrong with it."""
    try:
        return _members.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return {}


def _kind(source: Source, members: Mapping[str, msgspec.Raw], headers: Headers) -> str:
    if source.kind == "github":
        event, action = headers.get(_GITHUB_EVENT, ""), _text(members, "action")
        if not event.isprintable():  # what is not UTF-8 is not
            raise ProblemError(
                400, "webhook.header", f"{_GITHUB_EVENT} is not printable", "send an event's name"
            )
        return f"{event}.{action}" if event and action else event
    return _text(members, source.type_field)


def _text(members: Mapping[str, msgspec.Raw], name: str) -> str:
    try:
        return _string.decode(members[name]) if name in members else ""
    except msgspec.DecodeError:
        return ""


def _required(members: Mapping[str, msgspec.Raw], name: str) -> str:
    text = _text(members, name)
    if not text:
        raise Reject("event.field", f"the payload has no {name}", "it is what tells repeats apart")
    return text
