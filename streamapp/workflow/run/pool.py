"""Working processes: started when needed, kept for the next job, killed when they overstay."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

import msgspec

from streamapp.core.errors import Halt, Refuse, Reject, Retry, StreamappError
from streamapp.plugin import Cancelled, Models
from streamapp.workflow.run.asked import make_models
from streamapp.workflow.run.messages import (
    HEADER_BYTES,
    MESSAGE_BYTES_MAX,
    Advanced,
    Cancel,
    Done,
    Failed,
    FromWorker,
    Job,
    Setup,
    frame,
)
from streamapp.workflow.run.sizing import PROCESS_BYTES
from streamapp.workflow.run.watch import Usage, usage

#: An idle process that holds more is ended: what it holds is nobody's share any more.
IDLE_BYTES_MAX = PROCESS_BYTES
#: From a Cancel to the end of patience.
CANCEL_S = 3.0
_ERRORS: Mapping[str, type[StreamappError]] = {
    "Refuse": Refuse, "Retry": Retry, "Reject": Reject, "Halt": Halt,
}  # fmt: skip
_EXIT_SIGNALS = {-9: "killed (out of memory?)", -11: "crashed (segmentation fault)", -6: "aborted"}


class Pool:
    """The working processes of one run.

    Args:
        cache: folder of the parts.
        folder: of the workflow's file.
        environ: settings, as an environment.
        models: see ``Setup``.
        memory_bytes_max: see ``Setup``.
    """

    def __init__(
        self,
        cache: Path,
        folder: Path,
        environ: Mapping[str, str],
        models: str,
        memory_bytes_max: int,
    ) -> None:
        self._setup = (str(cache), str(folder), dict(environ), models)
        self._memory_bytes_max = memory_bytes_max
        self._idle: dict[int, list[Worker]] = {}
        self._all: set[Worker] = set()
        self._leaving: set[asyncio.Task[None]] = set()

    def models(self) -> "Models":
        """The models, as working processes make them, to look at their names."""
        _, folder, environ, models = self._setup
        return make_models(models, Path(folder), environ)

    async def take(self, slots: int = 1) -> "Worker":
        """A process for oneself, that does so many jobs at once."""
        idle = self._idle.get(slots, [])
        while idle:
            worker = idle.pop()
            if worker.alive:
                return worker
        cache, folder, environ, models = self._setup
        paths = tuple(path or str(Path.cwd()) for path in sys.path)
        worker = Worker(Setup(paths, cache, folder, environ, models, slots, self._memory_bytes_max))
        await worker.start()
        self._all.add(worker)
        return worker

    def give_back(self, worker: "Worker") -> None:
        """Keep a process for the next that takes one; one that holds much is ended."""
        if not worker.alive or worker.usage().memory_bytes > IDLE_BYTES_MAX:
            self._all.discard(worker)
            self._leaving.add(asyncio.create_task(worker.leave()))
        else:
            self._idle.setdefault(worker.slots, []).append(worker)

    def retire(self, worker: "Worker") -> None:
        """Stop a process in the middle of its work; it may leave by itself first."""
        worker.cancel()
        self._all.discard(worker)
        self._leaving.add(asyncio.create_task(worker.leave()))

    async def close(self) -> None:
        """End all processes."""
        for worker in self._all:
            worker.kill()
        for worker in self._all:
            await worker.ended()
        if self._leaving:
            await asyncio.wait(self._leaving)


class Worker:
    """One working process."""

    def __init__(self, setup: Setup) -> None:
        self.slots = setup.slots
        self._setup = setup
        self._ids = count(1)
        self._waiting: dict[int, asyncio.Future[Done]] = {}
        self._advanced: dict[int, Callable[[int], None]] = {}
        self._process: Process | None = None
        self._handle: int | None = None
        self._reading: asyncio.Task[None] | None = None
        #: Jobs whose answer is to come, also those that nobody waits for any more.
        self._under_way: set[int] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> None:
        """Start the process."""
        threads = {"PYTHONUNBUFFERED": "1"}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "streamapp.workflow.run.worker",
            stdin=PIPE, stdout=PIPE, env={**os.environ, **threads},  # noqa: TID251  # passed on
        )  # fmt: skip
        self._handle = os.pidfd_open(self._process.pid)
        self._send(frame(self._setup))
        self._reading = asyncio.create_task(self._read())

    @property
    def alive(self) -> bool:
        """Whether it can take a job."""
        process = self._process
        return process is not None and process.returncode is None and not self._done_reading()

    def usage(self) -> Usage:
        """What it holds now and has worked so far."""
        return usage(self._process.pid) if self._process else Usage(0, 0.0)

    async def do(
        self, make: Callable[[int], Job], advanced: Callable[[int], None] | None = None
    ) -> Done:
        """Do a job.

        Args:
            make: the job, of its id.
            advanced: told of rows that are done.

        Raises:
            StreamappError: as the job ended; ``workflow.crashed`` when the process did.
            Cancelled: the run is to stop.
        """
        job = next(self._ids)
        future: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._waiting[job] = future
        if advanced:
            self._advanced[job] = advanced
        try:
            if not self.alive:
                raise self._crashed()
            self._under_way.add(job)
            self._idle.clear()
            self._send(frame(make(job)))
            return await future
        finally:
            self._waiting.pop(job, None)
            self._advanced.pop(job, None)

    def cancel(self) -> None:
        """Ask what it works on to stop."""
        with contextlib.suppress(OSError):
            self._send(frame(Cancel()))

    async def leave(self) -> None:
        """Until what it works on has stopped, or patience ends; then end it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_S):
                await self._idle.wait()
        self.kill()
        await self.ended()

    def kill(self) -> None:
        """End it at once."""
        if self._handle is not None:
            # By its handle: by its number asyncio's own look at a dead one would be upset.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    async def ended(self) -> None:
        """Until it is gone."""
        if self._process:
            await self._process.wait()
        if self._reading:
            await self._reading
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _send(self, data: bytes) -> None:
        if self._process and self._process.stdin:
            self._process.stdin.write(data)

    def _done_reading(self) -> bool:
        return self._reading is None or self._reading.done()

    async def _read(self) -> None:
        """Take answers until the process is gone, which fails all that is waited for."""
        stream = self._process.stdout if self._process else None
        try:
            while stream is not None:
                header = await stream.readexactly(HEADER_BYTES)
                size = int.from_bytes(header, "big")
                if size > MESSAGE_BYTES_MAX:
                    break
                body = await stream.readexactly(size)
                self._take(msgspec.msgpack.decode(body, type=FromWorker))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        self.kill()
        if self._process:
            await self._process.wait()
        self._idle.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(self._crashed())

    def _take(self, message: FromWorker) -> None:
        if isinstance(message, Advanced):
            if message.id in self._advanced:
                self._advanced[message.id](message.rows)
            return
        self._under_way.discard(message.id)
        if not self._under_way:
            self._idle.set()
        future = self._waiting.get(message.id)
        if future is None or future.done():
            return
        if isinstance(message, Done):
            future.set_result(message)
        else:
            future.set_exception(_error_of(message))

    def _crashed(self) -> Halt:
        code = self._process.returncode if self._process else None
        how = _EXIT_SIGNALS.get(code or 0, f"ended with exit code {code}")
        return Halt(
            "workflow.crashed", f"the process that worked on it was {how}",
            "see what it printed; give it less at once by resources: {chunk_rows: ...}",
        )  # fmt: skip


def _error_of(message: Failed) -> Exception:
    if message.kind == "Cancelled":
        return Cancelled()
    error = _ERRORS[message.kind](message.code, message.message, message.fix)
    if message.trace:
        error.add_note(message.trace)
    return error
