"""What the services' routes take and answer."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Row = dict[str, Any]
#: Of sources that a request brings along.
SOURCES_MAX = 20
Status = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]


class CallAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Rows for one operation.

    Args:
        rows: of its only or first input; a column's values are of one type.
        config: as in a workflow's file.
        inputs: rows by name, for an operation of several inputs.
        sources: rows by the name of a declared source, in its place.
    """

    rows: list[Row] | None = None
    config: Row = {}
    inputs: Annotated[dict[str, list[Row]], Meta(max_length=SOURCES_MAX)] = {}
    sources: Annotated[dict[str, list[Row]], Meta(max_length=SOURCES_MAX)] = {}


class Aside(msgspec.Struct):
    """Rows that the operation could not take, as they came."""

    reason: str
    rows: list[Row]


class CallAnswer(msgspec.Struct):
    """The operation's result, and the rows that it set aside."""

    rows: list[Row]
    aside: list[Aside] = []


class OperationEntry(msgspec.Struct):
    """An operation that can be called."""

    service: str
    operation: str


class RunAsked(msgspec.Struct, forbid_unknown_fields=True):
    """What a run is started with: values for the ``params`` of the workflow's file."""

    params: dict[str, str | int | float | bool] = {}


class RunError(msgspec.Struct):
    """Why a run failed."""

    code: str
    message: str
    fix: str = ""


class RunOutput(msgspec.Struct):
    """A file that a run wrote."""

    name: str
    url: str
    size_bytes: int


class Run(msgspec.Struct):
    """One run of a workflow.  Times are Unix times in milliseconds."""

    id: str
    workflow: str
    status: Status
    queued_ms: int
    started_ms: int | None = None
    ended_ms: int | None = None
    params: dict[str, str | int | float | bool] = {}
    outputs: list[RunOutput] = []
    error: RunError | None = None
    report: Row | None = None


class WorkflowEntry(msgspec.Struct):
    """A workflow of the project; ``error`` says why it cannot be run."""

    name: str
    version: str = ""
    description: str = ""
    error: RunError | None = None
