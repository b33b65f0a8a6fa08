"""A working process: ``python -m streamapp.workflow.run.worker``; jobs in, answers out, by pipes.

It works for one run, and ends with the engine: its standard input closes.
"""

import os
import resource
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import BinaryIO

import msgspec

from streamapp.core.errors import StreamappError
from streamapp.plugin import Cancelled
from streamapp.workflow.run.jobs import Jobs
from streamapp.workflow.run.messages import (
    HEADER_BYTES,
    Advanced,
    Cancel,
    Failed,
    FromWorker,
    Job,
    Setup,
    ToWorker,
    frame,
)
from streamapp.workflow.run.secrets import Redactor

#: What a process may ask for beyond the memory of its run, which is looked at while it works: this
#: is for what asks for so much at once that the machine would be out of it before that.
_SPARE_BYTES = 4 << 30


def main() -> None:
    """Work until standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the engine's to take
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an operation prints is not an answer
    requests = sys.stdin.buffer
    setup = _next(requests)
    if not isinstance(setup, Setup):
        return
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    asked_max = setup.memory_bytes_max + _SPARE_BYTES
    least = asked_max if most == resource.RLIM_INFINITY else min(most, asked_max)
    resource.setrlimit(resource.RLIMIT_DATA, (least, most))
    sys.path[:] = [*setup.paths, *(path for path in sys.path if path not in setup.paths)]
    _Worker(setup, answers).serve(requests)


class _Worker:
    def __init__(self, setup: Setup, answers: BinaryIO) -> None:
        self._answers, self._writing = answers, Lock()
        self._pool = ThreadPoolExecutor(setup.slots)
        self._jobs = Jobs(setup, lambda job, rows: self._say(Advanced(job, rows)))

    def serve(self, requests: BinaryIO) -> None:
        while (message := _next(requests)) is not None:
            if isinstance(message, Cancel):
                self._jobs.stop.set()
            elif not isinstance(message, Setup):
                self._pool.submit(self._work, message)
        # The engine is gone, or wants no more: nobody would read what is still being worked out.
        os._exit(0)

    def _work(self, job: Job) -> None:
        try:
            answer: FromWorker = self._jobs.do(job)
        except Cancelled:
            answer = Failed(job.id, "Cancelled", "workflow.cancelled", "the run was stopped", "")
        except StreamappError as error:
            answer = _failed(job, error)
        except MemoryError:
            fix = "give it more memory, or smaller chunks: resources: {chunk_rows: ...}"
            answer = Failed(job.id, "Refuse", "workflow.memory", "it ran out of memory", fix)
        except BaseException as error:  # noqa: BLE001  # whatever an operation raises is told
            answer = _failed(job, Redactor().mistake(error))
        self._say(answer)

    def _say(self, answer: FromWorker) -> None:
        with self._writing:
            self._answers.write(frame(answer))
            self._answers.flush()


def _failed(job: Job, error: StreamappError) -> Failed:
    trace = "\n".join(getattr(error, "__notes__", ()))
    return Failed(job.id, type(error).__name__, error.code, error.message, error.fix, trace)


def _next(requests: BinaryIO) -> ToWorker | None:
    """The next message; None when the other side is gone."""
    header = requests.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return None
    body = requests.read(int.from_bytes(header, "big"))
    message: ToWorker = msgspec.msgpack.decode(body, type=ToWorker)
    return message


if __name__ == "__main__":
    main()
