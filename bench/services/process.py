"""A program of its own for each contender, and the most memory that it and its children held."""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

#: How often memory is looked at.
_EVERY_S = 0.01
SECONDS_MAX = 1800


class Failed(Exception):
    """What the program said last."""


class Run(NamedTuple):
    """What a program found out, and its memory.

    ``peak_mb`` is the largest sum of the resident sets of the process and of all below it, looked
    at every 10 ms; what they share is counted for each.
    """

    found: Mapping[str, Any]
    peak_mb: float


def run(script: Path, *arguments: str, python: str = sys.executable) -> Run:
    """Run a script that prints one JSON object as its last line.

    Raises:
        Failed: it did not.
    """
    with tempfile.TemporaryFile("w+") as errors:
        command: Sequence[str] = [python, str(script), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        peak, done = [0], threading.Event()
        watch = threading.Thread(target=_watch, args=(process.pid, peak, done))
        watch.start()
        try:
            said, _ = process.communicate(timeout=SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Failed(f"{script.name} took longer than {SECONDS_MAX} s") from None
        finally:
            done.set()
            watch.join()
        errors.seek(0)
        lines = errors.read().strip().splitlines()
    if process.returncode or not said.strip():
        raise Failed(f"{script.name}: {lines[-1] if lines else process.returncode}")
    return Run(json.loads(said.strip().splitlines()[-1]), peak[0] / 1e6)


def _watch(pid: int, peak: list[int], done: threading.Event) -> None:
    while not done.wait(_EVERY_S):
        peak[0] = max(peak[0], _resident(pid))


def _resident(pid: int) -> int:
    """Bytes of a process and of all below it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it ended
        return 0
    own = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)
    return own + sum(_resident(int(child)) for child in below)
