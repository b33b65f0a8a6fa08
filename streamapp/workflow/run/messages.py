"""What the engine and its working processes say to each other: a length, then msgpack."""

from typing import Any

import msgspec

from streamapp.workflow.graph.spec import Input, Output


class Part(msgspec.Struct, frozen=True):
    """A table in the cache: an Arrow file that is named by its content.

    Args:
        digest: of the file, in hex.
        rows: in it.
        bytes: of the file.
    """

    digest: str
    rows: int
    bytes: int


class Aside(msgspec.Struct, frozen=True):
    """Rows that were set aside for one reason; without one each says its own as ``reason``."""

    reason: str
    part: Part


class Setup(msgspec.Struct, frozen=True, tag=True):
    """Said once, first.

    Args:
        paths: where modules are found.
        cache: folder of the parts.
        folder: of the workflow's file.
        environ: settings, as an environment.
        models: ``module:function`` that gives the Models for a folder; empty: the project's.
        slots: calls at once.
        memory_bytes_max: of all working processes of the run.
    """

    paths: tuple[str, ...]
    cache: str
    folder: str
    environ: dict[str, str]
    models: str
    slots: int
    memory_bytes_max: int


class Read(msgspec.Struct, frozen=True, tag=True):
    """Copy an input, or a declared source, into the cache."""

    id: int
    name: str
    declared: Input | None


class Call(msgspec.Struct, frozen=True, tag=True):
    """Call an operation once.

    Args:
        id: of the message; the answer has it.
        token: calls of one token share an opened operation.
        operation: ``service.operation``.
        config: with secrets as references.
        inputs: parts by name, in order.
        sources: parts of declared sources by name.
        cut: first and end of the rows of the first input; None: all of all inputs.
        schema: that the result must have, as an IPC message; the variables are its last columns.
        variables: of ``foreach``.
        threads: that the operation may keep busy.
        memory_bytes_max: as ``Work`` has it.
    """

    id: int
    token: str
    operation: str
    config: dict[str, Any]
    inputs: dict[str, tuple[Part, ...]]
    sources: dict[str, tuple[Part, ...]]
    cut: tuple[int, int] | None
    schema: bytes
    variables: dict[str, Any]
    threads: int
    memory_bytes_max: int


class Write(msgspec.Struct, frozen=True, tag=True):
    """Write an output; a file waits for ``Place``."""

    id: int
    name: str
    declared: Output
    parts: tuple[Part, ...]
    folder_out: str


class Place(msgspec.Struct, frozen=True, tag=True):
    """Put the files that this process wrote in their places."""

    id: int


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Stop as soon as an operation says how far it is."""


class Advanced(msgspec.Struct, frozen=True, tag=True):
    """So many more rows are done."""

    id: int
    rows: int


class Done(msgspec.Struct, frozen=True, tag=True):
    """The answer of a job.

    Args:
        id: of the job.
        part: the result; None: of ``Write`` and ``Place``.
        rows: of the result, or written.
        asides: rows that were set aside.
        models: what the operation asked of the models, with what it got: ``classifier:x`` to a
            digest, or empty where it cannot be said.
        told: what the operation says of this call by an optional ``report()``: a dict for each of
            its steps, with counts and times.
        waits: of ``Write``: it is a file that waits for ``Place``.
    """

    id: int
    part: Part | None
    rows: int
    asides: tuple[Aside, ...] = ()
    models: dict[str, str] = {}
    told: list[dict[str, Any]] = []
    waits: bool = False


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A job ended in an error.

    Args:
        id: of the job.
        kind: name of the error's class, of ours.
        trace: of what is none of ours.
    """

    id: int
    kind: str
    code: str
    message: str
    fix: str
    trace: str = ""


Job = Read | Call | Write | Place
ToWorker = Setup | Read | Call | Write | Place | Cancel
FromWorker = Advanced | Done | Failed
HEADER_BYTES = 4
#: One message; tables travel as files.
MESSAGE_BYTES_MAX = 256 << 20


def frame(message: ToWorker | FromWorker) -> bytes:
    """A message as it goes through a pipe."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(HEADER_BYTES, "big") + body
