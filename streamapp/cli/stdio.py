"""``streamapp stdio``: operations for a program of any language, over its child's standard streams.

A line in is ``{"id", "service", "operation", "config", "rows"}``, a line out ``{"id", "rows"}`` or
``{"id", "error": {"code", "message", "fix"}}``, in the order of what came in.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import click
import msgspec
from msgspec import Meta

from streamapp.cli.framework import command
from streamapp.cli.options import settings_options
from streamapp.core.config import Settings
from streamapp.core.errors import Reject, Retry, StreamappError

if TYPE_CHECKING:
    from streamapp.plugin import Models
    from streamapp.plugin.calling import CallWork

#: A longer line is not read into memory; it is skipped and answered with an error.
LINE_BYTES_MAX = 64 << 20


class Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A line in.

    Args:
        id: whatever the answer is to be found by.
        service: plain or one of the other names that workflows know.
        operation: of the service.
        config: as in a workflow's file.
        rows: of its input.
        inputs: rows by name, for an operation of several inputs.
        sources: rows by the name of a declared source, in its place.
    """

    service: str
    operation: str
    id: Any = None
    config: dict[str, Any] = {}
    rows: list[dict[str, Any]] | None = None
    inputs: Annotated[dict[str, list[dict[str, Any]]], Meta(max_length=100)] = {}
    sources: Annotated[dict[str, list[dict[str, Any]]], Meta(max_length=100)] = {}


class _Answer(msgspec.Struct, omit_defaults=True):
    id: Any
    rows: list[dict[str, Any]] | None = None
    aside: list[dict[str, Any]] = []
    error: dict[str, Any] | None = None


_request = msgspec.json.Decoder(Request)
_named = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder(enc_hook=str).encode


@command(
    examples=[
        "streamapp stdio < requests.jsonl > answers.jsonl",
        """echo '{"service":"text","operation":"analyze","rows":[]}' | streamapp stdio""",
    ],
)
@settings_options("models_dir", "models_cache", "threads")
def stdio(settings: Settings) -> None:
    """Answer requests on standard input with lines on standard output, until it ends.

    A program of any language starts this once, writes a line of JSON for each call of an operation
    and reads a line of JSON for each.  Models stay loaded between calls.
    """
    with _answers_alone() as answers:
        serve(sys.stdin.buffer, answers, settings)


@contextmanager
def _answers_alone() -> Iterator[BinaryIO]:
    """Standard output, for answers only: what operations and libraries print goes to our errors."""
    sys.stdout.flush()
    ours = sys.stdout
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    try:
        yield answers
    finally:
        sys.stdout = ours
        os.dup2(answers.fileno(), 1)
        with suppress(OSError):  # each answer was flushed, or its error is on its way
            answers.close()


def serve(lines: BinaryIO, answers: BinaryIO, settings: Settings) -> None:
    """Answer line by line.

    Raises:
        Retry: ``stdio.output``: an answer cannot be written.
    """
    from streamapp.workflow.data import declared_sources

    folder = Path.cwd()
    models: list[Models] = []

    def registry() -> "Models":
        from streamapp.compose import registry as make
        from streamapp.workflow.data import declared_models

        if not models:
            models.append(declared_models(make(settings), folder))
        return models[0]

    def work(request: Request) -> "CallWork":
        from streamapp.plugin.calling import CallWork, TableSources, table_of

        given = {name: table_of(rows, name) for name, rows in request.sources.items()}
        sources = TableSources(given, declared_sources(folder))
        return CallWork(sources, registry, folder, settings.threads or 1)

    while line := lines.readline(LINE_BYTES_MAX + 1):
        if len(line) > LINE_BYTES_MAX:
            while line and not line.endswith(b"\n"):
                line = lines.readline(LINE_BYTES_MAX)  # the rest of it
            why = f"the line is longer than {LINE_BYTES_MAX:,} bytes"
            answer = _Answer(None, error=_said(Reject("stdio.line", why, "send less at a time")))
        elif not line.strip():
            continue
        else:
            answer = _answered(line, work)
        _write(_encode(answer) + b"\n", answers)


def _write(line: bytes, answers: BinaryIO) -> None:
    try:
        answers.write(line)
        answers.flush()
    except BrokenPipeError:  # its reader has seen enough
        raise
    except OSError as error:
        raise Retry(
            "stdio.output",
            f"standard output cannot be written: {error.strerror}",
            "the requests from this one on are not answered: make room, and send them again",
        ) from None


def _answered(line: bytes, work: "Callable[[Request], CallWork]") -> _Answer:
    try:
        request = _request.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        fix = 'write {"id", "service", "operation", "config", "rows"} on one line'
        return _Answer(_id_of(line), error=_said(Reject("stdio.json", str(error), fix)))
    try:
        return _run(request, work(request))
    except StreamappError as error:
        return _Answer(request.id, error=_said(error))
    except Exception as error:  # noqa: BLE001  # an operation's bug is not the end of the others
        click.echo(f"{request.service}.{request.operation}: {error!r}", err=True)
        said = {"code": "operation.bug", "message": repr(error), "fix": "report it to its author"}
        return _Answer(request.id, error=said)


def _run(request: Request, work: "CallWork") -> _Answer:
    from streamapp.plugin.calling import run_operation, table_of
    from streamapp.workflow.data.plain_rows import python_rows
    from streamapp.workflow.graph.names import operation_name

    rows: Mapping[str, Any] = request.inputs
    if request.rows is not None:
        rows = {"rows": request.rows, **request.inputs}
    name = operation_name(request.service, request.operation)
    inputs = {key: table_of(each, key) for key, each in rows.items()}
    result = run_operation(name, request.config, inputs, work)
    aside = [{"reason": reason, "rows": python_rows(bad)} for bad, reason in work.aside]
    return _Answer(request.id, python_rows(result), aside)


def _said(error: StreamappError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "fix": error.fix}


def _id_of(line: bytes) -> Any:
    """The id of a line that is no request, so that its sender finds the answer."""
    try:
        return _named.decode(line).get("id")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
