"""Rows filled in place: claimed, then committed, abandoned, or lost with their writer."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ring_content

from streamapp.core.errors import Halt, Refuse
from streamapp.ring import RingReader, RingSpec, RingWriter, SourcePosition, new_records
from streamapp.ring.layout import Column

DIM, CAPACITY = 4, 256  # 256 rows of 16 bytes: one page, which can be mapped twice
MIRRORABLE = RingSpec(DIM, CAPACITY)
ODD = RingSpec(3, CAPACITY)


def content(first, n, spec):
    keys = np.arange(first, first + n)
    return ring_content.records(keys), ring_content.vectors(keys, spec.dim)


def fill(writer, first, n):
    rows = writer.reserve(n)
    records, vectors = content(first, n, writer.spec)
    rows.semantic[:] = vectors
    return rows, records


def counts(reader):
    stat = reader.stat()
    return {name: stat[name] for name in ("frames", "void_frames", "head")}


@pytest.fixture
def writer(shm, engine):
    with RingWriter.open(shm / "ring", MIRRORABLE, engine=engine) as writer:
        yield writer


@pytest.fixture
def reader(writer, engine):
    with RingReader.open(writer.path, engine=engine) as reader:
        yield reader


def test_what_is_filled_in_place_is_read_like_what_is_written(writer, reader):
    writer.write(*content(0, 5, writer.spec))
    rows, records = fill(writer, 5, 7)
    assert (rows.first, len(rows), rows.semantic.shape) == (5, 7, (7, DIM))
    assert rows.semantic.flags.c_contiguous
    assert reader.lag == 5, "a reservation is not to be seen"
    assert rows.commit(records) == 5
    frames = reader.read()
    assert frames.frame_id.tolist() == list(range(12))
    assert ring_content.wrong_rows(frames) == 0
    assert counts(reader) == {"frames": 12, "void_frames": 0, "head": 12}


def test_the_rows_are_the_rings_own_memory(writer):
    rows = writer.reserve(3)
    assert rows.direct
    rows.semantic[:] = 7
    assert (writer._map.semantic[:3] == 7).all()
    assert rows.columns["semantic"] is rows.semantic
    rows.abandon()


def test_rows_that_are_not_kept_are_void_and_counted(writer, reader):
    rows, records = fill(writer, 0, 6)
    rows.commit(records, keep=[True, False, True, True, False, True])
    frames = reader.read()
    assert frames.frame_id.tolist() == [0, 2, 3, 5]
    assert (frames.lost, frames.void) == (0, 2)
    assert ring_content.wrong_rows(frames) == 0
    assert counts(reader) == {"frames": 4, "void_frames": 2, "head": 6}


def test_abandoned_rows_are_void_counted_and_readers_are_woken(writer, reader):
    before = writer._map.word("wake")
    rows, _ = fill(writer, 0, 6)
    assert rows.abandon() == 0
    assert writer._map.word("wake") != before
    frames = reader.read()
    assert (len(frames), frames.lost, frames.void) == (0, 0, 6)
    writer.write(*content(6, 2, writer.spec))
    assert reader.read().frame_id.tolist() == [6, 7]
    assert counts(reader) == {"frames": 2, "void_frames": 6, "head": 8}


def test_what_is_left_open_is_abandoned(writer, reader):
    with writer.reserve(2):
        pass
    with pytest.raises(ZeroDivisionError), writer.reserve(3):
        raise ZeroDivisionError
    writer.reserve(4)
    writer.close()
    writer.close()
    frames = reader.read()
    assert (len(frames), frames.void, reader.position) == (0, 9, 9)


def test_one_at_a_time_and_nothing_else_meanwhile(writer, reader):
    rows, records = fill(writer, 0, 2)
    for call in (lambda: writer.reserve(1), lambda: writer.write(*content(2, 1, writer.spec))):
        with pytest.raises(Refuse, match="2 rows of .* are reserved") as caught:
            call()
        assert caught.value.code == "ring.reserved"
        assert "commit or abandon" in caught.value.fix
    beat = reader.stat()["heartbeat_mono_ns"]
    writer.heartbeat()
    assert reader.stat()["heartbeat_mono_ns"] > beat, "a long model run is no dead writer"
    rows.commit(records)
    assert len(reader.read()) == 2


@pytest.mark.parametrize("n", [0, -1, CAPACITY // 2 + 1])
def test_how_many_may_be_reserved(writer, n):
    with pytest.raises(Refuse, match=f"{n} rows cannot be reserved") as caught:
        writer.reserve(n)
    assert caught.value.code == "ring.rows"
    assert f"1 to {CAPACITY // 2}" in caught.value.fix
    assert writer.next_frame_id == 0


def test_what_does_not_fit_leaves_the_reservation_open(writer, reader):
    rows, records = fill(writer, 0, 3)
    for wrong in (
        {"records": records[:2]},
        {"records": np.zeros(3, "V128")},
        {"records": records, "keep": [True]},
        {"records": records, "keep": np.ones(3)},
    ):
        with pytest.raises(Refuse) as caught:
            rows.commit(**wrong)
        assert caught.value.code == "ring.rows"
    rows.commit(records)
    assert len(reader.read()) == 3


def test_a_reservation_ends_once_and_its_arrays_with_it(writer):
    rows, records = fill(writer, 0, 2)
    rows.commit(records)
    for call in (rows.abandon, lambda: rows.commit(records)):
        with pytest.raises(Halt, match="frames 0 to 1 of .* is over") as caught:
            call()
        assert caught.value.code == "ring.reservation"
    with pytest.raises(ValueError, match="read-only"):
        rows.semantic[0] = 1
    assert not rows.is_open


def test_positions_go_with_a_commit_and_never_with_an_abandon(writer):
    here = SourcePosition("events.raw", 0, 3, 1)
    rows, _ = fill(writer, 0, 3)
    rows.abandon()
    assert writer.sources() == []
    rows, records = fill(writer, 0, 3)
    rows.commit(records, positions=[here])
    assert writer.sources() == [here]
    rows, records = fill(writer, 3, 1)
    with pytest.raises(Halt, match="made anew"):
        rows.commit(records, positions=[here._replace(next_source_offset=1)])
    rows.abandon()


# ---- over the ring's end ----


@pytest.mark.parametrize("spec", [MIRRORABLE, ODD])
def test_a_window_over_the_end_is_one_piece_in_every_case(shm, engine, spec):
    """Mapped twice where that can be, a copy at commit where it cannot: never a wrong row."""
    with RingWriter.open(shm / "ring", spec, engine=engine) as writer:
        reader = RingReader.open(shm / "ring", engine=engine)
        writer.write(*content(0, CAPACITY - 3, spec))
        reader.read(CAPACITY)
        rows, records = fill(writer, CAPACITY - 3, 8)
        assert rows.semantic.flags.c_contiguous
        assert rows.semantic.shape == (8, spec.dim)
        assert rows.direct == (engine == "c" and spec is MIRRORABLE)
        if rows.direct:
            two_parts = np.concatenate([writer._map.semantic[-3:], writer._map.semantic[:5]])
            assert np.array_equal(two_parts, rows.semantic)
        rows.commit(records)
        frames = reader.read()
        assert frames.frame_id.tolist() == list(range(CAPACITY - 3, CAPACITY + 5))
        assert ring_content.wrong_rows(frames) == 0


def mapped(path):
    return Path("/proc/self/maps").read_text(encoding="ascii").count(str(path))


def test_a_mirror_is_made_when_it_is_needed_and_ends_with_its_last_view(shm):
    with RingWriter.open(shm / "ring", MIRRORABLE) as writer:
        writer.write(*content(0, CAPACITY - 1, MIRRORABLE))
        writer.write(*content(CAPACITY - 1, 2, MIRRORABLE))
    del writer
    reader = RingReader.open(shm / "ring")
    mapping = reader.mapping
    assert mapping.window("semantic", 5, 9).base is not None
    assert mapped(shm) == 1
    window = mapping.window("semantic", CAPACITY - 1, 2)
    assert mapped(shm) == 3
    assert np.array_equal(window, reader.latest(2).semantic)
    with pytest.raises(ValueError, match="read-only"):
        window[0] = 0
    with pytest.raises(ValueError, match="257 rows"):
        mapping.window("semantic", 0, CAPACITY + 1)
    reader.close()
    del reader, mapping
    gc.collect()
    assert mapped(shm) == 2, "the window's view keeps both halves"
    assert window[1].tolist() == ring_content.vectors([CAPACITY], DIM)[0].tolist()
    del window
    gc.collect()
    assert mapped(shm) == 0


def test_every_column_is_filled_in_place(shm, engine):
    extra = Column("intent_scores", 2, "<f2"), Column("second", 8)
    spec = RingSpec(DIM, CAPACITY, "<f2", extra)
    with RingWriter.open(shm / "ring", spec, engine=engine) as writer:
        reader = RingReader.open(shm / "ring", engine=engine)
        with writer.reserve(3) as rows:
            for place, (name, column) in enumerate(rows.columns.items()):
                assert column.shape == (3, [DIM, 2, 8][place])
                assert column.dtype == ["<f2", "<f2", "<f4"][place], name
                column[:] = np.arange(3)[:, None] + 10 * place
            rows.commit(new_records(3))
        frames = reader.read()
    assert frames.semantic.tolist() == [[0] * 4, [1] * 4, [2] * 4]
    assert frames.intent_scores.tolist() == [[10, 10], [11, 11], [12, 12]]
    assert frames.columns["second"][:, 7].tolist() == [20, 21, 22]


# ---- a writer that dies ----

DIES = """
import os, signal, sys
import numpy as np
from streamapp.ring import RingSpec, RingWriter, new_records
writer = RingWriter.open(sys.argv[1], RingSpec(4, 256), engine=sys.argv[2])
writer.write(new_records(250), np.zeros((250, 4)))
rows = writer.reserve(10)
rows.semantic[:5] = 1
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_with_rows_reserved_leaves_counted_void_rows(shm, engine):
    done = subprocess.run([sys.executable, "-c", DIES, shm / "ring", engine], check=False)
    assert done.returncode == -signal.SIGKILL
    reader = RingReader.open(shm / "ring", engine=engine)
    assert (reader.position, reader.lag) == (4, 246), "the ten took the place of the oldest"
    with RingWriter.open(shm / "ring", MIRRORABLE, engine=engine) as writer:
        assert writer.next_frame_id == 260
        writer.write(*content(0, 1, MIRRORABLE))
        frames = reader.read(512)
        assert frames.frame_id.tolist() == [*range(5, 250), 260]
        assert (frames.lost, frames.void) == (1, 10)
        assert counts(reader) == {"frames": 251, "void_frames": 10, "head": 261}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_neither_commits_nor_abandons(shm):
    with RingWriter.open(shm / "ring", MIRRORABLE) as writer:
        rows, records = fill(writer, 0, 2)
        before = (shm / "ring").read_bytes()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                rows.commit(records)
            except Halt:
                writer.close()
                code = 0 if (shm / "ring").read_bytes() == before else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        rows.commit(records)
        assert len(RingReader.open(shm / "ring").read()) == 2
