"""The C code of the ring, without Python, beside memcpy: builds copies.c and runs it."""

import contextlib
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ring.rows import Shape

from streamapp.ring import RingSpec, RingWriter, layout

ROOT = Path(__file__).parents[2]
_ENGINE = ROOT / "streamapp" / "ring"


class Place(NamedTuple):
    """Where a ring file has its records and its vectors, as its descriptors say."""

    path: Path
    record_off: int
    column_off: int


@contextlib.contextmanager
def ring_file(shape: Shape) -> Iterator[Place]:
    """A ring in shared memory that nobody writes."""
    folder = Path(tempfile.mkdtemp(prefix="bench-ring-", dir="/dev/shm"))
    try:
        RingWriter.open(folder / "ring", RingSpec(shape.dim, shape.capacity)).close()
        yield place_of(folder / "ring")
    finally:
        shutil.rmtree(folder)


def place_of(path: Path) -> Place:
    """From the file itself."""
    page = path.open("rb").read(layout.HEADER_BYTES)
    count = int(np.frombuffer(page, layout.HEADER_DTYPE)[0]["n_columns"])
    table = np.frombuffer(page, layout.DESCRIPTOR_DTYPE, count, layout.DESC_OFF)
    found = {bytes(row["name"]): int(row["offset"]) for row in table}
    return Place(path, found[b"stamp"], found[b"semantic"])


@contextlib.contextmanager
def compiled(name: str) -> Iterator[Path]:
    """The program of a C file here, with the engine's own code, optimised as the wheel's."""
    with tempfile.TemporaryDirectory(prefix="bench-ring-") as folder:
        binary = Path(folder) / name
        source = Path(__file__).with_name(f"{name}.c")
        includes = [f"-I{ROOT / 'include'}", f"-I{_ENGINE}"]
        compiler = [os.environ.get("CC", "cc"), "-std=gnu11", "-O2", *includes]
        sources = [str(source), str(_ENGINE / "_protocol.c")]
        subprocess.run([*compiler, "-o", str(binary), *sources], check=True)
        yield binary


def costs(binary: Path, shape: Shape, chunk: int, laps: int) -> dict[str, float]:
    """Medians of what chunks cost, ns a row, and of the ratios to memcpy chunk by chunk."""
    with ring_file(shape) as place:
        numbers = [shape.capacity, place.record_off, place.column_off, shape.vector_bytes]
        numbers += [shape.batch, chunk, laps]
        command = [str(binary), str(place.path), *map(str, numbers)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    write, read = (
        [tuple(map(float, line.split())) for line in part.splitlines()]
        for part in said.split("\n\n")
    )
    return summary("write", "memcpy in", write) | summary("read", "memcpy out", read)


def summary(name: str, memcpy: str, pairs: Sequence[tuple[float, ...]]) -> dict[str, float]:
    """Of pairs (memcpy, ours)."""
    return {
        memcpy: statistics.median(pair[0] for pair in pairs),
        name: statistics.median(pair[1] for pair in pairs),
        f"{name} to memcpy": statistics.median(pair[1] / pair[0] for pair in pairs),
    }
