"""The file itself as arrays: no copy, checked after use, and nothing that dangles."""

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ring_content

from streamapp.core.errors import Halt
from streamapp.ring import Column, Ring, RingSpec, RingWriter

#: 1024 rows of 8 floats are whole pages: the column can be mapped twice, back to back.
TWICE = RingSpec(8, 1024, extra=(Column("small", 4, "<f2"),))
ONCE = RingSpec(3, 16)


def write(writer, n, at=0):
    keys = np.arange(at, at + n)
    extra = {
        column.name: np.repeat(keys[:, None] % 1000, column.dim, 1) for column in writer.spec.extra
    }
    writer.write(
        ring_content.records(keys), ring_content.vectors(keys, writer.spec.dim), extra=extra
    )


@pytest.fixture
def writer(shm, engine):
    with RingWriter.open(shm / "ring", TWICE, engine=engine) as ring:
        yield ring


def test_the_whole_file_as_arrays(writer, engine):
    write(writer, 10)
    with Ring.open(writer.path, engine=engine) as ring:
        assert (ring.capacity, ring.head(), ring.claim(), ring.retired) == (1024, 10, 10, False)
        assert ring.semantic.shape == (1024, 8)
        assert list(ring.columns) == ["semantic", "small"]
        assert ring.records["frame_id"][:10].tolist() == list(range(10))
        before = ring.semantic[10].copy()
        write(writer, 1, 10)
        assert ring.semantic[10].tolist() != before.tolist(), "no copy: it is the ring"
        for array in (ring.records, *ring.columns.values()):
            assert not array.flags.writeable


def test_a_closed_ring_says_so(writer, engine):
    ring = Ring.open(writer.path, engine=engine)
    ring.close()
    ring.close()
    for use in (ring.head, ring.latest, lambda: ring.semantic, lambda: ring.retired):
        with pytest.raises(Halt, match="was closed") as caught:
            use()
        assert caught.value.code == "ring.closed"


def test_a_window_is_the_file_s_memory(writer, engine):
    write(writer, 20)
    ring = Ring.open(writer.path, engine=engine)
    window = ring.window(5, 7)
    assert (window.first, len(window)) == (5, 7)
    assert window.frame_id.tolist() == list(range(5, 12))
    assert np.shares_memory(window.semantic, ring.semantic)
    assert np.shares_memory(np.from_dlpack(window), ring.semantic)
    assert window.semantic.flags.c_contiguous
    assert window.small[:, 0].tolist() == list(range(5, 12))
    assert ring_content.wrong_rows(window) == 0
    assert window.valid().tolist() == [True] * 7
    assert ring.latest(3).frame_id.tolist() == [17, 18, 19]
    assert ring.latest(3)[0].small.tolist() == [17] * 4


def test_a_window_is_what_is_there(writer, engine):
    ring = Ring.open(writer.path, engine=engine)
    for window in (ring.window(0, 5), ring.latest(), ring.window(7, 0), ring.window(7, -1)):
        assert len(window) == 0
        assert window.semantic.shape == (0, 8)
        assert window.valid().shape == (0,)
    write(writer, 512)
    write(writer, 512, 512)
    write(writer, 100, 1024)
    window = ring.window(90, 30)
    assert (window.first, len(window)) == (100, 20), "rows before were overwritten"
    assert len(ring.window(1120, 30)) == 4, "rows after are not there yet"
    assert len(ring.window(0, 10**6)) == (1024 if engine == "c" else 924)


def test_a_window_over_the_wrap(writer, engine):
    """In C one piece, the column mapped twice; the twin ends it at the end of the file."""
    for start in range(0, 1536, 512):
        write(writer, 512, start)
    ring = Ring.open(writer.path, engine=engine)
    window = ring.window(1000, 50)
    assert len(window) == (50 if engine == "c" else 24)
    assert window.frame_id.tolist() == list(range(1000, 1000 + len(window)))
    assert ring_content.wrong_rows(window) == 0
    assert window.valid().all()
    rest = ring.window(window.first + len(window), 50 - len(window))
    assert rest.frame_id.tolist() == list(range(1000 + len(window), 1050))


def test_a_column_that_is_no_whole_pages_ends_at_the_wrap(shm, engine):
    with RingWriter.open(shm / "ring", ONCE, engine=engine) as writer:
        for start in range(0, 24, 8):
            write(writer, 8, start)
        ring = Ring.open(shm / "ring", engine=engine)
        assert ring.window(14, 8).frame_id.tolist() == [14, 15]
        assert ring.window(16, 8).frame_id.tolist() == list(range(16, 24))
        assert ring.latest(10).frame_id.tolist() == list(range(16, 24)), "the newest piece"


