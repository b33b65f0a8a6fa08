"""One operation on the rows of a request, in a process of its own, within limits."""

import asyncio
import logging
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pyarrow as pa
from aiohttp import hdrs, web

from streamapp.core.errors import Refuse, Retry, StreamappError
from streamapp.core.scopes import Need, Verb
from streamapp.gateway import ipc
from streamapp.gateway.arrow import MEDIA
from streamapp.gateway.body import media_type, read_body
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.problem import RETRY_AFTER, SERVER, ProblemError, json_response, stopping
from streamapp.gateway.scopes import allowed
from streamapp.gateway.services.processes import Processes
from streamapp.gateway.services.wire import Aside, CallAnswer, CallAsked, OperationEntry
from streamapp.gateway.split import JSON, unknown_media
from streamapp.plugin.calling import table_of
from streamapp.plugin.registered import PYTHON, check_values, known
from streamapp.workflow.callee import Answered, Asked, Setup, packed, unpacked
from streamapp.workflow.data.plain_rows import python_rows
from streamapp.workflow.graph.names import operation_name

#: Requests whose operation runs or waits for its turn.
CALLS_MAX = 16
#: First words of the codes of errors that speak of what the client sent.
_CLIENTS = frozenset(
    {"operation", "workflow", "text", "integrate", "pipeline", "infer", "expression", "source"}
)
_TOO_LARGE = frozenset({"service.memory", "service.too_large"})
_UNKNOWN = frozenset({"operation.unknown", "workflow.service", "workflow.operation"})
_asked = msgspec.json.Decoder(CallAsked)
_config = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder(enc_hook=str).encode
_log = logging.getLogger("streamapp.gateway")


class Calls:
    """The handlers of ``/v1/services``."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._under_way = 0
        self._owned = ExitStack()
        self._processes = Processes(self._setup)

    async def index(self, _: web.Request) -> web.Response:
        """Which operations there are."""
        pairs = [name.partition(".") for name in known()]
        return json_response([OperationEntry(service, last) for service, _, last in pairs])

    async def call(self, request: web.Request) -> web.Response:
        """The operation's result: JSON for JSON, and Arrow for who asks for it or sent it."""
        match = request.match_info
        name = _named(match["service"], match["operation"])
        media = media_type(request.headers.get(hdrs.CONTENT_TYPE, ""))
        if media not in JSON and media != MEDIA:
            raise unknown_media(media, f"application/json or {MEDIA}")
        with self._gateway.budget.lease() as lease:
            body = await read_body(request, self._gateway.config, lease)
            asked = await asyncio.to_thread(self._asked, name, request, body, media)
            answer = await self._run(asked)
            accept = request.headers.get(hdrs.ACCEPT, "*/*")
            wants_arrow = MEDIA in accept or (media == MEDIA and "application/json" not in accept)
            return await asyncio.to_thread(_answer, answer, wants_arrow=wants_arrow)

    async def close(self) -> None:
        """End what runs."""
        await self._processes.close()
        self._owned.close()

    def _asked(self, name: str, request: web.Request, body: bytes, media: str) -> Asked:
        """The call that a request is.

        Raises:
            ProblemError: 400 it is none, 413 it has too many rows.
        """
        if media == MEDIA:
            inputs, sources = {"rows": self._of_arrow(body)}, dict[str, pa.Table]()
            config = _config_of(request.query.get("config", "{}"))
        else:
            inputs, sources, config = _of_json(body)
        rows = sum(each.num_rows for each in (*inputs.values(), *sources.values()))
        if rows > (most := self._gateway.config.service_rows_max):
            raise ProblemError(
                413,
                "request.too_large",
                f"the request has {rows:,} rows; {most:,} are taken at most",
                "send them in several requests, or run a workflow",
            )
        is_admin = allowed(request, Need(Verb.ADMIN))
        return Asked(name, config, _packed(inputs), _packed(sources), is_admin)

    def _of_arrow(self, body: bytes) -> pa.Table:
        config = self._gateway.config
        ipc.measure(body, events_max=config.service_rows_max, bytes_max=config.body_bytes_max)
        if batches := list(ipc.batches(body)):
            return pa.Table.from_batches(batches)
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            return reader.schema.empty_table()

    async def _run(self, asked: Asked) -> Answered:
        """The result, or the problem."""
        if self._under_way >= CALLS_MAX:
            raise _busy(f"{CALLS_MAX} operations run or wait already")
        seconds = self._gateway.config.service_s_max
        self._under_way += 1
        try:
            return await self._processes.run(asked, seconds)
        except TimeoutError:
            raise ProblemError(
                504,
                "service.timeout",
                f"{asked.name} did not end within {seconds:g} s",
                "send fewer rows, or run a workflow",
            ) from None
        except asyncio.CancelledError:
            if self._gateway.life.draining:
                raise stopping() from None
            raise
        except StreamappError as error:
            raise _problem(asked.name, error) from None
        finally:
            self._under_way -= 1

    def _setup(self) -> Setup:
        """What a new process is told; relative paths of a config begin where nothing is."""
        config = self._gateway.config
        made = TemporaryDirectory(prefix="streamapp-services-")
        return Setup(
            tuple(path or str(Path.cwd()) for path in sys.path),
            self._owned.enter_context(made),
            str(config.project) if config.project else None,
            dict(config.environ),
            self._gateway.models is not None,
        )


