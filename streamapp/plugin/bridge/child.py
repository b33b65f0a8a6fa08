"""The program of the other process.

It needs pyarrow and nothing of ours, so that any environment's interpreter runs it, as ``python
child.py FD MODULE:FUNCTION PATH...``.  On the socket FD comes a line of JSON with the descriptor of
an Arrow IPC stream in shared memory, and an answer of the same kind goes back.  An empty line says
that no more will come; a hang-up without one is the other side's death, with which this process
ends and whatever it started in its session.
"""

import contextlib
import fcntl
import importlib
import inspect
import json
import mmap
import os
import signal
import socket
import sys
import traceback
import typing

import pyarrow as pa

#: Of what a function raised; the other side reads no more than a line of 1 MiB.
_CHARS_MAX = 2_000


def main(fd: int, target: str, paths: list[str]) -> None:
    """Answer requests until the other side says that there are no more."""
    channel = socket.socket(fileno=fd)
    if os.getpgrp() != os.getpid():
        os.setsid()
    sys.path[:0] = paths
    os.dup2(2, 1)  # what the function prints must not pass for an answer of the process around
    fcntl.fcntl(channel, fcntl.F_SETOWN, -os.getpid())  # the whole group
    fcntl.fcntl(channel, fcntl.F_SETSIG, signal.SIGKILL)
    try:
        with _ending_with(channel):
            function = _find(target)
    except BaseException as error:  # noqa: BLE001  # told to who asked
        _answer(channel, _failure(error, "import"), None)
        return
    _answer(channel, {"takes": _takes(function)}, None)
    while True:
        request, shared = _receive(channel)
        if request is None:
            return
        try:
            with _ending_with(channel):
                table = _call(function, request, _read(shared))
        except BaseException as error:  # noqa: BLE001  # told to who asked
            _answer(channel, _failure(error, "call"), None)
        else:
            _answer(channel, {}, table)


@contextlib.contextmanager
def _ending_with(channel: socket.socket) -> typing.Iterator[None]:
    """Within, this process and its children end when the other side does, whatever they are at.

    The kernel sees to it: nothing comes from the other side now but its end, and what comes raises
    the signal.  A parent's end would raise one for the end of the thread that started us, too.
    """
    flags = fcntl.fcntl(channel, fcntl.F_GETFL)
    fcntl.fcntl(channel, fcntl.F_SETFL, flags | os.O_ASYNC)
    try:
        with contextlib.suppress(BlockingIOError):
            channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            _end_all()  # it ended before we began to watch
        yield
    finally:
        fcntl.fcntl(channel, fcntl.F_SETFL, flags)


def _end_all() -> typing.NoReturn:
    """End this process and all of its group at once."""
    os.killpg(0, signal.SIGKILL)
    raise AssertionError


def _find(target: str) -> typing.Any:
    module, _, path = target.partition(":")
    found = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    if not callable(found):
        raise TypeError(f"{target} is a {type(found).__name__}, no function")
    return found


def _takes(function: typing.Any) -> str:
    """``row`` for a function whose first parameter is annotated as a dict, else ``table``."""
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        raise TypeError(f"{function.__name__} takes nothing; it is called with a table or a row")
    try:
        kind = typing.get_type_hints(function).get(parameters[0].name)
    except NameError:  # an annotation for type checkers only
        kind = parameters[0].annotation
    origin = typing.get_origin(kind) or kind
    is_row = origin is dict or getattr(origin, "__name__", str(origin)) in {"Mapping", "dict"}
    return "row" if is_row else "table"


def _call(function: typing.Any, request: dict[str, typing.Any], table: pa.Table) -> pa.Table:
    arguments = request["arguments"]
    if request["takes"] == "table":
        found = function(table, **arguments)
        if hasattr(found, "__arrow_c_stream__") and not isinstance(found, pa.Table):
            found = pa.table(found)
        if not isinstance(found, pa.Table):
            raise TypeError(f"returned {type(found).__name__}, not a pyarrow.Table")
        return found
    rows = [function(row, **arguments) for row in table.to_pylist()]
    wrong = next((row for row in rows if row is not None and not isinstance(row, dict)), None)
    if wrong is not None:
        raise TypeError(f"returned {type(wrong).__name__}, not a dict of its columns or None")
    columns = {name: pa.type_for_alias(kind) for name, kind in request["columns"].items()}
    for row in rows:
        if row is not None and (unknown := set(row) - set(columns)):
            raise KeyError(f"returned {min(unknown)!r}, which is not among its columns")
    table = table.filter(pa.array([row is not None for row in rows], pa.bool_()))
    rows = [row for row in rows if row is not None]
    for name, kind in columns.items():
        values = pa.array([row.get(name) for row in rows], kind)
        at = table.schema.get_field_index(name)
        field = pa.field(name, kind)
        table = (
            table.append_column(field, values) if at < 0 else table.set_column(at, field, values)
        )
    return table


def _failure(error: BaseException, step: str) -> dict[str, typing.Any]:
    """What was raised, and the line of the user's code that did."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename != __file__ and not f.filename.startswith("<frozen")]
    where = f"{own[-1].filename}:{own[-1].lineno}" if own else ""
    said = f"{type(error).__name__}: {error}"[:_CHARS_MAX]
    return {"error": said, "where": where, "step": step}


def _read(shared: int) -> pa.Table:
    size = os.fstat(shared).st_size
    view = mmap.mmap(shared, size, access=mmap.ACCESS_READ)
    os.close(shared)
    return pa.ipc.open_stream(pa.py_buffer(view)).read_all()


def _write(table: pa.Table) -> int:
    """A sealed piece of shared memory: its reader cannot be made to read what is gone."""
    fd = os.memfd_create("streamapp", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(fd, "wb", closefd=False) as file, pa.ipc.new_stream(file, table.schema) as out:
        out.write_table(table)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return fd


def _receive(channel: socket.socket) -> tuple[dict[str, typing.Any] | None, int]:
    data, fds, _, _ = socket.recv_fds(channel, 65_536, 1)
    while data and not data.endswith(b"\n"):
        data += channel.recv(65_536)
    if not data:
        _end_all()
    return (json.loads(data), fds[0]) if data.strip() else (None, -1)


def _answer(channel: socket.socket, answer: dict[str, typing.Any], table: pa.Table | None) -> None:
    line = json.dumps(answer).encode() + b"\n"
    if table is None:
        channel.sendall(line)
        return
    fd = _write(table)
    try:
        socket.send_fds(channel, [line], [fd])
    finally:
        os.close(fd)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
