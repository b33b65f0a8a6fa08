"""Our own protocol: ``POST /ingest`` for one event, ``POST /v1/events[/{topic}]`` for many.

``/v1/events`` takes JSON, NDJSON, an Arrow IPC stream and CloudEvents of every mode; ``/events`` is
another name for it.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import chain

from aiohttp import hdrs, web
from msgspec import UNSET

from streamapp.core.errors import Reject
from streamapp.gateway import arrow, plain
from streamapp.gateway.body import defer_continue, media_type, read_body
from streamapp.gateway.budget import Lease
from streamapp.gateway.cloudevents import (
    Mode,
    binary_attributes,
    handshake,
    mode_of,
    stamp_binary,
)
from streamapp.gateway.forms import FORM
from streamapp.gateway.gateway import Gateway, Target
from streamapp.gateway.idempotency import Bodies, idempotency_key
from streamapp.gateway.plain import Events, Outcome, Taken, tried
from streamapp.gateway.problem import ProblemError, json_response
from streamapp.gateway.reply import received
from streamapp.gateway.reports import Reports
from streamapp.gateway.split import JSON, split, split_batch, unknown_media
from streamapp.gateway.stamp import Stamped, stamp
from streamapp.gateway.trace import trace_headers
from streamapp.gateway.uploads import event_bytes, lighter_body
from streamapp.gateway.wire import Line, Lines
from streamapp.topics.catalogue import RAW

#: Events validated between two looks at other requests.
_EVENTS_PER_TURN = 128

_SOURCE_ONE, _SOURCE_MANY = "/ingest", "/v1/events"
_MANY = ("/events", "/v1/events", "/v1/events/{topic}")


def routes(gateway: Gateway) -> list[web.RouteDef]:
    """The protocol's routes."""
    native = Native(gateway)
    return [
        web.post("/ingest", native.ingest, expect_handler=defer_continue),
        *(web.post(path, native.events, expect_handler=defer_continue) for path in _MANY),
        *(web.options(path, handshake) for path in _MANY),
    ]


class Native:
    """The handlers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._bodies = Bodies()

    async def ingest(self, request: web.Request) -> web.StreamResponse:
        """One JSON object; answered when the log has it."""
        gateway = self._gateway
        headers = request.headers
        media = media_type(headers.get(hdrs.CONTENT_TYPE, ""))
        if media and media not in JSON and media != FORM:  # the ancestors' clients send none
            raise unknown_media(media, f"application/json or {FORM}")
        target = gateway.target(RAW)
        with gateway.budget.lease() as lease:
            body = await read_body(request, gateway.config, lease)
            lease.take(events=1)
            try:
                value = await event_bytes(gateway, media, request, body, lease)
                key = idempotency_key(headers)
                claim = self._bodies.check(_SOURCE_ONE, key, value, headers) if key else None
                stamped = stamp(
                    value,
                    source=_SOURCE_ONE,
                    received_us=gateway.clock.now_us(),
                    bytes_max=target.event_bytes_max,
                    id_if_none=key,
                    attributes=binary_attributes(headers, whole=False),
                    trace=trace_headers(headers),
                )
                stamped = gateway.settled(target, stamped)
            except Reject:
                gateway.delivery.rejected(1)
                raise
            if claim:
                claim.keep()
            (outcome,) = await gateway.delivery.send(target.name, [stamped.record])
        return received(stamped, outcome)

    async def events(self, request: web.Request) -> web.Response:
        """Many events, each with its outcome; ``?wait=accepted`` answers before the log does."""
        gateway = self._gateway
        target = gateway.target(request.match_info.get("topic", RAW))
        waits = _waits_for_ack(request)
        with gateway.budget.lease() as lease:
            body = await read_body(request, gateway.config, lease)
            lighter = await lighter_body(gateway, request, body, lease)
            key = idempotency_key(request.headers)
            claim = self._bodies.check(_SOURCE_MANY, key, lighter, request.headers) if key else None
            outcomes = self._outcomes(request, lighter, target, lease, key)
            reports = await self._reported(target, outcomes)
            gateway.delivery.rejected(reports.refused)
            if claim and reports.has_records:
                claim.keep()  # nothing is awaited from here until they are sent
            if waits:
                await reports.send(self._gateway.delivery, target.name)
            else:
                self._accept(target, reports, lease)
        return _answer(reports.lines, 200 if waits else 202)

    def _outcomes(
        self, request: web.Request, body: bytes, target: Target, lease: Lease, key: str | None
    ) -> Iterable[Taken] | Outcome:
        """Every event of a body, made when it is asked for, or the only one, which says no line.

        How depends on what the body is.

        Raises:
            ProblemError: the body as a whole is not taken.
        """
        headers, config = request.headers, self._gateway.config
        media = media_type(headers.get("Content-Type", ""))
        received_us, bytes_max = self._gateway.clock.now_us(), target.event_bytes_max
        making = plain.Making(_SOURCE_MANY, received_us, bytes_max, trace_headers(headers))
        if media == arrow.MEDIA:
            return arrow.groups(body, lease, making, config=config, id_prefix=key)
        mode = mode_of(headers, media)
        if mode is Mode.BATCH:
            pieces = split_batch(body, events_max=config.request_events_max)
        elif mode is not None:
            pieces = [(1, body)]
        else:
            media = "application/json" if media == FORM else media  # its event, by now
            pieces = split(body, media, events_max=config.request_events_max)
        lease.take(events=len(pieces))
        if mode is Mode.BINARY:
            one = partial(stamp_binary, plain.stamper(making), body, headers)
            return tried(lambda: self._gateway.settled(target, one()))
        making = making._replace(is_enveloped=mode is not None)
        return plain.groups(pieces, making, id_prefix=key)

    async def _reported(self, target: Target, outcomes: Iterable[Taken] | Outcome) -> Reports:
        """A report for every event, and the records of the good ones."""
        reports = Reports()
        if isinstance(outcomes, Stamped | Reject):
            reports.take_one(outcomes)
            return reports
        for taken in outcomes:
            reports.take(taken, await self._settled(target, taken.events))
            await asyncio.sleep(0)
        return reports

    async def _settled(self, target: Target, events: Events) -> dict[int, Outcome]:
        """What becomes of those events, by place, that do not go as they are."""
        found: dict[int, Outcome] = {}
        for count, (place, outcome) in enumerate(self._gateway.settlings(target, events), 1):
            if outcome is not None:
                found[place] = outcome
            if count % _EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)
        return found

    def _accept(self, target: Target, reports: Reports, lease: Lease) -> None:
        if sendings := [records for _, records in reports.sendings()]:
            records = sendings[0] if len(sendings) == 1 else list(chain(*sendings))
            self._gateway.delivery.accept(target.name, records, lease.hand_over())


def _answer(reports: list[Line], all_taken: int) -> web.Response:
    """The report of all events, with the status that sums it up."""
    counts = Counter(report.status for report in reports)
    rejected, dead_lettered = counts["rejected"], counts["dead-lettered"]
    accepted = len(reports) - rejected - dead_lettered
    lines = Lines(accepted, rejected, reports, dead_lettered or UNSET)
    if accepted == len(reports):
        return json_response(lines, all_taken)
    return json_response(lines, 400 if rejected == len(reports) else 207)


def _waits_for_ack(request: web.Request) -> bool:
    wait = request.query.get("wait", "ack")
    if wait not in {"ack", "accepted"}:
        raise ProblemError(
            400, "request.wait", f"wait={wait[:40]!r} is not known", "use ack or accepted"
        )
    return wait == "ack"
