"""Runs of workflows: each in a process of its own, a few at once, the others in a queue.

A run has a folder: ``run.json`` is what is known of it, ``outputs/`` what it wrote.
"""

import asyncio
import logging
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from streamapp.core.clock import Clock
from streamapp.gateway.problem import RETRY_AFTER, ProblemError
from streamapp.gateway.services.wire import Run, RunError

#: Runs at once, those that may wait, and those that are remembered of a workflow.
AT_ONCE = 2
WAITING_MAX = 20
KEPT_MAX = 100
#: What a run may print of itself; a report is some hundred bytes for a stage.
_PRINTED_BYTES_MAX = 4 << 20
#: How long a cancelled run has to leave its cache in order.
_CANCEL_S_MAX = 20.0
_ENDED = frozenset({"done", "failed", "cancelled", "interrupted"})
_run = msgspec.json.Decoder(Run)
_report = msgspec.json.Decoder(dict[str, Any])
_log = logging.getLogger("streamapp.gateway")


class Runs:
    """All runs of this gateway.

    Args:
        folder: theirs; made when the first run begins.
        clock: for their times.
        environ: settings of their processes.
        run_s_max: how long one may take, once it is its turn.
    """

    def __init__(
        self, folder: Path, clock: Clock, environ: Mapping[str, str], run_s_max: float
    ) -> None:
        self._folder, self._environ = folder, environ
        self._run_s_max = run_s_max
        self._clock = clock
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cancelled: set[str] = set()

    def recover(self) -> None:
        """Runs that ended with the gateway before this one are marked so."""
        for path in self._folder.glob("*/*/run.json"):
            run = _read(path)
            if run is not None and run.status not in _ENDED:
                run.status, run.ended_ms = "interrupted", self._now_ms()
                self._write(run)

    def start(self, workflow: str, file: Path, params: Mapping[str, Any]) -> Run:
        """Queue a run.

        Raises:
            ProblemError: 429 too many wait.
        """
        if len(self._tasks) >= AT_ONCE + WAITING_MAX:
            raise ProblemError(
                429,
                "workflow.busy",
                f"{len(self._tasks)} runs go or wait already",
                "wait until one has ended",
                RETRY_AFTER,
            )
        now_ms = self._now_ms()
        run = Run(f"{now_ms}-{uuid4().hex[:8]}", workflow, "queued", now_ms, params=dict(params))
        self._forget_old(workflow)
        self._place(run).mkdir(parents=True)
        self._write(run)
        task = asyncio.create_task(self._carry_out(run, file))
        self._tasks[run.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(run.id, None))
        return run

    def all(self, workflow: str) -> list[Run]:
        """The workflow's runs, the newest first."""
        paths = (self._folder / workflow).glob("*/run.json")
        found = [run for path in paths if (run := _read(path)) is not None]
        return sorted(found, key=lambda run: run.id, reverse=True)

    def get(self, workflow: str, run_id: str) -> Run | None:
        """One run; None when there is none."""
        path = self._folder / workflow / run_id / "run.json"
        return _read(path) if path.parent.parent == self._folder / workflow else None

    def outputs(self, run: Run) -> Path:
        """Where a run writes."""
        return self._place(run) / "outputs"

    async def cancel(self, run: Run) -> None:
        """Stop a run, and wait until it has; one that has ended stays as it is."""
        task = self._tasks.get(run.id)
        if task is not None:
            self._cancelled.add(run.id)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """Stop all runs; their caches stay, so that starting them again goes on."""
        held = list(self._tasks.values())
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)

    async def _carry_out(self, run: Run, file: Path) -> None:
        try:
            async with self._slots:
                run.status, run.started_ms = "running", self._now_ms()
                self._write(run)
                async with asyncio.timeout(self._run_s_max):
                    await self._in_process(run, self._command(run, file), file.parent)
        except asyncio.CancelledError:
            run.status = "cancelled" if run.id in self._cancelled else "interrupted"
            raise
        except TimeoutError:
            run.status = "failed"
            run.error = RunError(
                "workflow.timeout",
                f"it did not end within {self._run_s_max:g} s and was stopped",
                "raise run_s_max; what its stages have finished stays in the cache",
            )
        except OSError as error:
            run.status = "failed"
            run.error = RunError("workflow.process", f"its process: {error.strerror}")
        finally:
            self._cancelled.discard(run.id)
            run.ended_ms = self._now_ms()
            self._write(run)

    def _command(self, run: Run, file: Path) -> Sequence[str]:
        program = (sys.executable, "-P", "-m", "streamapp.cli", "run", str(file), "--json")
        # In JSON a text stays a text, though it looks like a number, and has no byte of zero.
        values = {name: msgspec.json.encode(value).decode() for name, value in run.params.items()}
        params = [f"--set={name}={value}" for name, value in values.items()]
        return [*program, "--out", str(self.outputs(run)), *params]

    async def _in_process(self, run: Run, command: Sequence[str], folder: Path) -> None:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env={**os.environ, **self._environ},  # noqa: TID251  # passed on
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=_PRINTED_BYTES_MAX,
        )
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        try:
            printed = bytearray()
            while piece := await process.stdout.read(65_536):
                printed += piece[: _PRINTED_BYTES_MAX - len(printed)]  # what is more is not kept
            code = await process.wait()
        except asyncio.CancelledError:
            await _interrupt(process)
            raise
        said = _said(printed)
        run.status = "failed" if code else "done"
        if code:
            error = said.get("error") or {}
            run.error = RunError(
                str(error.get("code", "workflow.process")),
                str(error.get("message", f"its process ended with exit code {code}")),
                str(error.get("fix", "")),
            )
        else:
            run.report = said

    def _forget_old(self, workflow: str) -> None:
        for run in self.all(workflow)[KEPT_MAX - 1 :]:
            if run.id not in self._tasks:
                shutil.rmtree(self._place(run))

    def _place(self, run: Run) -> Path:
        return self._folder / run.workflow / run.id

    def _write(self, run: Run) -> None:
        """All of ``run.json`` or none of it."""
        path = self._place(run) / "run.json"
        beside = path.with_suffix(".new")
        beside.write_bytes(msgspec.json.encode(run))
        beside.replace(path)

    def _now_ms(self) -> int:
        return self._clock.now_us() // 1000


async def _interrupt(process: asyncio.subprocess.Process) -> None:
    """As Ctrl-C does; and for good when that does not end it in time."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(_CANCEL_S_MAX):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _read(path: Path) -> Run | None:
    """What is known of a run; None when nothing is, or the machine stopped while it was written."""
    try:
        return _run.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        if not isinstance(error, FileNotFoundError):
            _log.warning("%s cannot be read, and is left out: %s", path, error)
        return None


def _said(printed: bytes | bytearray) -> dict[str, Any]:
    """The report, or the error, that a run printed last."""
    try:
        return _report.decode(printed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
