"""The C engine, the twin, a C program and a reader made of ``struct`` agree, from descriptors alone."""

import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ring_content
from machine import stop

from streamapp.ring import RECORD_DTYPE, Column, RingReader, RingSpec, RingWriter, new_records

ROOT = Path(__file__).parents[2]
STRUCT_READER = ROOT / "examples/ring_struct_reader.py"
SHOWN = 8
SPECS = {
    "plain": RingSpec(5, 16),
    "halves": RingSpec(3, 16, "<f2"),
    "columns": RingSpec(7, 16, extra=(Column("intent_scores", 3), Column("small", 2, "<f2"))),
}


@pytest.fixture(scope="module")
def ring_reader(tmp_path_factory):
    """The example, compiled as its first lines say and with sanitizers; a warning is an error."""
    program = tmp_path_factory.mktemp("c") / "ring_reader"
    flags = ["-O2", "-std=c11", "-Wall", "-Wextra", "-Werror", "-I", ROOT / "include"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["cc", *flags, ROOT / "examples/ring_reader.c", "-o", program], check=True)
    return program


def write(writer, n, at=0):
    keys = np.arange(at, at + n)
    records = ring_content.records(keys)
    records["sentiment"][::3] = np.nan
    records["velocity"] *= np.float32(-1 / 3)
    extra = {c.name: np.outer(keys, np.linspace(-1, 1, c.dim)) for c in writer.spec.extra}
    vectors = ring_content.vectors(keys, writer.spec.dim) / (1 << 22)
    writer.write(records, vectors, extra=extra)


def leave_unfinished(writer, n):
    """What a killed writer leaves: claimed and not finished."""
    reservation = writer.reserve(n)
    del reservation
    writer.close()


def text(value):
    return ",".join(
        f"{item:.9g}" if np.ndim(item) == 0 and isinstance(item, float | np.floating) else str(item)
        for item in np.ravel(value)[:SHOWN]
    )


def lines(frames):
    names = [*RECORD_DTYPE.names, *frames.columns]
    return [" ".join(f"{name}={text(getattr(f, name))}" for name in names) for f in frames]


def run(*command):
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout.splitlines(), done.stderr.splitlines()[-1:], done.returncode


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_all_of_them_agree_on_every_field(shm, ring_reader, spec):
    path = shm / "ring"
    writer = RingWriter.open(path, spec)
    for start in range(0, 21, 7):
        write(writer, 7, start)
    leave_unfinished(writer, 3)
    with RingWriter.open(path, spec) as writer:
        write(writer, 2, 24)
    expected = lines(RingReader.open(path).read())
    assert len(expected) == 13
    assert len(set(expected)) == 13
    assert lines(RingReader.open(path, engine="twin").read()) == expected
    counts = ["13 frames, 0 lost, 3 void"]
    assert run(ring_reader, path) == (expected, counts, 0)
    assert run(sys.executable, "-S", STRUCT_READER, path) == (expected, counts, 0)


def test_head_may_end_the_struct_reader(shm):
    with RingWriter.open(shm / "ring", RingSpec(4, 2048)) as writer:
        writer.write(new_records(1024), np.zeros((1024, 4)))
    command = [sys.executable, "-S", STRUCT_READER, shm / "ring"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""


def test_an_empty_ring(shm, ring_reader):
    RingWriter.open(shm / "ring", RingSpec(4, 16)).close()
    assert run(ring_reader, shm / "ring") == ([], ["0 frames, 0 lost, 0 void"], 0)


#: Places in the header and in the descriptors of stamp and spin, and hostile bytes for them.
DAMAGE = {
    "order": (12, b"\1\2\3\4"),
    "capacity": (16, b"\3"),
    "huge capacity": (16, b"\0" * 7 + b"\x40"),
    "no capacity": (16, b"\0"),
    "file bytes": (24, b"\xff" * 8),
    "columns": (36, b"\xff"),
    "no columns": (36, b"\0"),
    "name": (1024, b"x" * 24),
    "dtype": (1024 + 24, b"<M8"),
    "stamp beyond the end": (1024 + 32, struct.pack("<IIIIQ", 1, 0, 0, 0, 12544 - 15 * 128)),
    "stamp of another type": (1024 + 24, b"|u1"),
    "offset": (1024 + 48, b"\xff" * 8),
    "odd offset": (1024 + 48, b"\1"),
    "stride": (1024 + 56, b"\xff" * 8),
    "shape": (1024 + 13 * 64 + 36, b"\xff" * 4),
}


@pytest.mark.parametrize("content", [b"", b"EVRING\0\2", b"x" * 9000, *DAMAGE])
def test_the_c_example_refuses_what_is_no_ring(shm, ring_reader, content):
    path = shm / "ring"
    if isinstance(content, str):
        RingWriter.open(path, RingSpec(4, 16)).close()
        whole = bytearray(path.read_bytes())
        place, damage = DAMAGE[content]
        whole[place : place + len(damage)] = damage
        content = bytes(whole)
    path.write_bytes(content)
    out, [told], code = run(ring_reader, path)
    assert (out, code) == ([], 2)
    assert told.startswith(f"ring_reader: {path}: ")
    out, [told], code = run(sys.executable, "-S", STRUCT_READER, path)
    assert (out, code) == ([], 1)
    assert told.startswith(f"{path}: ")


def test_the_c_example_follows(shm, ring_reader):
    """Woken by the writer, through laps it counts, until another file takes the place."""
    writer = RingWriter.open(shm / "ring", RingSpec(4, 16))
    command = [str(ring_reader), str(shm / "ring"), "follow"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        for turn in range(20):
            writer.write(new_records(1), np.full((1, 4), turn))
            assert f"semantic={turn},{turn}," in process.stdout.readline()
        stop(process.pid)
        for turn in range(20, 60, 8):
            writer.write(new_records(8), np.full((8, 4), turn))
        writer.close()
        RingWriter.open(shm / "ring", RingSpec(5, 16)).close()
        process.send_signal(signal.SIGCONT)
        rest, told = process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(rest.splitlines()) == 16
    assert told == "36 frames, 24 lost, 0 void\n"
