"""One operation on the rows of a request, off the event loop, within limits."""

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import TYPE_CHECKING, Any

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
from streamapp.gateway.services.wire import Aside, CallAnswer, CallAsked, OperationEntry
from streamapp.gateway.split import JSON, unknown_media
from streamapp.plugin.calling import CallWork, TableSources, run_operation, table_of
from streamapp.plugin.registered import PYTHON, known
from streamapp.workflow.graph.names import operation_name

if TYPE_CHECKING:
    from streamapp.plugin import Models, Sources

#: Operations that run at once, and requests that may wait for them or run.
THREADS = 2
CALLS_MAX = 16
#: What one operation may hold beside its rows.
MEMORY_BYTES_MAX = 512 << 20
#: First words of the codes of errors that speak of what the client sent.
_CLIENTS = frozenset(
    {"operation", "workflow", "text", "integrate", "pipeline", "infer", "expression", "source"}
)
_UNKNOWN = frozenset({"operation.unknown", "workflow.service", "workflow.operation"})
_asked = msgspec.json.Decoder(CallAsked)
_config = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder(enc_hook=str).encode
_log = logging.getLogger("streamapp.gateway")


class Calls:
    """The handlers of ``/v1/services``."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._threads = ThreadPoolExecutor(THREADS, "streamapp-services")
        self._running: set[Event] = set()
        self._models: Models | None = None
        self._owned = ExitStack()
        self._folder: Path | None = None

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
            asked = self._of_arrow(request, body) if media == MEDIA else _of_json(body)
            if asked.rows_held > (most := self._gateway.config.service_rows_max):
                raise ProblemError(
                    413,
                    "request.too_large",
                    f"the request has {asked.rows_held:,} rows; {most:,} are taken at most",
                    "send them in several requests, or run a workflow",
                )
            work = self._work(request, asked.sources)
            table = await self._run(name, asked, work)
            accept = request.headers.get(hdrs.ACCEPT, "*/*")
            wants_arrow = MEDIA in accept or (media == MEDIA and "application/json" not in accept)
            return await asyncio.to_thread(_answer, table, work, wants_arrow=wants_arrow)

    async def close(self) -> None:
        """Tell what runs to stop, and free what was loaded."""
        for stop in self._running:
            stop.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._owned.close()

    def _of_arrow(self, request: web.Request, body: bytes) -> "_Asked":
        config = self._gateway.config
        ipc.measure(body, events_max=config.service_rows_max, bytes_max=config.body_bytes_max)
        batches = list(ipc.batches(body))
        if not batches:
            with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
                table = reader.schema.empty_table()
        else:
            table = pa.Table.from_batches(batches)
        return _Asked({"rows": table}, _config_of(request.query.get("config", "{}")), {})

    def _work(self, request: web.Request, sources: Mapping[str, pa.Table]) -> CallWork:
        folder = self._gateway.config.project
        declared: Sources | None = None
        if folder is not None and allowed(request, Need(Verb.ADMIN)):
            from streamapp.workflow.data import declared_sources

            declared = declared_sources(folder)
        return CallWork(
            TableSources(sources, declared),
            self._registry,
            self._empty_folder(),
            memory_bytes_max=MEMORY_BYTES_MAX,
        )

    async def _run(self, name: str, asked: "_Asked", work: CallWork) -> pa.Table:
        """The result, or the problem.

        A thread cannot be stopped: one that nobody waits for any more keeps its place until its
        operation looks at ``work.stop`` or ends.
        """
        if len(self._running) >= CALLS_MAX:
            raise ProblemError(
                429,
                "service.busy",
                f"{CALLS_MAX} operations run or wait already",
                "wait and send it again",
                RETRY_AFTER,
            )
        loop, seconds = asyncio.get_running_loop(), self._gateway.config.service_s_max
        running = loop.run_in_executor(
            self._threads, run_operation, name, asked.config, asked.inputs, work
        )
        self._running.add(work.stop)
        running.add_done_callback(lambda _: self._running.discard(work.stop))
        running.add_done_callback(_looked_at)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(running)
        except TimeoutError:
            raise ProblemError(
                504,
                "service.timeout",
                f"{name} did not end within {seconds:g} s",
                "send fewer rows, or run a workflow",
            ) from None
        except asyncio.CancelledError:
            if self._gateway.life.draining:
                raise stopping() from None
            raise
        except StreamappError as error:
            raise _problem(name, error) from None
        finally:
            if not running.done():
                work.stop.set()

    def _registry(self) -> "Models":
        """The project's models; called by an operation, in its thread."""
        from streamapp.workflow.data import declared_models

        if self._gateway.models is None:
            raise Refuse("models.none", "this gateway serves no models", "ask another one")
        if self._models is None:
            registry = self._gateway.models()
            self._owned.callback(registry.close)
            self._models = declared_models(registry, self._gateway.config.project or Path.cwd())
        return self._models

    def _empty_folder(self) -> Path:
        """Where relative paths of a config begin: nothing is there."""
        if self._folder is None:
            made = TemporaryDirectory(prefix="streamapp-services-")
            self._folder = Path(self._owned.enter_context(made))
        return self._folder


