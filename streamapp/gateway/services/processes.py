"""Processes that run operations: started when needed, killed when a call overstays."""

import asyncio
import logging
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress

from streamapp.core.errors import Halt, Refuse, Reject, Retry, StreamappError
from streamapp.workflow.callee import (
    HEADER_BYTES,
    PROCESS_BYTES_MAX,
    Answered,
    Asked,
    Failed,
    Ready,
    Setup,
    decoded,
    frame,
    no_memory,
)
from streamapp.workflow.run.watch import usage

#: Calls at once, each in a process of its own.
AT_ONCE = 2
#: An idle process that holds more is ended; memory of libraries does not come back otherwise.
_IDLE_BYTES_MAX = 512 << 20
_START_S_MAX = 60.0
_LOOK_EVERY_S = 0.1
_ERRORS: dict[str, type[StreamappError]] = {
    "Refuse": Refuse, "Retry": Retry, "Reject": Reject, "Halt": Halt,
}  # fmt: skip
_log = logging.getLogger("streamapp.gateway")


class Processes:
    """A few of them, of one gateway.

    Args:
        make_setup: what a new one is told; asked when one is started.
    """

    def __init__(self, make_setup: Callable[[], Setup]) -> None:
        self._make_setup = make_setup
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._idle: list[_Callee] = []
        self._all: set[_Callee] = set()

    async def run(self, asked: Asked, seconds: float) -> Answered:
        """One call, off this process; cancelled, it is killed.

        Args:
            asked: the call.
            seconds: it may wait so long for its turn, and then run so long.

        Raises:
            StreamappError: as the operation does, ``service.memory`` or ``service.crashed``.
            TimeoutError: it did not end in time, and was killed.
            RuntimeError: a mistake in the operation, with its traceback.
        """
        async with asyncio.timeout(seconds):
            await self._slots.acquire()
        try:
            callee = self._idle.pop() if self._idle else await self._started()
            try:
                async with asyncio.timeout(seconds):
                    answer = await callee.call(asked)
            except BaseException:
                await self._end(callee)
                raise
            if callee.held_bytes > _IDLE_BYTES_MAX:
                await self._end(callee)
            else:
                self._idle.append(callee)
        finally:
            self._slots.release()
        if isinstance(answer, Failed):
            raise _error_of(answer)
        return answer

    async def close(self) -> None:
        """End all of them."""
        for callee in list(self._all):
            await self._end(callee)

    async def _started(self) -> "_Callee":
        callee = _Callee()
        self._all.add(callee)
        try:
            async with asyncio.timeout(_START_S_MAX):
                await callee.start(self._make_setup())
        except BaseException:
            await self._end(callee)
            raise
        return callee

    async def _end(self, callee: "_Callee") -> None:
        self._all.discard(callee)
        if callee in self._idle:
            self._idle.remove(callee)
        callee.kill()
        await asyncio.shield(callee.ended())


class _Callee:
    """One process; one call at a time."""

    def __init__(self) -> None:
        self._process: Process | None = None

    @property
    def held_bytes(self) -> int:
        return usage(self._process.pid).memory_bytes if self._process else 0

    async def start(self, setup: Setup) -> None:
        """Start it, and wait until it takes calls."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "streamapp.workflow.callee",
            stdin=PIPE, stdout=PIPE, env={**os.environ, **setup.environ},  # noqa: TID251  # passed on
            start_new_session=True,  # Ctrl-C reaches the gateway alone, which ends its calls
        )  # fmt: skip
        await self._said(frame(setup))

    async def call(self, asked: Asked) -> Answered | Failed:
        """One call, with an eye on its memory."""
        saying = asyncio.create_task(self._said(frame(asked)))
        try:
            while not saying.done():
                if self.held_bytes > PROCESS_BYTES_MAX:
                    raise Refuse("service.memory", *no_memory(asked.name))
                await asyncio.wait([saying], timeout=_LOOK_EVERY_S)
            answer = saying.result()
            assert not isinstance(answer, Ready)  # noqa: S101  # said before
            return answer
        finally:
            saying.cancel()

    async def _said(self, message: bytes) -> Answered | Failed | Ready:
        process = self._process
        assert process is not None  # noqa: S101  # it was started
        assert process.stdin is not None  # noqa: S101  # a pipe
        assert process.stdout is not None  # noqa: S101  # a pipe
        try:
            process.stdin.write(message)
            await process.stdin.drain()
            header = await process.stdout.readexactly(HEADER_BYTES)
            return decoded(await process.stdout.readexactly(int.from_bytes(header, "big")))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.kill()
            code = await process.wait()
            _log.warning("a process of /v1/services ended with exit code %d", code)
            what = "the process that worked on it ended"
            raise Halt("service.crashed", what, "send fewer rows") from None

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def ended(self) -> None:
        if self._process is not None:
            await self._process.wait()


def _error_of(answer: Failed) -> Exception:
    if answer.kind not in _ERRORS:
        return RuntimeError(answer.trace)
    return _ERRORS[answer.kind](answer.code, answer.message, answer.fix)
