"""The process of ``/v1/services``: ``python -m streamapp.workflow.callee``.

Calls come in and results go out by pipes, a length before each; tables are Arrow IPC streams.  It
is the gateway's to kill: what a stranger asks for may take any time and any memory.
"""

import os
import resource
import signal
import sys
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import pyarrow as pa

from streamapp.core.errors import Refuse, StreamappError
from streamapp.plugin.calling import CallWork, TableSources, run_operation

if TYPE_CHECKING:
    from streamapp.plugin import Models

#: What one operation may hold beside its rows, what its process may hold of memory as the gateway
#: sees it, and what the kernel gives it, however fast it asks.
MEMORY_BYTES_MAX = 512 << 20
PROCESS_BYTES_MAX = 2 << 30
_DATA_BYTES_MAX = 4 << 30
#: A result, with what was set aside.
RESULT_BYTES_MAX = 256 << 20
HEADER_BYTES = 4


class Setup(msgspec.Struct, frozen=True):
    """Said once, first.

    Args:
        paths: where modules are found.
        empty: a folder with nothing in it, where relative paths of a config begin.
        project: the project's folder; None: there is none.
        environ: settings, as an environment.
        has_models: whether operations may ask for models.
    """

    paths: tuple[str, ...]
    empty: str
    project: str | None
    environ: dict[str, str]
    has_models: bool


class Asked(msgspec.Struct, frozen=True):
    """One call; ``is_admin``: it may read the sources that the project declares."""

    name: str
    config: dict[str, Any]
    inputs: dict[str, bytes]
    sources: dict[str, bytes]
    is_admin: bool


class Answered(msgspec.Struct, frozen=True, tag=True):
    """The result, and rows that were set aside by reason."""

    table: bytes
    aside: list[tuple[str, bytes]]


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The error; ``kind`` is the name of its class, and ``trace`` of what is none of ours."""

    kind: str
    code: str
    message: str
    fix: str
    trace: str = ""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Said once, when calls may come."""


_answer = msgspec.msgpack.Decoder(Answered | Failed | Ready)


def decoded(body: bytes) -> Answered | Failed | Ready:
    """What the process said."""
    said: Answered | Failed | Ready = _answer.decode(body)
    return said


def frame(message: msgspec.Struct) -> bytes:
    """A message as it goes through a pipe."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def packed(table: pa.Table) -> bytes:
    """A table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    return bytes(sink.getvalue())


def unpacked(body: bytes) -> pa.Table:
    """The table of a stream that ``packed`` made."""
    return pa.ipc.open_stream(body).read_all()


def main() -> None:
    """Answer calls until standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the gateway's to take
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an operation prints is not an answer
    body = _next(sys.stdin.buffer)
    if body is None:
        return
    setup = msgspec.msgpack.decode(body, type=Setup)
    sys.path[:] = [*setup.paths, *(path for path in sys.path if path not in setup.paths)]
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    least = _DATA_BYTES_MAX if most == resource.RLIM_INFINITY else min(most, _DATA_BYTES_MAX)
    resource.setrlimit(resource.RLIMIT_DATA, (least, most))
    caller = _Caller(setup, answers)
    caller.say(Ready())
    with ThreadPoolExecutor(1) as thread:
        while (body := _next(sys.stdin.buffer)) is not None:
            thread.submit(caller.call, msgspec.msgpack.decode(body, type=Asked))
        os._exit(0)  # the gateway is gone: nobody would read what is still being worked out


class _Caller:
    def __init__(self, setup: Setup, answers: BinaryIO) -> None:
        self._setup, self._answers = setup, answers
        self._models: Models | None = None

    def say(self, message: msgspec.Struct) -> None:
        self._answers.write(frame(message))
        self._answers.flush()

    def call(self, asked: Asked) -> None:
        """Answer one call."""
        try:
            answer: Answered | Failed = self._called(asked)
        except StreamappError as error:
            answer = Failed(type(error).__name__, error.code, error.message, error.fix)
        except MemoryError:
            answer = Failed("Refuse", "service.memory", *no_memory(asked.name))
        except BaseException:  # noqa: BLE001  # whatever an operation raises is told
            answer = Failed("", "", "", "", traceback.format_exc())
        self.say(answer)

    def _called(self, asked: Asked) -> Answered:
        sources = TableSources(_tables(asked.sources), self._declared() if asked.is_admin else None)
        work = CallWork(
            sources, self._registry, Path(self._setup.empty), memory_bytes_max=MEMORY_BYTES_MAX
        )
        table = run_operation(asked.name, asked.config, _tables(asked.inputs), work)
        aside = [(reason, packed(rows)) for rows, reason in work.aside]
        if table.nbytes > RESULT_BYTES_MAX:
            raise Refuse(
                "service.too_large",
                f"{asked.name} gave {table.nbytes >> 20} MB; {RESULT_BYTES_MAX >> 20} MB are sent",
                "ask for less, or run a workflow",
            )
        return Answered(packed(table), aside)

    def _declared(self) -> Any:
        if self._setup.project is None:
            return None
        from streamapp.workflow.data import declared_sources

        return declared_sources(Path(self._setup.project))

    def _registry(self) -> "Models":
        """The project's models; made when an operation first asks."""
        from streamapp.workflow.run.asked import make_models

        if not self._setup.has_models:
            raise Refuse("models.none", "this gateway serves no models", "ask another one")
        if self._models is None:
            folder = Path(self._setup.project or self._setup.empty)
            self._models = make_models("", folder, self._setup.environ)
        return self._models


def no_memory(name: str) -> tuple[str, str]:
    """What is said of a call that takes too much memory, and what to do."""
    return f"{name} takes more memory than one call may", "send fewer rows, or run a workflow"


def _tables(bodies: Mapping[str, bytes]) -> dict[str, pa.Table]:
    return {name: unpacked(body) for name, body in bodies.items()}


def _next(requests: BinaryIO) -> bytes | None:
    """The next message; None when the other side is gone."""
    header = requests.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return None
    return requests.read(int.from_bytes(header, "big"))


if __name__ == "__main__":
    main()
