"""v3 produce: ``records``, a stream of records and of their reports, and ``records:batch``.

A stream is answered while it still comes: the records that one read brought are appended together,
their reports are written, then the next read is made.  So a client that does not read its answers
is not read from either, and a stream holds no more than a read of it.
"""

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from streamapp.core.errors import Halt, Retry, StreamappError
from streamapp.gateway.body import answer_expect, defer_continue, media_type, read_body
from streamapp.gateway.confluent.clusters import CLUSTER
from streamapp.gateway.confluent.directory import Directory
from streamapp.gateway.confluent.errors import (
    BAD_BATCH,
    ConfluentError,
    bad_request,
    in_v3,
    translated,
    unprocessable,
)
from streamapp.gateway.confluent.media import JSON, json_accepted
from streamapp.gateway.confluent.objects import BrokenStreamError, Objects
from streamapp.gateway.confluent.produce import Destination, Outcome, Producing, key_of, silent
from streamapp.gateway.confluent.records3 import Entry, Sent, parse, report, sent
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.idempotency import Bodies
from streamapp.gateway.problem import SERVER, ProblemError, json_response, problem_of
from streamapp.gateway.rates import METER
from streamapp.gateway.split import ARRAY_COMMAS_MAX
from streamapp.gateway.trace import trace_headers
from streamapp.transport.clients import Address

#: What JSON, base64 and headers may add to a record of a given size.
_ENVELOPE_BYTES = 64 << 10
#: Records that are appended together at most.
_TURN_RECORDS_MAX = 500
_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
_encode = msgspec.json.Encoder().encode


class _Batch(msgspec.Struct):
    entries: list[msgspec.Raw] = []


_batch = msgspec.json.Decoder(_Batch)
_entry = msgspec.json.Decoder(Entry)


def routes(gateway: Gateway, directory: Directory, producing: Producing) -> list[web.RouteDef]:
    """The routes."""
    records = Records(gateway, directory, producing)
    path = CLUSTER + "/topics/{topic}/records"
    return [
        web.post(path, records.stream, expect_handler=defer_continue),
        web.post(path + ":batch", records.batch, expect_handler=defer_continue),
    ]


class Records:
    """The handlers."""

    def __init__(self, gateway: Gateway, directory: Directory, producing: Producing) -> None:
        self._gateway = gateway
        self._directory = directory
        self._producing = producing
        self._bodies = Bodies()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """One or more JSON objects, one after the other; a report for each, in their order."""
        _check(request)
        if request.headers.get("Content-Encoding", "identity").lower() not in {"", "identity"}:
            raise ConfluentError(415, "a stream of records is taken without Content-Encoding")
        if "Expect" in request.headers:
            await answer_expect(request)
        cluster = (await self._directory.cluster()).id
        to = await self._producing.destination(request.match_info["topic"])
        return await _Stream(self._gateway, self._producing, request, to, cluster).run()

    async def batch(self, request: web.Request) -> web.Response:
        """A few records, each with an id of the client's; 207 says what became of each."""
        _check(request)
        gateway = self._gateway
        with gateway.budget.lease() as lease:
            body = await read_body(request, gateway.config, lease)
            cluster = (await self._directory.cluster()).id
            to = await self._producing.destination(request.match_info["topic"])
            key = key_of(request)
            claim = self._bodies.check(request.path, key, body) if key else None
            entries = _entries(body, gateway.config.confluent_batch_max)
            now_ms = gateway.clock.now_us() // 1000
            wanted = {entry.id: _or_error(entry, now_ms) for entry in entries}
            if claim:
                claim.keep()
            outcomes = await self._producing.send(
                to,
                _records(wanted.values()),
                lease,
                id_prefix=key,
                trace=trace_headers(request.headers),
            )
        successes: list[dict[str, Any]] = []
        failures: list[dict[str, Any]] = []
        for (name, record), outcome in zip(wanted.items(), outcomes, strict=True):
            if isinstance(outcome, Address) and isinstance(record, Sent):
                successes.append({"id": name, **report(record, cluster, outcome)})
            elif isinstance(outcome, ConfluentError):
                failures.append({"id": name, **in_v3(outcome).envelope})
        return json_response({"successes": successes, "failures": failures}, 207)


