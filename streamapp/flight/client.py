"""A statement to a running store, its rows back; errors in our words."""

import contextlib
import re
from collections.abc import Iterator

import pyarrow as pa
from pyarrow import flight

from streamapp.core.errors import Refuse, Retry, StreamappError
from streamapp.flight import wire

#: What pyarrow puts round a server's message.
_WRAPPING = re.compile(
    r"^Flight .*?, with message: |\. (Detail|gRPC client debug context|Client context): "
)


def query(host: str, port: int, sql: str, token: str = "", *, timeout_s: float = 120.0) -> pa.Table:
    """All rows of a statement.

    Args:
        host: where the store listens.
        port: its Flight port.
        sql: one SELECT, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN.
        token: the store's bearer token; empty when it asks for none.
        timeout_s: for the whole answer.

    Raises:
        Refuse: the statement is wrong or not allowed, or the token is.
        Retry: nothing answers there, or not in time.
    """
    with stream(host, port, sql, token, timeout_s=timeout_s) as reader:
        return reader.read_all()


@contextlib.contextmanager
def stream(
    host: str, port: int, sql: str, token: str = "", *, timeout_s: float = 120.0
) -> Iterator[pa.RecordBatchReader]:
    """The rows of a statement as they come; leaving the block cancels the rest.

    Arguments and errors as those of :func:`query`; reading raises them too.
    """
    headers = [(b"authorization", wire.bearer(token))] if token else []
    options = flight.FlightCallOptions(timeout=timeout_s, headers=headers)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with contextlib.ExitStack() as stack:
        with _as_ours(where):
            client = stack.enter_context(flight.connect(f"grpc://{where}"))
            answer = client.do_get(flight.Ticket(sql.encode()), options)
            stack.callback(answer.cancel)
            schema = answer.schema
        yield pa.RecordBatchReader.from_batches(schema, _batches(answer, where))


def _batches(answer: flight.FlightStreamReader, where: str) -> Iterator[pa.RecordBatch]:
    # Arrow's own to_reader() would lose the kind and the code of an error.
    with _as_ours(where):
        for chunk in answer:
            yield chunk.data


@contextlib.contextmanager
def _as_ours(where: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise _ours(error, where) from None


def _ours(error: Exception, where: str) -> StreamappError:
    code = getattr(error, "extra_info", b"").decode(errors="replace")
    message = _plain(str(error))
    if isinstance(error, flight.FlightUnauthenticatedError):
        return Refuse("flight.token", f"{where}: {message}", "set STREAMAPP_TOKEN to the store's")
    if code.startswith("sql.") and code != "sql.cancelled":
        return Refuse(code, message)
    if isinstance(error, flight.FlightUnavailableError) and not code:
        return Retry("flight.unreachable", f"nothing answers at {where}", "streamapp up")
    if isinstance(error, flight.FlightTimedOutError):
        return Retry("flight.timeout", f"{where} did not answer in time", "ask for less, or wait")
    return Retry(code or "flight.failed", f"{where}: {message}")


def _plain(text: str) -> str:
    """The server's own words."""
    for part in _WRAPPING.split(text):
        if part and part not in {"Detail", "gRPC client debug context", "Client context"}:
            return part
    return text