def _named(service: str, operation: str) -> str:
    """The operation's name; functions of the project are none that strangers may call."""
    try:
        name = operation_name(service, operation)
    except Refuse as error:
        raise ProblemError(404, error.code, error.message, error.fix) from None
    if name.startswith(PYTHON):
        raise ProblemError(
            403,
            "service.python",
            "functions of the project cannot be called over HTTP",
            "name it in a workflow of the project, and start a run of that",
        )
    return name


def _of_json(
    body: bytes,
) -> tuple[dict[str, pa.Table], dict[str, pa.Table], dict[str, Any]]:
    """Inputs, sources and the config."""
    try:
        asked = _asked.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(
            400, "service.json", f"not a call: {error}", 'send {"rows": [...], "config": {...}}'
        ) from None
    rows = asked.inputs if asked.rows is None else {"rows": asked.rows, **asked.inputs}
    try:
        check_values(asked.config)
        inputs = {name: table_of(each, name) for name, each in rows.items()}
        sources = {name: table_of(each, name) for name, each in asked.sources.items()}
    except Refuse as error:
        raise ProblemError(400, error.code, error.message, error.fix) from None
    return inputs, sources, asked.config


def _config_of(text: str) -> dict[str, Any]:
    try:
        config = _config.decode(text)
        check_values(config)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProblemError(
            400, "service.config", f"config in the query: {error}", "give a JSON object"
        ) from None
    except Refuse as error:
        raise ProblemError(400, error.code, error.message, error.fix) from None
    return config


def _packed(tables: Mapping[str, pa.Table]) -> dict[str, bytes]:
    return {name: packed(table) for name, table in tables.items()}


def _answer(answer: Answered, *, wants_arrow: bool) -> web.Response:
    """The result in the form that was asked for; in Arrow, what was set aside is counted only."""
    asides = [(reason, unpacked(body)) for reason, body in answer.aside]
    if wants_arrow:
        aside = str(sum(rows.num_rows for _, rows in asides))
        headers = {**SERVER, hdrs.CONTENT_TYPE: MEDIA, "Streamapp-Aside": aside}
        return web.Response(body=answer.table, headers=headers)
    aside_rows = [Aside(reason, python_rows(rows)) for reason, rows in asides]
    told = CallAnswer(python_rows(unpacked(answer.table)), aside_rows)
    headers = {**SERVER, hdrs.CONTENT_TYPE: "application/json"}
    return web.Response(body=_encode(told), headers=headers)


def _busy(what: str) -> ProblemError:
    return ProblemError(429, "service.busy", what, "wait and send it again", RETRY_AFTER)


def _problem(name: str, error: StreamappError) -> ProblemError:
    """What the client may know of an error; what speaks of our insides goes to the log."""
    if error.code in _UNKNOWN:
        return ProblemError(404, error.code, error.message, error.fix)
    if error.code in _TOO_LARGE:
        return ProblemError(413, error.code, error.message, error.fix)
    if error.code.partition(".")[0] in _CLIENTS:
        return ProblemError(400, error.code, error.message, error.fix)
    _log.warning("%s: %s", name, error)
    if isinstance(error, Retry):
        what = "something that the operation needs does not answer now"
        return ProblemError(503, error.code, what, "send it again", RETRY_AFTER)
    what = f"{name} cannot be run as it was asked for"
    return ProblemError(503, error.code, what, "tell its operator", RETRY_AFTER)
