"""One function in a process of its own: started when first asked, started anew when it died."""

import contextlib
import fcntl
import json
import mmap
import os
import select
import signal
import socket
import subprocess
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from streamapp.core.errors import Refuse, Retry
from streamapp.plugin.bridge.place import PythonPlace

#: How long imports of the function's module may take.
START_S_MAX = 60.0
#: How long a process has to end by itself when nobody asks it any more.
END_S_MAX = 2.0
_LINE_BYTES_MAX = 1 << 20
_PROGRAM = Path(__file__).with_name("child.py")


class FunctionProcess:
    """``module:function`` in another process.

    Tables go there and back in shared memory.  One call at a time; not to be shared by threads.
    What the function starts ends with its process: when it is closed or stopped, when it dies, and
    when we do, by whatever signal; but for what begins a session of its own.

    Args:
        target: ``module:function``.
        place: where the module is.
        call_s_max: how long a call may take.
    """

    def __init__(self, target: str, place: PythonPlace, call_s_max: float) -> None:
        self.target = target
        self._place = place
        self._call_s_max = call_s_max
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._takes = ""
        self._end: weakref.finalize[Any, Any] | None = None

    @property
    def takes(self) -> str:
        """``table`` or ``row``: what the function's first parameter is annotated as.

        Raises:
            Refuse: ``interop.import``: the module cannot be imported, or has no such function.
            Retry: ``interop.crashed`` or ``interop.timeout`` while it was imported.
        """
        if self._process is None:
            self._start()
        return self._takes

    def call(
        self, table: pa.Table, arguments: Mapping[str, Any], columns: Mapping[str, str]
    ) -> pa.Table:
        """What the function makes of a table.

        Args:
            table: all rows of the call.
            arguments: its keyword arguments; plain data.
            columns: of a function of rows, what it adds and of which types (Arrow's names).

        Raises:
            Refuse: ``interop.raised``: what the function raised, and where; ``interop.arguments``:
                they are no plain data.
            Retry: ``interop.crashed`` the process died, ``interop.timeout`` it was stopped; the
                next call starts it anew.
        """
        asked = {"takes": self.takes, "arguments": dict(arguments), "columns": dict(columns)}
        try:
            line = json.dumps(asked).encode() + b"\n"
        except TypeError as error:
            what = f"arguments of {self.target}: {error}"
            fix = "give texts, numbers, lists and dicts; a date as text"
            raise Refuse("interop.arguments", what, fix) from None
        shared = _share(table)
        try:
            self._send(line, shared)
        finally:
            os.close(shared)
        answer, found = self._receive(self._call_s_max)
        if found < 0:
            raise Refuse(
                "interop.raised",
                f"{self.target} {answer['error']}",
                f"see {answer['where']}" if answer["where"] else "mend the function",
            )
        return _read(found)

    def close(self) -> None:
        """End the process and what it started; a later call starts it anew."""
        if self._end is not None:
            self._end()
        self._process = self._channel = self._end = None

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [self._place.interpreter, "-u", str(_PROGRAM), str(theirs.fileno())]
            try:
                self._process = subprocess.Popen(
                    [*command, self.target, *self._place.paths],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise Refuse(
                    "interop.interpreter",
                    f"{self._place.interpreter} cannot be started: {error.strerror}",
                    "set interpreter in [interop.python] of streamapp.toml",
                ) from None
        self._channel = ours
        self._end = weakref.finalize(self, _end, self._process, ours)
        answer, _ = self._receive(START_S_MAX)
        if "error" in answer:
            self.close()
            where = f" ({answer['where']})" if answer["where"] else ""
            raise Refuse(
                "interop.import",
                f"{self.target} cannot be used: {answer['error']}{where}",
                f"modules are looked for in {', '.join(self._place.paths)}:"
                " streamapp config interop --python-path DIR",
            )
        self._takes = answer["takes"]

    def _send(self, line: bytes, shared: int) -> None:
        assert self._channel is not None  # noqa: S101  # ``takes`` started it
        try:
            socket.send_fds(self._channel, [line], [shared])
        except OSError:
            raise self._died() from None

    def _receive(self, wait_s_max: float) -> tuple[dict[str, Any], int]:
        assert self._channel is not None  # noqa: S101  # as above
        end_s = time.monotonic() + wait_s_max
        data, fds = b"", [-1]
        try:
            while not data.endswith(b"\n"):
                self._channel.settimeout(max(end_s - time.monotonic(), 0.001))
                more, came, _, _ = socket.recv_fds(self._channel, 65_536, 1)
                fds = came or fds
                if not more or len(data) > _LINE_BYTES_MAX:
                    raise self._died()
                data += more
        except TimeoutError:
            self._kill()
            raise Retry(
                "interop.timeout",
                f"{self.target} did not answer within {wait_s_max:g} s and was stopped",
                "raise timeout_s, or give it less at a time",
            ) from None
        except OSError:
            raise self._died() from None
        return json.loads(data), fds[0]

    def _died(self) -> Retry:
        assert self._process is not None  # noqa: S101  # as above
        process = self._process
        has_ended = _has_ended(process, END_S_MAX)
        self._kill()
        code = process.returncode if has_ended else 0
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return Retry(
            "interop.crashed",
            f"the process of {self.target} ended {how}",
            "its last words are on standard error; the next call starts it anew",
        )

    def _kill(self) -> None:
        assert self._process is not None  # noqa: S101  # as above
        _kill_group(self._process)
        self.close()


def _end(process: "subprocess.Popen[bytes]", channel: socket.socket) -> None:
    """Say that no more will come, which ends it; kill what is left of its group."""
    with contextlib.suppress(OSError):
        channel.send(b"\n", socket.MSG_DONTWAIT)
    channel.close()
    _has_ended(process, END_S_MAX)
    _kill_group(process)
    process.wait()


def _has_ended(process: "subprocess.Popen[bytes]", wait_s_max: float) -> bool:
    """Whether it ended within that time.  It is not reaped, so that its group keeps its number."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:  # it is reaped
        return True
    try:
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        return bool(waiting.poll(wait_s_max * 1_000))
    finally:
        os.close(handle)


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _share(table: pa.Table) -> int:
    fd = os.memfd_create("streamapp", os.MFD_CLOEXEC)
    with os.fdopen(fd, "wb", closefd=False) as file, pa.ipc.new_stream(file, table.schema) as out:
        out.write_table(table)
    return fd


def _read(shared: int) -> pa.Table:
    """The table, where it lies; the memory is freed with the last of its columns."""
    try:
        if not fcntl.fcntl(shared, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            raise Retry("interop.crashed", "the other process answered out of turn", "try again")
        view = mmap.mmap(shared, os.fstat(shared).st_size, access=mmap.ACCESS_READ)
    finally:
        os.close(shared)
    return pa.ipc.open_stream(pa.py_buffer(view)).read_all()
