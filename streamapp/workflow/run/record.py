"""What is kept of a run: its record, by which it is resumed, and where its outputs came from."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from streamapp.core.clock import now_us
from streamapp.core.errors import Refuse
from streamapp.workflow.data.replacing import replaced
from streamapp.workflow.run.cache import Cache, Entry
from streamapp.workflow.run.parts import disk

if TYPE_CHECKING:
    from streamapp.workflow.run.context import Context
    from streamapp.workflow.run.report import Report

#: Records of runs that are kept.
RECORDS_MAX = 200


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Args:
        run: its id.
        path: of the workflow's file; empty: it was built in Python.
        params: that were given.
        folder_out: of its outputs.
        state: ``running`` also of one that was killed.
        pinned: what it read from the network, by ``input:NAME`` and ``source:NAME``.
    """

    run: str
    workflow: str
    path: str
    params: dict[str, Any]
    folder_out: str
    started_us: int
    state: Literal["running", "done", "failed", "cancelled"]
    pinned: dict[str, Entry] = {}


def keep_record(cache: Cache, record: Record) -> None:
    """Keep a run's record, and forget those of long ago."""
    cache.save("runs", record.run, record)
    known = sorted((cache.folder / "runs").glob("*.json"))
    for old in known[:-RECORDS_MAX]:
        old.unlink(missing_ok=True)
        old.with_suffix(".lock").unlink(missing_ok=True)


@contextmanager
def running(cache: Cache, run: str) -> Iterator[None]:
    """Mark a run as under way in this process, for as long as the process lives at most.

    Raises:
        Refuse: ``workflow.busy``: it is under way already.
    """
    path = cache.folder / "runs" / f"{run}.lock"
    with disk(path):
        file = path.open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refuse(
                "workflow.busy", f"run {run!r} is under way", "wait for its end, or stop it"
            ) from None
        yield
        path.unlink(missing_ok=True)


def find_record(cache: Cache, path: Path | None = None, run: str | None = None) -> Record:
    """The newest run that did not end well, of a file or of an id.

    Raises:
        Refuse: ``workflow.resume``: there is none.
    """
    names = sorted((file.stem for file in (cache.folder / "runs").glob("*.json")), reverse=True)
    for name in names:
        record = cache.load("runs", name, Record)
        if record is None or (run and record.run != run):
            continue
        if path and record.path != str(path.absolute()):
            continue
        if record.state != "done":
            return record
        if run or path:
            break  # a newer one ended well
    what = f"run {run!r}" if run else f"run of {path}" if path else "run"
    raise Refuse(
        "workflow.resume", f"no {what} is waiting to be resumed", "start one with streamapp run"
    )


def write_provenance(context: "Context", folder_out: Path, report: "Report") -> None:
    """Write beside the outputs what they came from: ``WORKFLOW.provenance.json``.

    It has the workflow as declared (secrets are references there), what every part took and gave,
    by digests of content, and the models that were used.
    """
    graph = context.graph
    steps = {
        step.name: [
            {"operation": call.operation, "version": call.kind.version, "config": call.config,
             "variables": call.variables}
            for call in context.binding.calls[step.name]
        ]
        for step in graph.stages
    }  # fmt: skip
    document = {
        "streamapp": version("streamapp"),
        "run": report.run,
        "made_us": now_us(),
        "workflow": graph.declared(),
        "params": context.binding.params,
        "stages": steps,
        "parts": report.parts,
        "outputs": report.outputs,
        "quarantine": report.quarantine,
    }
    content = msgspec.json.format(msgspec.json.encode(document, enc_hook=str), indent=2)
    with replaced(folder_out / f"{graph.name}.provenance.json") as part:
        part.write_bytes(content + b"\n")
