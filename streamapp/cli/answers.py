"""A statement's answer, with Ctrl-C to end it.

Python hears of Ctrl-C only when gRPC returns, so a statement runs in a process of its own, forked
for it: Ctrl-C ends that one, its connection breaks, and the store stops the statement.  The process
that forks never calls gRPC itself, which does not survive a fork.
"""

import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple

from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Halt, Retry, StreamappError

if TYPE_CHECKING:
    import pyarrow as pa

    from streamapp.flight import Client

_fork = multiprocessing.get_context("fork")


class Answer(NamedTuple):
    """The rows, how long they took, and whether there are more than were asked for."""

    table: "pa.Table"
    seconds: float
    more: bool


class _End(NamedTuple):
    seconds: float
    more: bool


def ask(client: "Client", sql: str, rows_max: int) -> Answer:
    """The first rows of a statement's answer.

    Raises:
        StreamappError: what the store says, or that it does not answer.
        KeyboardInterrupt: Ctrl-C; the statement is being stopped.
    """
    import pyarrow as pa

    receiver, sender = _fork.Pipe(duplex=False)
    process = _fork.Process(target=_run, args=(client, sql, rows_max, sender), daemon=True)
    process.start()
    sender.close()
    parts: list[pa.RecordBatch] = []
    try:
        schema = _received(receiver)
        while not isinstance(part := _received(receiver), _End):
            parts.append(part)
    finally:
        process.kill()
        process.join()
        receiver.close()
    return Answer(pa.Table.from_batches(parts, schema), *part)


def _received(receiver: Connection) -> Any:
    try:
        part = receiver.recv()
    except EOFError:
        raise Retry("sql.ended", "the statement's process was killed", "try again") from None
    if isinstance(part, StreamappError):
        raise part
    return part


def read(client: "Client", sql: str, rows_max: int) -> Answer:
    """The same in this process, where Ctrl-C would wait for the store.

    Raises:
        StreamappError: as :func:`ask`.
    """
    import pyarrow as pa

    schema, *parts, end = _parts(client, sql, rows_max)
    return Answer(pa.Table.from_batches(parts, schema), *end)


def _run(client: "Client", sql: str, rows_max: int, sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        for part in _parts(client, sql, rows_max):
            sender.send(part)
    except StreamappError as error:
        sender.send(error)
    except Exception as error:  # noqa: BLE001  # who waits for it is another process
        sender.send(Halt("sql.unexpected", f"{type(error).__name__}: {error}", "report it"))


def _parts(client: "Client", sql: str, rows_max: int) -> Iterator[Any]:
    """The schema, batches of up to ``rows_max`` rows together, and the end."""
    started_s = monotonic_s()
    more, left = False, rows_max
    with client.stream(sql) as reader:
        yield reader.schema
        for batch in reader:
            yield batch.slice(0, left)
            if more := batch.num_rows > left:
                break
            left -= batch.num_rows
    yield _End(monotonic_s() - started_s, more)
