"""Records of any Confluent request to the log.

A topic with an event schema takes events only, whichever door they come by: they are validated and
stamped as ``/v1/events`` does it.  Other declared topics are our own records' and take nothing from
clients; topics that are not declared take any bytes.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import msgspec
from aiohttp import web

from streamapp.core.errors import Reject, Retry
from streamapp.core.slice import Headers
from streamapp.gateway.budget import Lease
from streamapp.gateway.cloudevents import RECORD_PREFIX, record_attributes, stamp_envelope
from streamapp.gateway.confluent.directory import Directory, no_partition
from streamapp.gateway.confluent.errors import (
    BAD_PAYLOAD,
    KAFKA_FINAL,
    NO_BROKER,
    ConfluentError,
    bad_request,
)
from streamapp.gateway.gateway import Gateway, Target
from streamapp.gateway.idempotency import idempotency_key
from streamapp.gateway.problem import RETRY_AFTER
from streamapp.gateway.schemas import DeadLettered
from streamapp.gateway.stamp import Stamped, stamp
from streamapp.transport.clients import Address, Outgoing

#: Kafka's times are 64 bits of milliseconds; this is some 285,000 years.
TIMESTAMP_MS_MAX = 1 << 53
_EVENTS_PER_TURN = 128
_key = msgspec.json.Decoder(str)

Outcome = Address | ConfluentError


class Destination(NamedTuple):
    """Where a request's records go; ``events`` when the topic takes events only."""

    topic: str
    partitions: int | None
    events: Target | None


class Producing:
    """What v2 and v3 share."""

    def __init__(self, gateway: Gateway, directory: Directory) -> None:
        self._gateway = gateway
        self._directory = directory

    async def destination(self, topic: str) -> Destination:
        """The topic to send to.

        Raises:
            Refuse: ``topic.unknown``.
            ProblemError: 403 a declared topic that takes no events.
        """
        gateway = self._gateway
        events = gateway.target(topic) if topic in gateway.declared else None
        if gateway.admin is None:  # the log says itself what it does not have
            return Destination(topic, None, events)
        return Destination(topic, (await self._directory.topic(topic)).partitions, events)

    async def send(
        self,
        to: Destination,
        wanted: Sequence[Outgoing | ConfluentError],
        lease: Lease,
        *,
        id_prefix: str | None = None,
        first: int = 1,
        trace: Headers = (),
    ) -> list[Outcome]:
        """Append records; for each where it is, or why not.  Errors among them stay.

        Args:
            to: the topic.
            wanted: records, and errors for those that were none already.
            lease: holds them until the log has answered.
            id_prefix: of the ids of events without one; behind it is their number.
            first: the number of the first one.
            trace: W3C trace context, headers of every event.

        Raises:
            Retry: the log does not answer.
            ProblemError: 429.
        """
        lease.take(events=len(wanted))
        outcomes: list[Outcome | None] = []
        records: list[Outgoing] = []
        for count, record in enumerate(wanted, 1):
            try:
                if isinstance(record, ConfluentError):
                    raise record
                identity = id_prefix and f"{id_prefix}-{first + count - 1}"
                records.append(self._checked(to, record, identity, trace))
                outcomes.append(None)
            except ConfluentError as error:
                self._gateway.delivery.rejected(1)
                outcomes.append(error)
            if count % _EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)
        sent = await self._gateway.delivery.send(to.topic, records) if records else []
        answers = iter(sent)
        return [_outcome(next(answers)) if found is None else found for found in outcomes]

    def _checked(
        self, to: Destination, record: Outgoing, identity: str | None, trace: Headers
    ) -> Outgoing:
        if record.partition is not None:
            out = to.partitions is not None and record.partition >= to.partitions
            if record.partition < 0 or out:
                raise no_partition()
        return record if to.events is None else self._event(to.events, record, identity, trace)

    def _event(
        self, to: Target, record: Outgoing, identity: str | None, trace: Headers
    ) -> Outgoing:
        """The record stamped and settled; its own partition, key and time win."""
        if record.value is None:
            raise ConfluentError(BAD_PAYLOAD, f"{to.name} takes events, and null is none")
        one = partial(
            stamp,
            source=f"/topics/{to.name}",
            received_us=self._gateway.clock.now_us(),
            bytes_max=to.event_bytes_max,
            id_if_none=identity,
            trace=trace,
        )
        try:
            if _is_envelope(record.headers):
                stamped = stamp_envelope(one, record.value, to.event_bytes_max)
            else:
                stamped = one(record.value, attributes=record_attributes(record.headers))
            return self._gateway.settled(to, _as_sent(stamped, record)).record
        except Reject as error:
            raise ConfluentError(BAD_PAYLOAD, f"{error.code}: {error}") from None


def _as_sent(stamped: Stamped, record: Outgoing) -> Stamped:
    """The event's record with the partition, key, time and headers that the client gave it."""
    others = [
        (name, value)
        for name, value in record.headers
        if not name.startswith(RECORD_PREFIX) and name != "content-type"
    ]
    made = stamped.record
    sent = Outgoing(
        made.value,
        made.key if record.key is None else _plain(record.key),
        [*made.headers, *others],
        record.partition,
        record.timestamp_ms,
    )
    return stamped._replace(record=sent)


def key_of(request: web.Request) -> str | None:
    """The request's Idempotency-Key: of the ids of its events without one, ``KEY-N``.

    Raises:
        ConfluentError: 400.
    """
    try:
        return idempotency_key(request.headers)
    except Reject as error:
        raise bad_request(str(error)) from None


def _is_envelope(headers: Headers) -> bool:
    """Whether the value is a CloudEvent in structured mode (Kafka binding 3.3)."""
    said = next((value for name, value in headers if name == "content-type"), b"")
    return said.partition(b";")[0].strip().lower() == b"application/cloudevents+json"


def _plain(key: bytes) -> bytes:
    """An event's key is its conversation; one that came as a JSON string goes without quotes."""
    if key[:1] != b'"':
        return key
    try:
        return _key.decode(key).encode()
    except msgspec.DecodeError:
        return key


def _outcome(sent: Address | Reject) -> Outcome:
    if isinstance(sent, Address):
        return sent
    if isinstance(sent, DeadLettered):
        return ConfluentError(BAD_PAYLOAD, f"{sent.code}: {sent}")
    return ConfluentError(KAFKA_FINAL, f"Kafka error: {sent.code}: {sent}")


def silent(error: Retry) -> ConfluentError:
    """503: the log does not answer, and some of the records may be in it."""
    told = f"Broker not available: the log does not take records now ({error.code})"
    return ConfluentError(NO_BROKER, told, RETRY_AFTER)
