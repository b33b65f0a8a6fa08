"""Programs that measure themselves: ``python -m ring.MODULE JSON`` prints one line of JSON."""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parents[1]
PROGRAM_S_MAX = 180.0
READY_S_MAX = 30.0
ACT_EVERY_S = 0.02


class Failed(Exception):
    """A program ended without a figure; its last words."""


@contextlib.contextmanager
def program(module: str, task: Any, python: str = sys.executable) -> Iterator[Any]:
    """A program that runs; it is killed if it still does at the end."""
    paths = os.pathsep.join([str(BENCH), str(BENCH.parent)])
    with subprocess.Popen(
        [python, "-P", "-m", f"ring.{module}", json.dumps(task)],
        cwd=BENCH,
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(module: str, task: Any, python: str = sys.executable) -> Any:
    """What a program says at its end."""
    with program(module, task, python) as process:
        return result(process, f"{module} {task}")


def result(process: Any, what: str) -> Any:
    """The JSON that is the last line of a program that ends."""
    try:
        said, _ = process.communicate(timeout=PROGRAM_S_MAX)
    except subprocess.TimeoutExpired:
        raise Failed(f"{what}: no figure in {PROGRAM_S_MAX:.0f} s") from None
    if process.returncode:
        raise Failed(f"{what}: {said[-2000:]}")
    return json.loads(said.splitlines()[-1])


def ready(process: Any, what: str) -> None:
    """Return when a program has said that it is ready."""
    line = process.stdout.readline()
    if line != "ready\n":
        raise Failed(f"{what}: {line}{process.communicate()[0][-2000:]}")


def ready_while(process: Any, act: Callable[[], object], what: str) -> None:
    """As :func:`ready`; until then ``act`` again and again: something has to arrive."""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        end_s = time.monotonic() + READY_S_MAX
        while not selector.select(ACT_EVERY_S):
            act()
            if time.monotonic() > end_s:
                raise Failed(f"{what}: nothing arrives")
    ready(process, what)


def say(what: Any) -> None:
    """Tell whoever started this program."""
    sys.stdout.write(f"{what if isinstance(what, str) else json.dumps(what)}\n")
    sys.stdout.flush()


def main(measure: Callable[[Any], Any]) -> None:
    """Be the program that the command line describes."""
    say(measure(json.loads(sys.argv[1])))
