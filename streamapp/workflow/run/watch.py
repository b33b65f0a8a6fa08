"""What a process and its children hold and have worked, as the kernel counts it."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


class Usage(NamedTuple):
    """Of a process and those that it started.

    ``memory_bytes`` is what they hold themselves: mapped files, which the kernel drops as it likes,
    are not in it.  ``cpu_s`` is of those that live.
    """

    memory_bytes: int
    cpu_s: float


def usage(pid: int) -> Usage:
    """Of a process and its children, and theirs; zero when it is gone."""
    memory, cpu = 0, 0.0
    left = [pid]
    while left:
        folder = _PROC / str(left.pop())
        with suppress(OSError, ValueError, IndexError):
            memory += _anonymous_bytes(folder)
            cpu += _cpu_s(folder)
            for task in (folder / "task").iterdir():
                left.extend(map(int, (task / "children").read_text().split()))
    return Usage(memory, cpu)


def _anonymous_bytes(folder: Path) -> int:
    total = 0
    for line in (folder / "status").read_text().splitlines():
        if line.startswith(("RssAnon:", "RssShmem:")):
            total += int(line.split()[1]) << 10
    return total


def _cpu_s(folder: Path) -> float:
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def machine_memory_bytes() -> int:
    """What this process and its children may hold: of the machine, or of its control group."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" is no number
            total = min(total, int((Path("/sys/fs/cgroup") / name).read_text()))
    return total


def machine_cpus() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))
