"""Our own protocol: ``POST /ingest`` for one event, ``POST /v1/events[/{topic}]`` for many.

``/v1/events`` takes JSON, NDJSON, an Arrow IPC stream and CloudEvents of every mode; ``/events`` is
another name for it.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from aiohttp import web

from streamapp.core.errors import Reject
from streamapp.gateway import arrow
from streamapp.gateway.body import defer_continue, media_type, read_body
from streamapp.gateway.budget import Lease
from streamapp.gateway.cloudevents import (
    Mode,
    binary_attributes,
    handshake,
    mode_of,
    stamp_binary,
    stamp_envelope,
)
from streamapp.gateway.gateway import Gateway, Target
from streamapp.gateway.idempotency import Bodies, idempotency_key
from streamapp.gateway.problem import ProblemError, json_response
from streamapp.gateway.split import JSON, split, split_batch, unknown_media
from streamapp.gateway.stamp import Stamped, stamp
from streamapp.gateway.trace import trace_headers
from streamapp.topics.catalogue import RAW
from streamapp.transport.clients import Address

#: Events validated between two looks at other requests.
_EVENTS_PER_TURN = 128

_SOURCE_ONE, _SOURCE_MANY = "/ingest", "/v1/events"
_MANY = ("/events", "/v1/events", "/v1/events/{topic}")

Report = dict[str, Any]
#: (line, its record or why it has none) of every event of a body.
Outcomes = Iterable[tuple[int, Stamped | Reject]]


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

    async def ingest(self, request: web.Request) -> web.Response:
        """One JSON object; answered when the log has it."""
        gateway = self._gateway
        headers = request.headers
        media = media_type(headers.get("Content-Type", ""))
        if media and media not in JSON:  # none at all: the ancestors' clients send none
            raise unknown_media(media, "application/json")
        target = gateway.target(RAW)
        with gateway.budget.lease() as lease:
            body = await read_body(request, gateway.config, lease)
            lease.take(events=1)
            try:
                key = idempotency_key(headers)
                claim = self._bodies.check(_SOURCE_ONE, key, body) if key else None
                stamped = stamp(
                    body,
                    source=_SOURCE_ONE,
                    received_us=gateway.clock.now_us(),
                    bytes_max=target.event_bytes_max,
                    id_if_none=key,
                    attributes=binary_attributes(headers, whole=False),
                    trace=trace_headers(headers),
                )
            except Reject:
                gateway.delivery.rejected(1)
                raise
            if claim:
                claim.keep()
            (outcome,) = await gateway.delivery.send(target.name, [stamped.record])
        if isinstance(outcome, Reject):
            raise outcome
        return json_response(
            {
                "status": "received",
                "event_type": stamped.type,
                "id": stamped.id,
                "partition": outcome.partition,
                "offset": outcome.offset,
            }
        )

    async def events(self, request: web.Request) -> web.Response:
        """Many events, each with its outcome; ``?wait=accepted`` answers before the log does."""
        gateway = self._gateway
        target = gateway.target(request.match_info.get("topic", RAW))
        waits = _waits_for_ack(request)
        with gateway.budget.lease() as lease:
            body = await read_body(request, gateway.config, lease)
            key = idempotency_key(request.headers)
            claim = self._bodies.check(_SOURCE_MANY, key, body) if key else None
            outcomes = self._outcomes(request, body, target, lease, key)
            reports, good = await self._reported(outcomes)
            if claim and good:
                claim.keep()  # nothing is awaited from here until they are sent
            if waits:
                await self._send(target, good)
            else:
                self._accept(target, good, lease)
        accepted = sum(report["status"] != "rejected" for report in reports)
        rejected = len(reports) - accepted
        status = (200 if waits else 202) if not rejected else 207 if accepted else 400
        return json_response(
            {"accepted": accepted, "rejected": rejected, "events": reports}, status
        )

    def _outcomes(
        self, request: web.Request, body: bytes, target: Target, lease: Lease, key: str | None
    ) -> Outcomes:
        """Every event of a body, made when it is asked for; how depends on what the body is.

        Raises:
            ProblemError: the body as a whole is not taken.
        """
        headers, config = request.headers, self._gateway.config
        media = media_type(headers.get("Content-Type", ""))
        received_us, bytes_max = self._gateway.clock.now_us(), target.event_bytes_max
        trace = trace_headers(headers)
        if media == arrow.MEDIA:
            making = arrow.Making(_SOURCE_MANY, received_us, bytes_max, trace)
            return arrow.outcomes(body, lease, making, config=config, id_prefix=key)
        one = partial(
            stamp, source=_SOURCE_MANY, received_us=received_us, bytes_max=bytes_max, trace=trace
        )
        mode = mode_of(headers, media)
        if mode is Mode.BATCH:
            pieces = split_batch(body, events_max=config.request_events_max)
        elif mode is not None:
            pieces = [(1, body)]
        else:
            pieces = split(body, media, events_max=config.request_events_max)
        lease.take(events=len(pieces))
        if mode is Mode.BINARY:
            return _each(pieces, lambda _, value: stamp_binary(one, value, headers))
        if mode is not None:
            return _each(pieces, lambda _, value: stamp_envelope(one, value, bytes_max))
        return _each(pieces, lambda line, value: one(value, id_if_none=key and f"{key}-{line}"))

    async def _reported(
        self, outcomes: Outcomes
    ) -> tuple[list[Report], list[tuple[Report, Stamped]]]:
        """A report for every event, and those of the good ones with their records."""
        reports: list[Report] = []
        good: list[tuple[Report, Stamped]] = []
        for count, (line, outcome) in enumerate(outcomes, 1):
            report: Report = {"line": line, "status": "accepted"}
            reports.append(report)
            if isinstance(outcome, Reject):
                _refuse(report, outcome)
            else:
                report["id"] = outcome.id
                good.append((report, outcome))
            if count % _EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)
        self._gateway.delivery.rejected(len(reports) - len(good))
        return reports, good

    async def _send(self, target: Target, good: Sequence[tuple[Report, Stamped]]) -> None:
        if not good:
            return
        records = [stamped.record for _, stamped in good]
        outcomes = await self._gateway.delivery.send(target.name, records)
        for (report, _), outcome in zip(good, outcomes, strict=True):
            if isinstance(outcome, Address):
                report.update(status="received", partition=outcome.partition, offset=outcome.offset)
            else:
                _refuse(report, outcome)

    def _accept(self, target: Target, good: Sequence[tuple[Report, Stamped]], lease: Lease) -> None:
        if good:
            records = [stamped.record for _, stamped in good]
            self._gateway.delivery.accept(target.name, records, lease.hand_over())


def _each(
    pieces: Sequence[tuple[int, bytes]], stamp_one: Callable[[int, bytes], Stamped]
) -> Iterator[tuple[int, Stamped | Reject]]:
    for line, value in pieces:
        try:
            yield line, stamp_one(line, value)
        except Reject as error:
            yield line, error


def _refuse(report: Report, error: Reject) -> None:
    report.update(status="rejected", code=error.code, error=error.message, fix=error.fix)


def _waits_for_ack(request: web.Request) -> bool:
    wait = request.query.get("wait", "ack")
    if wait not in {"ack", "accepted"}:
        raise ProblemError(
            400, "request.wait", f"wait={wait[:40]!r} is not known", "use ack or accepted"
        )
    return wait == "ack"
