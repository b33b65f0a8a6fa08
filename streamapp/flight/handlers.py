"""What each call of Flight does.  Every error becomes one of Flight's: pyarrow sends tracebacks."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pyarrow as pa
from pyarrow import flight

from streamapp.core.errors import Refuse, Retry, StreamappError
from streamapp.flight import access, parameters, wire
from streamapp.flight import sql as flight_sql
from streamapp.flight.access import Role, Tokens
from streamapp.flight.actions import Actions
from streamapp.flight.border import Untraceable, as_flight_errors, short, unknown
from streamapp.flight.feed import Feed
from streamapp.flight.following import parse
from streamapp.flight.ingest import Ingest
from streamapp.flight.live import Follower, Subscription
from streamapp.flight.prepared import Prepared, PreparedStatements
from streamapp.flight.sent import Followed, Sent
from streamapp.flight.statements import Statements

_FLIGHT_SQL_ACTIONS = ("CreatePreparedStatement", "ClosePreparedStatement")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the handlers hand a call to."""

    reader: Callable[[], duckdb.DuckDBPyConnection]
    statements: Statements
    actions: Actions
    ingest: Ingest
    feed: Feed | None
    tokens: Tokens
    on_query: Callable[[str], None]


class Handlers(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """The calls, each with its role, its errors and its part."""

    def __init__(self, location: str, parts: Parts, **options: Any) -> None:
        self._parts = parts
        self._statements = parts.statements
        self._prepared = PreparedStatements()
        super().__init__(
            location,
            auth_handler=access.Handshake(),
            middleware={access.KEY: access.CallerFactory(parts.tokens)},
            **options,
        )

    def list_flights(self, context: Any, criteria: bytes) -> Iterator[flight.FlightInfo]:
        """One flight per table and view, described by its name."""
        del criteria
        with as_flight_errors():
            with contextlib.closing(self._parts.reader()) as cursor:
                names = flight_sql.table_names(cursor)
            infos = [self._table_info(context, name) for name in names]
        yield from infos

    def get_flight_info(self, context: Any, descriptor: Any) -> flight.FlightInfo:
        """The schema of a statement (SQL text, or a Flight SQL command) or of a table (a path)."""
        with as_flight_errors():
            if descriptor.descriptor_type == flight.DescriptorType.PATH:
                return self._table_info(context, wire.text(b"/".join(descriptor.path)))
            command = descriptor.command
            if (follower := self._follower(context, command)) is not None:
                return _info(descriptor, follower.schema, command)
            unpacked = wire.unpack(command)
            if unpacked is None:
                schema = self._statements.schema(wire.text(command), None, context.is_cancelled)
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
                schema = prepared.answer or self._statements.schema(
                    prepared.sql, prepared.parameters, context.is_cancelled
                )
                return _info(descriptor, schema, command)
            raise unknown(name)

    def get_schema(self, context: Any, descriptor: Any) -> flight.SchemaResult:
        """As ``get_flight_info``, the schema alone."""
        try:
            return flight.SchemaResult(self.get_flight_info(context, descriptor).schema)
        except flight.FlightError as error:
            raise Untraceable(str(error)) from None

    def do_get(self, context: Any, ticket: Any) -> flight.FlightDataStream:
        """The rows of a ticket: SQL text, or what ``get_flight_info`` gave."""
        with as_flight_errors():
            if (follower := self._follower(context, ticket.ticket)) is not None:
                return flight.GeneratorStream(follower.schema, Followed(Subscription(follower)))
            unpacked = wire.unpack(ticket.ticket)
            if unpacked is None:
                return self._run(context, wire.text(ticket.ticket))
            name, message = unpacked
            if flight_sql.schema_of(name, message) is not None:
                with contextlib.closing(self._parts.reader()) as cursor:
                    return flight.RecordBatchStream(flight_sql.answer(name, message, cursor))
            if name == "TicketStatementQuery":
                return self._run(context, wire.first_text(message, 1) or "")
            if name == "CommandPreparedStatementQuery":
                prepared = self._prepared.get(wire.first_bytes(message, 1) or b"")
                return self._run(context, prepared.sql, prepared.parameters)
            raise unknown(name)

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Events for a topic (a path, or Flight SQL's ingest), or a statement's parameters."""
        with as_flight_errors():
            if descriptor.descriptor_type == flight.DescriptorType.PATH:
                self._require(context, Role.PRODUCE)
                topic = wire.text(b"/".join(descriptor.path))
                self._parts.ingest.put(topic, lambda: _next_batch(reader), _writes(writer))
                return
            name, message = wire.unpack(descriptor.command) or ("", {})
            if name == "CommandStatementIngest":
                self._require(context, Role.PRODUCE)
                rows = self._parts.ingest.append(message, lambda: _next_batch(reader))
                writer.write(wire.encode((1, rows)))
            elif name == "CommandPreparedStatementQuery":
                handle = wire.first_bytes(message, 1) or b""
                self._prepared.bind(handle, reader.schema, lambda: _next_batch(reader))
                writer.write(wire.encode((1, handle)))
            else:
                raise Refuse("sql.not_allowed", "the server is read only", "produce to events.raw")

    def do_action(self, context: Any, action: Any) -> Iterator[flight.Result]:
        """Make or forget a prepared statement, or what an admin asks for."""
        with as_flight_errors():
            body = action.body.to_pybytes()
            if action.type in self._parts.actions:
                self._require(context, Role.ADMIN)
                for line in self._parts.actions.run(action.type, body, context.is_cancelled):
                    yield flight.Result(line)
            elif action.type == "CreatePreparedStatement":
                yield self._prepare(context, wire.first_text(_message(body), 1) or "")
            elif action.type == "ClosePreparedStatement":
                self._prepared.drop(wire.first_bytes(_message(body), 1) or b"")
            else:
                raise unknown(action.type)

    def list_actions(self, context: Any) -> list[tuple[str, str]]:
        """What Flight SQL's prepared statements need, and the admin's."""
        del context
        return [(n, "Flight SQL") for n in _FLIGHT_SQL_ACTIONS] + self._parts.actions.described()

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Not offered."""
        del context, descriptor, reader, writer
        with as_flight_errors():
            raise unknown("DoExchange")

    def _require(self, context: Any, role: Role) -> None:
        access.require(context, role, admin_anywhere=bool(self._parts.tokens.admin))

    def _follower(self, context: Any, ticket: bytes) -> Follower | None:
        """Who follows, when it is a live ticket."""
        following = parse(ticket)
        if following is None:
            return None
        parts = self._parts
        if parts.feed is None:
            raise unknown("live")
        return Follower(following, parts.feed, parts.reader, parts.statements, context.is_cancelled)

    def _table_info(self, context: Any, name: str) -> flight.FlightInfo:
        query = flight_sql.select_from(name)
        schema = self._statements.schema(query, None, context.is_cancelled)
        return _info(flight.FlightDescriptor.for_path(name), schema, query.encode())

    def _prepare(self, context: Any, query: str) -> flight.Result:
        with contextlib.closing(self._parts.reader()) as cursor:
            types = parameters.types(cursor, query)
        prepared = Prepared(query, types)
        schema = self._schema_unbound(context, prepared)
        result = wire.pack(
            "ActionCreatePreparedStatementResult",
            (1, self._prepared.add(prepared if types else replace(prepared, answer=schema))),
            (2, schema.serialize().to_pybytes() if schema is not None else None),
            (3, prepared.schema().serialize().to_pybytes() if types else None),
        )
        return flight.Result(result)

    def _schema_unbound(self, context: Any, prepared: Prepared) -> pa.Schema | None:
        """What it will answer; None when that cannot be said before parameters are bound."""
        try:
            return self._statements.schema(prepared.sql, prepared.nulls(), context.is_cancelled)
        except Refuse:
            if prepared.types:
                return None
            raise

    def _run(self, context: Any, query: str, parameters: Any = None) -> flight.GeneratorStream:
        try:
            answer = self._statements.run(query, parameters, context.is_cancelled)
        except StreamappError as error:
            self._parts.on_query(error.code)
            raise
        return flight.GeneratorStream(answer.schema, Sent(answer, self._parts.on_query))


def _message(body: bytes) -> wire.Message:
    unpacked = wire.unpack(body)
    return unpacked[1] if unpacked else {}


def _info(descriptor: Any, schema: pa.Schema, ticket: bytes) -> flight.FlightInfo:
    endpoint = flight.FlightEndpoint(flight.Ticket(ticket), [])
    return flight.FlightInfo(schema, descriptor, [endpoint], -1, -1)


def _writes(writer: Any) -> Callable[[bytes], None]:
    """Its ``write``, which fails when the client is gone."""

    def write(answer: bytes) -> None:
        try:
            writer.write(answer)
        except OSError:
            raise Retry("sql.cancelled", "the client is gone") from None

    return write


def _next_batch(reader: Any) -> pa.RecordBatch | None:
    """The client's next batch; None after the last.

    Raises:
        Refuse: what came is none.
    """
    try:
        batch = reader.read_chunk().data
        if batch is not None:
            batch.validate(full=True)  # Arrow trusts what it reads, and would read beyond it
    except StopIteration:
        return None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        what = f"a batch cannot be read: {short(str(error).partition(chr(10))[0], 300)}"
        raise Refuse("flight.batch", what) from None
    return batch
