"""Our own protocol: ``POST /ingest`` for one event, ``POST /v1/events[/{topic}]`` for many."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from streamapp.core.errors import Reject
from streamapp.gateway.body import defer_continue, media_type, read_body
from streamapp.gateway.budget import Lease
from streamapp.gateway.gateway import Gateway, Target
from streamapp.gateway.problem import ProblemError, json_response
from streamapp.gateway.split import JSON, split, unknown_media
from streamapp.gateway.stamp import Stamped, binary_attributes, idempotency_key, stamp
from streamapp.topics.catalogue import RAW
from streamapp.transport.clients import Address

#: Events validated between two looks at other requests.
_EVENTS_PER_TURN = 128

Report = dict[str, Any]


def routes(gateway: Gateway) -> list[web.RouteDef]:
    """The protocol's routes."""
    native = Native(gateway)
    return [
        web.post("/ingest", native.ingest, expect_handler=defer_continue),
        web.post("/v1/events", native.events, expect_handler=defer_continue),
        web.post("/v1/events/{topic}", native.events, expect_handler=defer_continue),
    ]


class Native:
    """The handlers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def ingest(self, request: web.Request) -> web.Response:
        """One JSON object; answered when the log has it."""
        gateway = self._gateway
        media = media_type(request.headers.get("Content-Type", ""))
        if media and media not in JSON:  # none at all: the ancestors' clients send none
            raise unknown_media(media, "application/json")
        target = gateway.target(RAW)
        with gateway.budget.lease() as lease:
            body = await read_body(request, gateway.config, lease)
            lease.take(events=1)
            try:
                stamped = stamp(
                    body,
                    source="/ingest",
                    received_us=gateway.clock.now_us(),
                    bytes_max=target.event_bytes_max,
                    id_if_none=idempotency_key(request.headers),
                    attributes=binary_attributes(request.headers),
                )
            except Reject:
                gateway.delivery.rejected(1)
                raise
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
        media = media_type(request.headers.get("Content-Type", ""))
        with gateway.budget.lease() as lease:
            body = await read_body(request, gateway.config, lease)
            pieces = split(body, media, events_max=gateway.config.request_events_max)
            lease.take(events=len(pieces))
            reports, good = await self._stamp_all(
                pieces, target, id_prefix=idempotency_key(request.headers)
            )
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

    async def _stamp_all(
        self, pieces: Sequence[tuple[int, bytes]], target: Target, *, id_prefix: str | None
    ) -> tuple[list[Report], list[tuple[Report, Stamped]]]:
        """A report for every piece, and those of the good ones with their records."""
        received_us = self._gateway.clock.now_us()
        reports: list[Report] = []
        good: list[tuple[Report, Stamped]] = []
        for count, (line, value) in enumerate(pieces, 1):
            report: Report = {"line": line, "status": "accepted"}
            reports.append(report)
            try:
                stamped = stamp(
                    value,
                    source="/v1/events",
                    received_us=received_us,
                    bytes_max=target.event_bytes_max,
                    id_if_none=id_prefix and f"{id_prefix}-{line}",
                )
            except Reject as error:
                _refuse(report, error)
            else:
                report["id"] = stamped.id
                good.append((report, stamped))
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


def _refuse(report: Report, error: Reject) -> None:
    report.update(status="rejected", code=error.code, error=error.message, fix=error.fix)


def _waits_for_ack(request: web.Request) -> bool:
    wait = request.query.get("wait", "ack")
    if wait not in {"ack", "accepted"}:
        raise ProblemError(
            400, "request.wait", f"wait={wait[:40]!r} is not known", "use ack or accepted"
        )
    return wait == "ack"