class _Asked:
    """A request's tables and its config."""

    def __init__(
        self,
        inputs: Mapping[str, pa.Table],
        config: Mapping[str, Any],
        sources: Mapping[str, pa.Table],
    ) -> None:
        self.inputs, self.config, self.sources = inputs, config, sources
        self.rows_held = sum(each.num_rows for each in (*inputs.values(), *sources.values()))


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


def _of_json(body: bytes) -> _Asked:
    try:
        asked = _asked.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(
            400, "service.json", f"not a call: {error}", 'send {"rows": [...], "config": {...}}'
        ) from None
    rows = asked.inputs if asked.rows is None else {"rows": asked.rows, **asked.inputs}
    try:
        inputs = {name: table_of(each, name) for name, each in rows.items()}
        sources = {name: table_of(each, name) for name, each in asked.sources.items()}
    except Refuse as error:
        raise ProblemError(400, error.code, error.message, error.fix) from None
    return _Asked(inputs, asked.config, sources)


def _config_of(text: str) -> dict[str, Any]:
    try:
        return _config.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProblemError(
            400, "service.config", f"config in the query: {error}", "give a JSON object"
        ) from None


def _answer(table: pa.Table, work: CallWork, *, wants_arrow: bool) -> web.Response:
    """The result in the form that was asked for; in Arrow, what was set aside is counted only."""
    if wants_arrow:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as out:
            out.write_table(table)
        aside = str(sum(rows.num_rows for rows, _ in work.aside))
        headers = {**SERVER, hdrs.CONTENT_TYPE: MEDIA, "Streamapp-Aside": aside}
        return web.Response(body=sink.getvalue().to_pybytes(), headers=headers)
    aside_rows = [Aside(reason, rows.to_pylist()) for rows, reason in work.aside]
    answer = CallAnswer(table.to_pylist(), aside_rows)
    headers = {**SERVER, hdrs.CONTENT_TYPE: "application/json"}
    return web.Response(body=_encode(answer), headers=headers)


def _problem(name: str, error: StreamappError) -> ProblemError:
    """What the client may know of an error; what speaks of our insides goes to the log."""
    if error.code in _UNKNOWN:
        return ProblemError(404, error.code, error.message, error.fix)
    if error.code.partition(".")[0] in _CLIENTS:
        return ProblemError(400, error.code, error.message, error.fix)
    _log.warning("%s: %s", name, error)
    if isinstance(error, Retry):
        what = "something that the operation needs does not answer now"
        return ProblemError(503, error.code, what, "send it again", RETRY_AFTER)
    what = f"{name} cannot be run as it was asked for"
    return ProblemError(503, error.code, what, "tell its operator", RETRY_AFTER)


def _looked_at(future: "asyncio.Future[Any]") -> None:
    """An error of a call that nobody waits for any more is no news."""
    if not future.cancelled():
        future.exception()
