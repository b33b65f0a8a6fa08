"""v2 produce: ``POST /topics/{topic}`` and ``POST /topics/{topic}/partitions/{partition}``."""

from typing import Any

import msgspec
from aiohttp import web

from streamapp.gateway.body import defer_continue, read_body
from streamapp.gateway.confluent.errors import ConfluentError, bad_request, unprocessable
from streamapp.gateway.confluent.formats import NULL, base64_of, decode
from streamapp.gateway.confluent.media import accepted, answer, format_of
from streamapp.gateway.confluent.produce import (
    TIMESTAMP_MS_MAX,
    Outcome,
    Producing,
    key_of,
)
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.idempotency import Bodies
from streamapp.gateway.split import ARRAY_COMMAS_MAX
from streamapp.gateway.trace import trace_headers
from streamapp.transport.clients import Address, Outgoing

#: How many records are in an answer that could not all be appended.
PARTIAL = "X-Streamapp-Partial"


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    """A record header as Strimzi's bridge takes it; the value is base64."""

    key: str
    value: str | None = None


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    """One record; ``timestamp`` (Unix milliseconds) and ``headers`` are Strimzi's."""

    key: msgspec.Raw = NULL
    value: msgspec.Raw = NULL
    partition: int | None = None
    timestamp: int | None = None
    headers: list[_Header] | None = None


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    """The body; schemas mean nothing to the formats we speak."""

    records: list[msgspec.Raw] = []
    key_schema: msgspec.Raw = NULL
    key_schema_id: msgspec.Raw = NULL
    value_schema: msgspec.Raw = NULL
    value_schema_id: msgspec.Raw = NULL


_request = msgspec.json.Decoder(_Request)
_record = msgspec.json.Decoder(_Record)


def routes(gateway: Gateway, producing: Producing) -> list[web.RouteDef]:
    """The routes."""
    produce = Produce(gateway, producing)
    return [
        web.post("/topics/{topic}", produce.to_topic, expect_handler=defer_continue),
        web.post(
            "/topics/{topic}/partitions/{partition}",
            produce.to_partition,
            expect_handler=defer_continue,
        ),
    ]


class Produce:
    """The handlers."""

    def __init__(self, gateway: Gateway, producing: Producing) -> None:
        self._gateway = gateway
        self._producing = producing
        self._bodies = Bodies()

    async def to_topic(self, request: web.Request) -> web.Response:
        """Records, each with a partition if it likes."""
        return await self._produce(request, None)

    async def to_partition(self, request: web.Request) -> web.Response:
        """Records for one partition."""
        number = request.match_info["partition"]
        if not (number.isascii() and number.isdecimal() and len(number) < 10):
            raise ConfluentError(40402, "Partition not found.")
        return await self._produce(request, int(number))

    async def _produce(self, request: web.Request, partition: int | None) -> web.Response:
        gateway = self._gateway
        accepted(request)
        format_ = format_of(request)
        with gateway.budget.lease() as lease:
            body = await read_body(request, gateway.config, lease)
            to = await self._producing.destination(request.match_info["topic"])
            if partition is not None and to.partitions is not None and partition >= to.partitions:
                raise ConfluentError(40402, "Partition not found.")
            key = key_of(request)
            claim = self._bodies.check(request.path, key, body) if key else None
            records = parse(body, format_, partition, gateway.config.request_events_max)
            if claim:
                claim.keep()
            outcomes = await self._producing.send(
                to,
                records,
                lease,
                id_prefix=key,
                trace=trace_headers(request.headers),
            )
        failed = sum(isinstance(outcome, ConfluentError) for outcome in outcomes)
        if failed == len(outcomes):
            _raise_if_all_are_the_clients_fault(outcomes)
        body_ = {
            "offsets": [_offset(outcome) for outcome in outcomes],
            "key_schema_id": None,
            "value_schema_id": None,
        }
        response = answer(body_, request)
        if failed:
            response.headers[PARTIAL] = str(failed)
        return response


def parse(
    body: bytes, format_: str, partition: int | None, records_max: int
) -> list[Outgoing | ConfluentError]:
    """A request's records.

    Raises:
        ConfluentError: 400 no JSON, 413 too many, 422 no record, 42206 a record that is not in the
            format; nothing of the request is sent then.
    """
    if body.count(b",") > ARRAY_COMMAS_MAX:
        raise ConfluentError(413, f"the body has more than {ARRAY_COMMAS_MAX:,} commas")
    try:
        body.decode()
        raws = _request.decode(body).records
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise bad_request("the body is nested too deeply") from None
    except msgspec.ValidationError as error:
        raise unprocessable(f"{error}") from None
    except msgspec.DecodeError as error:
        raise bad_request(f"the body is not JSON: {error}") from None
    if not raws:
        raise unprocessable("records may not be empty")
    if len(raws) > records_max:
        raise ConfluentError(413, f"the request has more than {records_max:,} records")
    return [_outgoing(raw, format_, partition, f"records[{n}]") for n, raw in enumerate(raws)]


def _outgoing(raw: msgspec.Raw, format_: str, partition: int | None, where: str) -> Outgoing:
    try:
        record = _record.decode(raw)
    except msgspec.DecodeError as error:  # of one record: what is well formed already
        raise unprocessable(f"{where}: {error}") from None
    if partition is not None and record.partition is not None:
        raise unprocessable(f"{where}: the path names the partition already")
    if record.timestamp is not None and not 0 <= record.timestamp < TIMESTAMP_MS_MAX:
        raise unprocessable(f"{where}.timestamp is no time in Unix milliseconds")
    return Outgoing(
        decode(record.value, format_, f"{where}.value"),
        decode(record.key, format_, f"{where}.key"),
        _headers(record.headers or [], where),
        record.partition if partition is None else partition,
        record.timestamp,
    )


def _headers(headers: list[_Header], where: str) -> list[tuple[str, bytes]]:
    try:
        return [(header.key, base64_of(header.value or "")) for header in headers]
    except ValueError as error:
        raise unprocessable(f"{where}.headers: {error}", 42206) from None


def _offset(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Address):
        return {
            "partition": outcome.partition,
            "offset": outcome.offset,
            "error_code": None,
            "error": None,
        }
    return {"partition": None, "offset": None, **outcome.envelope}


def _raise_if_all_are_the_clients_fault(outcomes: list[Outcome]) -> None:
    """A client that only looks at the status must not take an event for stored that is not one."""
    first = outcomes[0]
    same = {o.status for o in outcomes if isinstance(o, ConfluentError)}
    if isinstance(first, ConfluentError) and len(same) == 1 and first.status < 500:
        raise first
