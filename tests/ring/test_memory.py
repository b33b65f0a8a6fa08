import gc
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from streamapp.core.errors import Halt, Refuse
from streamapp.ring import Ring, RingReader, RingSpec, RingWriter, new_records

SPEC = RingSpec(4, 16)


@pytest.fixture
def ring(shm):
    with RingWriter.open(shm / "ring", SPEC) as writer:
        writer.write(new_records(5), np.arange(20).reshape(5, 4))
    return shm / "ring"


def run(code, *args):
    return subprocess.run([sys.executable, "-c", code, *map(str, args)], check=False)


def test_a_reader_cannot_write_by_numpy(ring, engine):
    file = Ring.open(ring, engine=engine)
    for view in (file.records, file.semantic, file.latest(3).semantic):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = view[1]
        with pytest.raises(ValueError, match="WRITEABLE"):
            view.flags.writeable = True


def test_a_reader_that_writes_all_the_same_dies(ring, engine):
    code = """
import ctypes, resource, sys
from streamapp.ring import Ring
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
views = Ring.open(sys.argv[1], engine=sys.argv[2])
print(views.semantic.sum())
ctypes.memset(views.semantic.ctypes.data, 1, 1)
"""
    before = ring.read_bytes()
    assert run(code, ring, engine).returncode == -signal.SIGSEGV
    assert ring.read_bytes() == before


def test_arrays_outlive_their_ring_and_the_file(ring, engine):
    file = Ring.open(ring, engine=engine)
    records, column, window = file.records, file.semantic[1:3], file.latest(2)
    file.close()
    file.close()
    del file
    ring.unlink()
    gc.collect()
    assert column.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert window.semantic.tolist() == [[12, 13, 14, 15], [16, 17, 18, 19]]
    assert window.valid().all()
    assert records["stamp"][:6].tolist() == [2, 4, 6, 8, 10, 0]


def test_the_mapping_ends_with_its_last_view(ring, engine):
    def mapped():
        return Path("/proc/self/maps").read_text(encoding="ascii").count(str(ring))

    file = Ring.open(ring, engine=engine)
    column = file.semantic
    del file
    gc.collect()
    assert mapped() == 1
    del column
    gc.collect()
    assert mapped() == 0


def test_a_forked_child_reads_on_but_must_not_write(ring):
    code = """
import os, sys
import numpy as np
from streamapp.core.errors import Halt
from streamapp.ring import RingReader, RingSpec, RingWriter, new_records
writer = RingWriter.open(sys.argv[1], RingSpec(4, 16))
reader = RingReader.open(sys.argv[1])
pid = os.fork()
if pid == 0:
    try:
        writer.write(new_records(1), np.zeros((1, 4), "<f4"))
    except Halt:
        os._exit(0 if len(reader.read()) == 5 else 3)
    os._exit(4)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.exit(status or reader.position)
"""
    assert run(code, ring).returncode == 0


def test_a_forked_child_holds_neither_the_lock_nor_what_is_reserved(ring, engine):
    """A child that outlives the writer must not keep the next one out, nor give its rows up."""
    code = """
import os, signal, sys
from streamapp.ring import RingReader, RingSpec, RingWriter
path, engine = sys.argv[1:]
writer = RingWriter.open(path, RingSpec(4, 16), engine=engine)
heard, told = os.pipe()
with writer.reserve(2) as reserved:
    pid = os.fork()
    if pid == 0:
        os.write(told, b"open" if reserved.is_open else b"over")
    else:
        assert os.read(heard, 4) == b"over"
        reserved.semantic[:] = 7
if pid == 0:
    writer.close()
    os.write(told, b"done")
    signal.pause()
assert os.read(heard, 4) == b"done"
assert RingReader.open(path).stat()["writer_alive"]
writer.close()
RingWriter.open(path, RingSpec(4, 16), engine=engine).close()
os.kill(pid, signal.SIGKILL)
sys.exit(RingReader.open(path).stat()["void_frames"])
"""
    assert run(code, ring, engine).returncode == 2


def test_a_dropped_writer_gives_the_ring_up(ring, engine):
    writer = RingWriter.open(ring, SPEC, engine=engine)
    del writer
    gc.collect()
    RingWriter.open(ring, SPEC, engine=engine).close()


def test_a_closed_writer_names_no_source(ring, engine):
    """The ring is another writer's by then."""
    writer = RingWriter.open(ring, SPEC, engine=engine)
    assert writer.source_index("events.raw", 0) == 0
    writer.close()
    assert writer.source_index("events.raw", 0) == 0
    with pytest.raises(Halt):
        writer.source_index("events.raw", 1)
    assert len(RingReader.open(ring, engine=engine).stat()["sources"]) == 1


def test_a_missing_extension_is_told_and_nothing_is_switched(ring, monkeypatch):
    monkeypatch.setitem(sys.modules, "streamapp.ring._ring", None)
    for opens in (RingReader.open, lambda path: RingWriter.open(path, SPEC)):
        with pytest.raises(Refuse) as caught:
            opens(ring)
        assert caught.value.code == "ring.not_built"
        assert "pip install" in caught.value.fix
    RingReader.open(ring, engine="twin").close()
    RingWriter.open(ring, SPEC, engine="twin").close()
    with pytest.raises(Refuse) as caught:
        RingReader.open(ring, engine="rust")
    assert caught.value.code == "ring.engine"


def test_two_threads_that_write_are_told(shm):
    """The commit runs without the GIL: a second thread must not come in between."""
    spec = RingSpec(4096, 2048)
    records, semantic = new_records(1024), np.ones((1024, 4096), np.float32)
    told = threading.Event()
    with RingWriter.open(shm / "ring", spec) as writer:

        def write():
            while not told.is_set():
                try:
                    writer.write(records, semantic)
                except RuntimeError:
                    told.set()

        threads = [threading.Thread(target=write) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert told.is_set()
        reader = RingReader.open(shm / "ring")
        reader.read()
        assert reader.void == 0


def test_reading_leaks_nothing(ring):
    reader = RingReader.open(ring)
    reader.latest(5)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(300):
        with RingReader.open(ring) as other:
            other.read()
    assert len(list(descriptors.iterdir())) == before
