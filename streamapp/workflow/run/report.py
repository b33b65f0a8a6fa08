"""What came of a run."""

from typing import Any, Literal

import msgspec

from streamapp.core.errors import Halt, Refuse, Reject, Retry, StreamappError

#: ``cached``: its result was there; ``left out``: ``when`` did not hold; ``skipped``: what it takes
#: failed.
State = Literal["ran", "cached", "left out", "skipped", "failed", "cancelled"]

_KINDS = {kind.__name__: kind for kind in (Refuse, Retry, Reject, Halt)}


class Problem(msgspec.Struct, frozen=True):
    """An error, as ``--json`` shows it.

    Args:
        kind: name of its class.
        trace: of a mistake in an operation, where it was made.
    """

    kind: str
    code: str
    message: str
    fix: str
    trace: str = ""

    @classmethod
    def of(cls, error: StreamappError) -> "Problem":
        """As it is shown."""
        trace = "\n".join(getattr(error, "__notes__", ()))
        return cls(type(error).__name__, error.code, error.message, error.fix, trace)

    def error(self) -> StreamappError:
        """The error again."""
        return _KINDS.get(self.kind, StreamappError)(self.code, self.message, self.fix)


class StageReport(msgspec.Struct, frozen=True):
    """What came of one input, source, stage or output.

    Args:
        kind: which of these it is.
        operation: ``service.operation@version`` of a stage; the format of what is read or written.
        why: it ran, or did not.
        rows_in: of what it takes, together.
        rows_out: of its result.
        rejected: rows that were set aside.
        seconds: from start to end.
        cpu_s: of its processes.
        memory_mb: the most that they held at once, mapped files apart.
        workers: processes or threads.
        calls: of its operation.
        attempts: 1 when it went well at once.
        inputs: digests of the content of what it takes.
        result: digest of the content of its result.
        models: that it used, with a digest of each.
        steps: what its operation says of them: rows in and out, rejected, seconds.
    """

    name: str
    kind: str
    state: State
    operation: str = ""
    why: str = ""
    rows_in: int = 0
    rows_out: int = 0
    rejected: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    memory_mb: float = 0.0
    workers: int = 0
    calls: int = 0
    attempts: int = 0
    inputs: dict[str, str] = {}
    result: str = ""
    models: dict[str, str] = {}
    steps: list[dict[str, Any]] = []
    error: Problem | None = None


class Written(msgspec.Struct, frozen=True):
    """A file, or a table, that a run wrote."""

    name: str
    path: str
    rows: int


class Report(msgspec.Struct, frozen=True):
    """What came of a run.

    Args:
        run: its id.
        state: ``done`` also when stages failed that may.
        parts: inputs, sources and stages, in the order in which they ended.
        outputs: that were written.
        quarantine: files of rows that were set aside.
        notes: what else there is to know.
    """

    run: str
    workflow: str
    version: str
    state: Literal["done", "failed", "cancelled"]
    seconds: float
    parts: tuple[StageReport, ...] = ()
    outputs: tuple[Written, ...] = ()
    quarantine: tuple[Written, ...] = ()
    notes: tuple[str, ...] = ()
    error: Problem | None = None

    def part(self, name: str) -> StageReport:
        """The part of that name; KeyError when there is none."""
        for part in self.parts:
            if part.name == name:
                return part
        raise KeyError(name)