class _Stream:
    """One request's records and reports."""

    def __init__(
        self,
        gateway: Gateway,
        producing: Producing,
        request: web.Request,
        to: Destination,
        cluster: str,
    ) -> None:
        self._gateway = gateway
        self._producing = producing
        self._request = request
        self._to = to
        self._cluster = cluster
        self._trace = trace_headers(request.headers)
        self._key = key_of(request)
        self._records = 0  # that have come
        config = gateway.config
        self._s_max = config.body_s_max
        self._objects = Objects(config.event_bytes_max * 4 // 3 + _ENVELOPE_BYTES)
        self._held = gateway.budget.lease()  # what has come of a record that is not whole
        self._response: web.StreamResponse | None = None

    async def run(self) -> web.StreamResponse:
        """The whole exchange.

        Raises:
            ProblemError, StreamappError: before the first report only; later ones are reports.
            ConnectionError: the client left, or reads no reports.
        """
        try:
            with self._held:
                await self._exchange()
        except (ProblemError, StreamappError) as error:
            if self._response is None:
                raise
            if isinstance(error, Halt):
                self._gateway.life.fail(error)
            problem = error if isinstance(error, ProblemError) else problem_of(error)
            await self._write([translated(error, problem).envelope])
            if not self._request.content.is_eof():  # nobody reads the rest of the request
                self._response.force_close()
        if self._response is None:
            raise bad_request("Bad Request: there is no record in the body.")
        await self._response.write_eof()
        return self._response

    async def _exchange(self) -> None:
        meter = self._request.get(METER)
        while chunk := await self._read():
            if meter is not None:
                meter.require_more()
                meter.count(self._request.content.total_bytes)
            objects = self._objects.feed(chunk)
            whole: list[bytes] = []
            try:
                for found in objects:
                    whole.append(found)
                    if len(whole) == _TURN_RECORDS_MAX:
                        await self._append(whole)
                        whole = []
            except BrokenStreamError as error:
                await self._append(whole)
                raise bad_request(f"Bad Request: {error}.") from None
            await self._append(whole)
            self._held.give()
            self._held.take(nbytes=self._objects.rest())
        if left := self._objects.rest():
            raise bad_request(f"Bad Request: the body ends within a record, {left} bytes into it.")

    async def _read(self) -> bytes:
        """The next bytes; b"" at the end."""
        stopping = self._gateway.life.stopping
        reading = asyncio.ensure_future(self._request.content.readany())
        stopped = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait(
                {reading, stopped}, timeout=self._s_max, return_when=asyncio.FIRST_COMPLETED
            )
            if reading.done():
                return reading.result()
        except web.RequestPayloadError:
            raise bad_request("Bad Request: the body's transfer coding is broken.") from None
        finally:
            for task in (reading, stopped):
                task.cancel()
        if stopped.done():
            raise ConfluentError(503, "the gateway is stopping; what is reported above is stored")
        raise ConfluentError(408, f"nothing came for {self._s_max:g} s")

    async def _append(self, objects: Sequence[bytes]) -> None:
        if not objects:
            return
        now_ms = self._gateway.clock.now_us() // 1000
        wanted = [_parsed(data, now_ms) for data in objects]
        with self._gateway.budget.lease() as lease:
            lease.take(nbytes=sum(map(len, objects)))
            try:
                outcomes = await self._producing.send(
                    self._to,
                    _records(wanted),
                    lease,
                    id_prefix=self._key,
                    first=self._records + 1,
                    trace=self._trace,
                )
            except Retry as error:
                raise silent(error) from None
        self._records += len(wanted)
        await self._write([self._report(*pair) for pair in zip(wanted, outcomes, strict=True)])

    def _report(self, record: Sent | ConfluentError, outcome: Outcome) -> dict[str, Any]:
        if isinstance(outcome, Address) and isinstance(record, Sent):
            return {"error_code": 200, **report(record, self._cluster, outcome)}
        assert isinstance(outcome, ConfluentError)  # noqa: S101  # an error stays one
        return in_v3(outcome).envelope

    async def _write(self, reports: Sequence[dict[str, Any]]) -> None:
        """Reports to the client, which must take them in time."""
        if self._response is None:
            headers = {**SERVER, "Content-Type": JSON}
            self._response = web.StreamResponse(headers=headers)
            self._response.enable_chunked_encoding()
            await self._response.prepare(self._request)
        try:
            async with asyncio.timeout(self._s_max):
                await self._response.write(b"".join(_encode(each) + b"\r\n" for each in reports))
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError("the client reads no reports") from None


def _check(request: web.Request) -> None:
    json_accepted(request)
    media = media_type(request.headers.get("Content-Type", ""))
    if media not in {"", JSON}:
        raise ConfluentError(415, f"HTTP 415 Unsupported Media Type: {media[:80]!r} (send {JSON})")


def _parsed(data: bytes, now_ms: int) -> Sent | ConfluentError:
    try:
        return parse(data, now_ms)
    except ConfluentError as error:
        return error


def _or_error(entry: Entry, now_ms: int) -> Sent | ConfluentError:
    try:
        return sent(entry, now_ms)
    except ConfluentError as error:
        return error


def _records(wanted: Iterable[Sent | ConfluentError]) -> list[Any]:
    return [each.record if isinstance(each, Sent) else each for each in wanted]


def _entries(body: bytes, entries_max: int) -> list[Entry]:
    """A batch's entries.

    Raises:
        ConfluentError: 400 no JSON, 42208 too many, none, or ids missing, wrong or twice.
    """
    if body.count(b",") > ARRAY_COMMAS_MAX:
        raise ConfluentError(413, f"the body has more than {ARRAY_COMMAS_MAX:,} commas")
    try:
        body.decode()
        raws = _batch.decode(body).entries
        if not 1 <= len(raws) <= entries_max:
            raise unprocessable(
                f"Invalid batch: {len(raws)} entries, not 1 to {entries_max}", BAD_BATCH
            )
        entries = [_entry.decode(raw) for raw in raws]
    except UnicodeDecodeError:
        raise bad_request("Bad Request: the body is not UTF-8.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise bad_request(f"Bad Request: {error}") from None
    ids = [entry.id for entry in entries]
    for name in ids:
        if not _ID.fullmatch(name):
            raise unprocessable(
                f"Invalid batch: id {name[:80]!r} is not 1 to 80 of A-Z a-z 0-9 _ -", BAD_BATCH
            )
    if len(set(ids)) < len(ids):
        raise unprocessable("Invalid batch: an id is there twice", BAD_BATCH)
    return entries
