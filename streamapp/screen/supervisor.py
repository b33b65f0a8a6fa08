"""Runs the processes of one machine: starts them, restarts one that dies, stops them in order.

Not honcho's manager: it ends everything when one process ends, and it keeps a Python process per
child.  The Procfile still runs under honcho, overmind or foreman.
"""

import asyncio
import contextlib
import ctypes
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Refuse, Retry

#: A process that ends this often in a row where it stood before is not started again.
FAULTS_MAX = 3
#: The fault of a process that lived this long is none in a row: while nothing comes to a stream, a
#: process stands where it stood, and may still end for other reasons, days apart.
FAULTS_APART_S = 600.0
RESTART_S_FIRST = 0.5
RESTART_S_MAX = 10.0
#: A process that lived this long had started; the next restart is quick again.
SETTLED_S = 30.0
LOG_BYTES_MAX = 16 << 20
#: Ends that are no fault of the process: it was told to end, or waits for somebody else.
_FROM_OUTSIDE = frozenset(
    {0, Retry.exit_code, -signal.SIGHUP, -signal.SIGINT, -signal.SIGKILL, -signal.SIGTERM}
)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h: the kernel signals a child whose parent has died

#: Faust's spinner hides the cursor, and moves it, even where there is none.
_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x08")

Printer = Callable[[str, str], None]
#: Where a child's work stands, by its name.
Stand = Callable[[str], Awaitable[object]]


@dataclass(slots=True)
class Child:
    """One supervised process.

    ``state`` is starting, running, waiting, refused or stopped; ``error`` and ``fix`` what it said
    last of why it ended.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    state: str = "starting"
    pid: int = 0
    restarts: int = 0
    started_s: float = 0.0
    exit_code: int | None = None
    error: str = ""
    fix: str = ""
    process: asyncio.subprocess.Process | None = None


class Supervisor:
    """Keeps children alive until told to stop.

    One that refuses its declaration (exit code 2) time and again is not started any more; nor is
    one with another fault, soon each time, where ``stand`` says that it got no further.

    Args:
        children: stopped in this order, one after the other, so that each drains into the next.
        logs: folder for ``NAME.log``, each child's output (started anew when it exceeds 16 MiB).
        printer: also told every line as (name, line).
        stand: asked where a child stands that ended by a fault; None: they get on.
        drain_s: what a child may take to stop before it is killed.
    """

    def __init__(
        self,
        children: Sequence[Child],
        logs: Path,
        *,
        drain_s: float,
        printer: Printer | None = None,
        stand: Stand | None = None,
    ) -> None:
        self.children = {child.name: child for child in children}
        self._logs = logs
        self._drain_s = drain_s
        self._printer, self._stand = printer, stand
        self._stopping = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start all children."""
        self._logs.mkdir(parents=True, exist_ok=True)
        for child in self.children.values():
            self._keepers.append(asyncio.create_task(self._keep(child), name=child.name))

    async def stop(self) -> bool:
        """SIGTERM each in order, SIGKILL one that takes too long; True when all ended cleanly."""
        self._stopping.set()
        clean = True
        for child in self.children.values():
            if child.process is None or child.process.returncode is not None:
                continue
            child.process.terminate()
            try:
                async with asyncio.timeout(self._drain_s + 2):
                    await child.process.wait()
            except TimeoutError:
                clean = False
                child.process.kill()
            # -SIGTERM: it had not even installed its handler, so there was nothing to finish.
            clean &= child.process.returncode in {0, None, -signal.SIGTERM}
        await asyncio.gather(*self._keepers, return_exceptions=True)
        return clean

    def refused(self) -> Child | None:
        """A child that will not be started again."""
        return next((c for c in self.children.values() if c.state == "refused"), None)

    def log(self, child: Child) -> Path:
        """The file of what a child said."""
        return self._logs / f"{child.name}.log"

    async def _keep(self, child: Child) -> None:
        wait_s, times, stood = RESTART_S_FIRST, 0, object()
        while not self._stopping.is_set():
            child.exit_code = await self._run(child)
            if self._stopping.is_set():
                break
            lived_s = monotonic_s() - child.started_s
            before, stood = stood, await self._stood(child)
            is_apart = lived_s > FAULTS_APART_S and child.exit_code != Refuse.exit_code
            times = 1 if stood != before or is_apart else times + 1
            if times >= FAULTS_MAX:
                child.state = "refused"
                return
            if lived_s > SETTLED_S:
                wait_s = RESTART_S_FIRST
            child.state = "waiting"
            why = f": {child.error}" if child.error else ""
            self._say(
                child, f"ended with {ending(child.exit_code)}{why}; starts again in {wait_s:g} s"
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stopping.wait()
            child.restarts += 1
            wait_s = min(wait_s * 2, RESTART_S_MAX)
        child.state = "stopped"

    async def _stood(self, child: Child) -> object:
        """Where a child stood when it ended; nowhere that it was before, if that says nothing."""
        if child.exit_code == Refuse.exit_code:
            return Refuse  # of a declaration, which stays as it is
        if self._stand is None or child.exit_code in _FROM_OUTSIDE:
            return object()
        return await self._stand(child.name)

    async def _run(self, child: Child) -> int:
        child.state, child.started_s, child.error, child.fix = "starting", monotonic_s(), "", ""
        child.process = await asyncio.create_subprocess_exec(
            *child.argv,
            env=dict(child.env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1 << 20,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            start_new_session=True,  # Ctrl-C reaches us alone, and we stop them in order
        )
        child.pid, child.state = child.process.pid, "running"
        if self._stopping.is_set():  # stop() passed by while this one was being started
            child.process.terminate()
        await self._copy_output(child)
        return await child.process.wait()

    async def _copy_output(self, child: Child) -> None:
        assert child.process is not None  # noqa: S101  # set by _run
        output = child.process.stdout
        assert output is not None  # noqa: S101  # stdout=PIPE
        while raw := await _next_line(output):
            line = _ESCAPES.sub(b"", raw)
            self._log(child, line)
            text = line.decode(errors="replace").rstrip("\n")
            if text.startswith("error: "):
                child.error = text.removeprefix("error: ")
            elif text.startswith("fix: "):
                child.fix = text.removeprefix("fix: ")
            if text and self._printer is not None:
                self._printer(child.name, text)

    def _say(self, child: Child, text: str) -> None:
        self._log(child, f"-- {child.name} {text}\n".encode())
        if self._printer is not None:
            self._printer(child.name, text)

    def _log(self, child: Child, line: bytes) -> None:
        """To the child's log, or to nobody: a full disk must not stop us reading its output.

        A child whose pipe nobody reads blocks for ever on its next line.
        """
        path = self.log(child)
        try:
            with path.open("ab") as log:
                if log.tell() > LOG_BYTES_MAX:
                    log.truncate(0)
                log.write(line)
        except OSError as error:
            if self._printer is not None:
                self._printer(child.name, f"{path}: {error.strerror}, not logged: ")


async def _next_line(output: asyncio.StreamReader) -> bytes:
    """A line, or what there is of one longer than the limit."""
    try:
        return await output.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await output.read(error.consumed)


def ending(code: int) -> str:
    """An exit code, or the signal that it stands for."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """In the child, before exec: be told to stop when the supervisor is killed."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
