"""The Flight server in the store's process: SQL text as a ticket, or Flight SQL for drivers."""

import contextlib
import hmac
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa
from pyarrow import flight

from streamapp.core.errors import Refuse, Retry, StreamappError
from streamapp.flight import sql as flight_sql
from streamapp.flight import wire
from streamapp.flight.prepared import PreparedStatements
from streamapp.flight.statements import Answer, Limits, Statements

_log = logging.getLogger(__name__)

#: How long clients may take to read what was sent to them when the server stops.
_GRACE_S = 1.0
_ACTIONS = (
    ("CreatePreparedStatement", "Flight SQL"),
    ("ClosePreparedStatement", "Flight SQL"),
)


class FlightServer:
    """Answers while it exists; the port is open when the constructor returns.

    Args:
        reader: a new cursor on the store for each statement, as ``Store.reader``.
        host: the address to bind.
        port: 0 lets the system choose; see ``port``.
        token: what clients must send as ``authorization: Bearer TOKEN``; empty: nothing.
        limits: for statements.
        on_query: called with ``ok`` or the error's code for each statement, to count them.

    Raises:
        Refuse: the address cannot be bound.
    """

    def __init__(
        self,
        reader: Callable[[], duckdb.DuckDBPyConnection],
        *,
        host: str = "127.0.0.1",
        port: int = 9383,
        token: str = "",
        limits: Limits | None = None,
        on_query: Callable[[str], None] = lambda _result: None,
    ) -> None:
        self.host = host
        location = _free_location(host, port)
        middleware = {"token": _TokenFactory(token)} if token else None
        self._statements = Statements(reader, limits or Limits())
        self._server: _Server | None = _Server(
            location, middleware, reader, self._statements, on_query
        )
        self.port = int(self._server.port)

    @property
    def running(self) -> int:
        """Statements that run now."""
        return len(self._statements)

    def stop(self) -> None:
        """Interrupt what runs and close the port; harmless when it has stopped.

        gRPC waits for every call to end, for ever, and a client that does not read keeps its call
        open; pyarrow has no deadline for that.  So after a grace period those are hung up on.
        """
        server, self._server = self._server, None
        if server is None:
            return
        self._statements.close()
        closing = threading.Thread(
            target=server.shutdown, name="streamapp-flight-stop", daemon=True
        )
        closing.start()
        closing.join(_GRACE_S)
        if closing.is_alive():
            _hang_up(self.port)
            closing.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class _Server(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """The handlers.  Every error becomes one of Flight's: of others pyarrow sends the traceback."""

    def __init__(
        self,
        location: str,
        middleware: dict[str, "_TokenFactory"] | None,
        reader: Callable[[], duckdb.DuckDBPyConnection],
        statements: Statements,
        on_query: Callable[[str], None],
    ) -> None:
        self._reader = reader
        self._statements = statements
        self._prepared = PreparedStatements()
        self._on_query = on_query
        super().__init__(location, middleware=middleware)

    def list_flights(self, context: Any, criteria: bytes) -> Iterator[flight.FlightInfo]:
        """One flight per table and view, described by its name."""
        del criteria
        with _as_flight_errors():
            with contextlib.closing(self._reader()) as cursor:
                names = flight_sql.table_names(cursor)
            infos = [self._table_info(context, name) for name in names]
        yield from infos

    def get_flight_info(self, context: Any, descriptor: Any) -> flight.FlightInfo:
        """The schema of a statement (SQL text, or a Flight SQL command) or of a table (a path)."""
        with _as_flight_errors():
            if descriptor.descriptor_type == flight.DescriptorType.PATH:
                return self._table_info(context, b"/".join(descriptor.path).decode())
            command = descriptor.command
            unpacked = wire.unpack(command)
            if unpacked is None:
                query = command.decode()
                schema = self._statements.schema(query, None, context.is_cancelled)
                return _info(descriptor, schema, command)
            name, message = unpacked
            if (schema := flight_sql.schema_of(name, message)) is not None:
                return _info(descriptor, schema, command)
            if name == "CommandStatementQuery":
                query = wire.first_text(message, 1) or ""
                schema = self._statements.schema(query, None, context.is_cancelled)
                ticket = wire.pack("TicketStatementQuery", (1, query))  # the SQL is the handle
                return _info(descriptor, schema, ticket)
            if name == "CommandPreparedStatementQuery":
                prepared = self._prepared.get(wire.first_bytes(message, 1) or b"")
                arguments = (prepared.sql, prepared.parameters, context.is_cancelled)
                return _info(descriptor, self._statements.schema(*arguments), command)
            raise _unknown(name)

    def get_schema(self, context: Any, descriptor: Any) -> flight.SchemaResult:
        """As ``get_flight_info``, the schema alone."""
        return flight.SchemaResult(self.get_flight_info(context, descriptor).schema)

    def do_get(self, context: Any, ticket: Any) -> flight.FlightDataStream:
        """The rows of a ticket: SQL text, or what ``get_flight_info`` gave."""
        with _as_flight_errors():
            unpacked = wire.unpack(ticket.ticket)
            if unpacked is None:
                return self._run(context, ticket.ticket.decode())
            name, message = unpacked
            if flight_sql.schema_of(name, message) is not None:
                with contextlib.closing(self._reader()) as cursor:
                    return flight.RecordBatchStream(flight_sql.answer(name, message, cursor))
            if name == "TicketStatementQuery":
                return self._run(context, wire.first_text(message, 1) or "")
            if name == "CommandPreparedStatementQuery":
                prepared = self._prepared.get(wire.first_bytes(message, 1) or b"")
                return self._run(context, prepared.sql, prepared.parameters)
            raise _unknown(name)

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Parameters of a prepared statement; everything else would write."""
        del context
        with _as_flight_errors():
            command = descriptor.command
            unpacked = wire.unpack(command) if command else None
            if unpacked is None or unpacked[0] != "CommandPreparedStatementQuery":
                raise Refuse("sql.not_allowed", "the server is read only", "produce to events.raw")
            handle = wire.first_bytes(unpacked[1], 1) or b""
            self._prepared.bind(handle, reader.schema, lambda: _next_batch(reader))
            writer.write(wire.encode((1, handle)))

    def do_action(self, context: Any, action: Any) -> Iterator[flight.Result]:
        """Make or forget a prepared statement."""
        with _as_flight_errors():
            unpacked = wire.unpack(action.body.to_pybytes())
            message = unpacked[1] if unpacked else {}
            if action.type == "CreatePreparedStatement":
                results = [self._prepare(context, wire.first_text(message, 1) or "")]
            elif action.type == "ClosePreparedStatement":
                self._prepared.drop(wire.first_bytes(message, 1) or b"")
                results = []
            else:
                raise _unknown(action.type)
        yield from results

    def list_actions(self, context: Any) -> list[tuple[str, str]]:
        """The two that Flight SQL's prepared statements need."""
        del context
        return list(_ACTIONS)

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Not offered."""
        del context, descriptor, reader, writer
        with _as_flight_errors():
            raise _unknown("DoExchange")

    def _table_info(self, context: Any, name: str) -> flight.FlightInfo:
        query = flight_sql.select_from(name)
        schema = self._statements.schema(query, None, context.is_cancelled)
        return _info(flight.FlightDescriptor.for_path(name), schema, query.encode())

    def _prepare(self, context: Any, query: str) -> flight.Result:
        with contextlib.closing(self._reader()) as cursor:
            names = _parameter_names(cursor, query)
        schema = None if names else self._statements.schema(query, None, context.is_cancelled)
        handle, prepared = self._prepared.add(query, names)
        result = wire.pack(
            "ActionCreatePreparedStatementResult",
            (1, handle),
            (2, schema.serialize().to_pybytes() if schema is not None else None),
            (3, prepared.schema().serialize().to_pybytes() if names else None),
        )
        return flight.Result(result)

    def _run(self, context: Any, query: str, parameters: Any = None) -> flight.GeneratorStream:
        try:
            answer = self._statements.run(query, parameters, context.is_cancelled)
        except StreamappError as error:
            self._on_query(error.code)
            raise
        return flight.GeneratorStream(answer.schema, _Sent(answer, self._on_query))


class _Sent(Iterator[pa.RecordBatch]):
    """An Answer on its way: counted at its end, and its errors Flight's."""

    def __init__(self, answer: Answer, on_query: Callable[[str], None]) -> None:
        self._answer = answer
        self._on_query = on_query

    def __next__(self) -> pa.RecordBatch:
        with _as_flight_errors():
            try:
                batch = next(self._answer, None)
            except StreamappError as error:
                self._end(error.code)
                raise
        if batch is None:
            self._end("ok")
            raise StopIteration
        return batch

    def _end(self, result: str) -> None:
        self._answer.close()
        self._on_query(result)


class _TokenFactory(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Refuses calls without the bearer token."""

    def __init__(self, token: str) -> None:
        self._expected = wire.bearer(token)

    def start_call(self, info: Any, headers: dict[str, list[str | bytes]]) -> None:
        """Compare in constant time."""
        del info
        given: str | bytes = next(
            (values[0] for name, values in headers.items() if name.lower() == "authorization"), b""
        )
        found = given.encode() if isinstance(given, str) else given
        if not hmac.compare_digest(found, self._expected):
            raise flight.FlightUnauthenticatedError(
                "the token is missing or wrong (send it as `authorization: Bearer TOKEN`)",
                b"flight.token",
            )


@contextlib.contextmanager
def _as_flight_errors() -> Iterator[None]:
    """Our errors as Flight's, the code as their extra info; unexpected ones without details."""
    try:
        yield
    except flight.FlightError:
        raise
    except StreamappError as error:
        raise _flight_error(error) from None
    except (UnicodeDecodeError, ValueError):
        refusal = Refuse("flight.message", "the message is not one of Flight SQL, nor SQL text")
        raise _flight_error(refusal) from None
    except Exception as error:  # noqa: BLE001  # the border: a client gets no traceback of ours
        _log.exception("a Flight call failed")
        failed = Retry(
            "flight.internal", f"the server failed ({type(error).__name__})", "see its log"
        )
        raise _flight_error(failed) from None


def _flight_error(error: StreamappError) -> flight.FlightError:
    kinds = {
        "sql.not_allowed": flight.FlightUnauthorizedError,
        "sql.time": flight.FlightTimedOutError,
        "sql.cancelled": flight.FlightCancelledError,
        "flight.internal": flight.FlightInternalError,
    }
    usual = flight.FlightUnavailableError if isinstance(error, Retry) else flight.FlightServerError
    return kinds.get(error.code, usual)(str(error), error.code.encode())


def _unknown(name: str) -> Refuse:
    return Refuse("flight.unknown", f"{name} is not offered", "this server reads: it takes queries")


def _info(descriptor: Any, schema: pa.Schema, ticket: bytes) -> flight.FlightInfo:
    endpoint = flight.FlightEndpoint(flight.Ticket(ticket), [])
    return flight.FlightInfo(schema, descriptor, [endpoint], -1, -1)


def _next_batch(reader: Any) -> pa.RecordBatch | None:
    try:
        return reader.read_chunk().data
    except StopIteration:
        return None


def _parameter_names(cursor: duckdb.DuckDBPyConnection, query: str) -> set[str]:
    try:
        statements = cursor.extract_statements(query)
    except (duckdb.Error, ValueError):  # ValueError: a kind that DuckDB's Python does not know
        return set()  # whoever asks for its schema is told what is wrong with it
    return set(statements[0].named_parameters) if statements else set()


def _free_location(host: str, port: int) -> str:
    """The address as a URL.

    gRPC would say only that it did not start, and pyarrow would keep what the server was given for
    ever; so a socket is bound first, which knows the reason.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise Refuse(
            "flight.port",
            f"cannot listen at {host}:{port}: {error.strerror}",
            "stop what has the port, or choose another (STREAMAPP_FLIGHT_PORT)",
        ) from None
    return f"grpc://[{host}]:{port}" if family == socket.AF_INET6 else f"grpc://{host}:{port}"


def _hang_up(port: int) -> None:
    """Shut every connection of this process that was made to ``port``."""
    for entry in Path("/dev/fd").iterdir():
        try:
            with socket.socket(fileno=os.dup(int(entry.name))) as connection:
                if connection.getsockname()[1:2] == (port,):
                    connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue  # no socket, or one that is closed meanwhile, or the listening one