def test_rows_that_were_overwritten_are_told(writer, engine):
    write(writer, 512)
    ring = Ring.open(writer.path, engine=engine)
    window = ring.window(0, 8)
    write(writer, 512, 512)
    assert window.valid().all(), "not come round yet"
    write(writer, 3, 1024)
    assert window.valid().tolist() == [False] * 3 + [True] * 5
    assert window.frame_id.tolist() == list(range(8)), "records are a copy"
    assert window.semantic[3:].tolist() == ring_content.vectors(np.arange(3, 8), 8).tolist()
    write(writer, 512, 1027)
    assert not window.valid().any()


def test_rows_that_are_only_claimed_are_told(writer, engine):
    """Reserved rows are written before they are published: claim is what counts, not head."""
    for start in (0, 512):
        write(writer, 512, start)
    ring = Ring.open(writer.path, engine=engine)
    window = ring.window(0, 8)
    with writer.reserve(4) as reservation:
        assert (ring.head(), ring.claim()) == (1024, 1028)
        assert window.valid().tolist() == [False] * 4 + [True] * 4
        reservation.abandon()
    write(writer, 1, 1028)
    assert ring.window(1024, 5).valid().tolist() == [False] * 4 + [True], "void rows are no rows"


def test_a_retired_file_says_so_and_stays_usable(writer, shm, engine):
    write(writer, 5)
    ring = Ring.open(shm / "ring", engine=engine)
    window = ring.latest(2)
    writer.close()
    with RingWriter.open(shm / "ring", RingSpec(9, 1024), engine=engine):
        assert ring.retired
        assert window.valid().all()
        assert not Ring.open(shm / "ring", engine=engine).retired


def mapped(path):
    return Path("/proc/self/maps").read_text(encoding="ascii").count(str(path))


def test_windows_own_their_mapping(shm, engine):
    """Also the second one, over the wrap: nothing dangles, nothing stays."""
    with RingWriter.open(shm / "ring", TWICE, engine=engine) as writer:
        for start in range(0, 1536, 512):
            write(writer, 512, start)
    del writer
    gc.collect()
    ring = Ring.open(shm / "ring", engine=engine)
    window = ring.window(1000, 50)
    column = window.semantic
    expected = column.copy()
    ring.close()
    del ring, window
    gc.collect()
    assert mapped(shm / "ring") > 0
    assert column.tolist() == expected.tolist()
    del column
    gc.collect()
    assert mapped(shm / "ring") == 0


def test_arrays_in_a_forked_child(writer, engine):
    """Parent and child each let go of theirs, in any order, while the other reads on."""
    code = """
import gc, os, sys
from streamapp.ring import Ring, RingReader
ring, reader = Ring.open(sys.argv[1], engine=sys.argv[2]), RingReader.open(sys.argv[1], engine=sys.argv[2])
window, frames = ring.latest(50), reader.read(7)
pid = os.fork()
if pid == 0:
    expected = window.semantic.tolist()
    ring.close()
    reader.close()
    del ring, reader
    gc.collect()
    os._exit(0 if window.semantic.tolist() == expected and window.valid().all() else 3)
ring.close()
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert window.valid().all() and len(reader.read()) == 256 and len(frames) == 7
"""
    for start in range(0, 1536, 512):
        write(writer, 512, start)
    command = [sys.executable, "-c", code, str(writer.path), engine]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


def test_under_fire(shm, start):
    """A writer laps the window all the time: what is called valid is right, what is not often isn't.

    The second half is the control: without it the first would prove nothing.
    """
    start("window_writer.py", shm / "ring", 64).stdout.readline()
    ring = Ring.open(shm / "ring")
    valid = invalid = overtaken = 0
    for _ in range(200_000):
        window = ring.latest(32)
        seen = np.array(window.semantic)  # the use: it reads every word in place
        good = window.valid()
        keys = window.source_offset.astype(np.int64)
        wrong = (seen != ring_content.vectors(keys, 64)).any(axis=1)
        assert not (good & wrong).any()
        valid += int(good.sum())
        invalid += int((~good).sum())
        overtaken += int((~good & wrong).sum())
        if valid > 20_000 and overtaken > 20:
            break
    assert valid > 20_000
    assert overtaken > 20, f"of {invalid} rows"


def test_a_check_that_is_left_out_is_missed(shm, engine):
    """The control: rows that the writer came by do differ from what was there."""
    with RingWriter.open(shm / "ring", ONCE, engine=engine) as writer:
        write(writer, 8)
        ring = Ring.open(shm / "ring", engine=engine)
        window = ring.window(0, 8)
        before = window.semantic.sum()
        write(writer, 8, 8)
        write(writer, 8, 16)
        assert window.semantic.sum() != before
        assert not window.valid().any()
