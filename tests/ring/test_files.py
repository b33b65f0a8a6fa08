import os
import stat
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.core.errors import Refuse
from streamapp.ring import RingReader, RingSpec, RingWriter, files, layout, new_records

SPEC = RingSpec(3, 16)
DESC = layout.DESC_OFF
COLUMN = DESC + 64 * len(layout.RECORD_DTYPE.names)  # the descriptor of `semantic`


def refused(path, engine="c"):
    """The one message with which both the reader and the writer refuse a file."""
    with pytest.raises(Refuse) as reader:
        RingReader.open(path, engine=engine)
    with pytest.raises(Refuse) as writer:
        RingWriter.open(path, SPEC, engine=engine)
    assert reader.value.code == writer.value.code
    assert reader.value.fix
    assert reader.value.fix == writer.value.fix
    return reader.value


@pytest.fixture
def ring(shm):
    RingWriter.open(shm / "ring", SPEC).close()
    return shm / "ring"


def damage(path, *changes, rehash=False):
    raw = bytearray(path.read_bytes())
    for offset, format_, *values in changes:
        struct.pack_into(format_, raw, offset, *values)
    if rehash:
        size = struct.unpack_from("<I", raw, 52)[0]
        struct.pack_into("<Q", raw, 40, layout.schema_hash(bytes(raw[DESC : DESC + size])))
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("another magic", [(0, "8s", b"EVRING\0\1")]),
        ("other byte order", [(12, ">I", 0x01020304)]),
        ("byte order mark", [(12, "<I", 7)]),
        ("layout is 3", [(8, "<I", 3)]),
        ("capacity 0", [(16, "<Q", 0)]),
        ("capacity 24", [(16, "<Q", 24)]),
        ("capacity 33554432", [(16, "<Q", 1 << 25)]),
        ("says 99999999", [(24, "<Q", 99_999_999)]),
        ("128 bytes each", [(32, "<I", 64)]),
        ("128 bytes each", [(60, "<I", 4096)]),
        ("sources page", [(112, "<I", 0)]),
        ("sources page", [(116, "<I", 65)]),
        ("do not fit the header", [(36, "<I", 49), (52, "<I", 49 * 64)]),
        ("do not fit the header", [(36, "<I", 0), (52, "<I", 0)]),
        ("do not fit the header", [(48, "<I", 4090)]),
        ("hash", [(DESC, "4s", b"seal")]),
        ("counters", [(256, "<Q", 1 << 63)]),
    ],
)
def test_a_damaged_header_is_refused(ring, engine, reason, changes):
    damage(ring, *changes)
    error = refused(ring, engine)
    assert error.code == "ring.layout"
    assert reason in error.message
    assert str(ring) in error.message


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("'semantic' points past the end", [(COLUMN + 48, "<Q", 1 << 40)]),
        ("'semantic' points past the end", [(COLUMN + 48, "<Q", (1 << 64) - 4096)]),
        ("'semantic' points past the end", [(COLUMN + 36, "<I", 0xFFFFFFFF)]),
        ("'semantic' points past the end", [(COLUMN + 56, "<Q", (1 << 64) - 1)]),
        ("not aligned", [(COLUMN + 48, "<Q", 12_286)]),
        ("does not start on a page", [(COLUMN + 48, "<Q", 12_224)]),
        ("overlaps the records", [(COLUMN + 48, "<Q", 4096)]),
        ("not one tensor", [(COLUMN + 56, "<Q", 8)]),
        ("dim 0", [(COLUMN + 36, "<I", 0), (COLUMN + 56, "<Q", 0)]),
        ("no column 'semantic'", [(COLUMN, "8s", b"romantic")]),
        ("no column 'semantic'", [(COLUMN + 24, "3s", b"<i4")]),
        ("no dtype", [(COLUMN + 24, "1s", b"O")]),
        ("two dimensions", [(COLUMN + 32, "<I", 3)]),
        ("record field 'stamp'", [(DESC + 48, "<Q", layout.RECORD_OFF + 8)]),
        ("record field 'stamp'", [(DESC + 56, "<Q", 64)]),
    ],
)
def test_a_descriptor_that_leads_astray_is_refused(ring, engine, reason, changes):
    damage(ring, *changes, rehash=True)
    error = refused(ring, engine)
    assert error.code == "ring.layout"
    assert reason in error.message


TWO = RingSpec(3, 16, extra=(layout.Column("scores", 6, "<f2"),))
OTHER = COLUMN + 64  # the descriptor of `scores`


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("'semantic' overlaps 'scores'", [(OTHER + 48, "<Q", TWO.offsets[0])]),
        ("'scores' overlaps the records", [(OTHER + 48, "<Q", 8192)]),
        ("'semantic' overlaps 'scores'", [(COLUMN + 48, "<Q", TWO.offsets[1])]),
        ("'scores' points past the end", [(OTHER + 48, "<Q", 1 << 40)]),
        ("'scores' points past the end", [(OTHER + 36, "<I", 4096), (OTHER + 56, "<Q", 8192)]),
        ("'scores' is not one tensor", [(OTHER + 56, "<Q", 4)]),
        ("'scores': dim 0", [(OTHER + 36, "<I", 0), (OTHER + 56, "<Q", 0)]),
        ("'scores' does not start on a page", [(OTHER + 48, "<Q", TWO.offsets[1] - 64)]),
        ("descriptor 'semantic' is there twice", [(OTHER, "9s", b"semantic")]),
        ("'velocity'", [(OTHER, "9s", b"velocity")]),
        ("column 'lost': its name", [(OTHER, "9s", b"lost")]),
        ("a name is", [(OTHER, "9s", b"A b")]),
        ("column 'semantic' of floats", [(COLUMN, "9s", b"scores"), (OTHER, "9s", b"semantic")]),
        (
            "not in the order",
            [(COLUMN + 48, "<Q", TWO.offsets[1]), (OTHER + 48, "<Q", TWO.offsets[0])],
        ),
        ("not in the record", [(OTHER + 44, "<I", 1)]),
    ],
)
def test_columns_are_checked_against_each_other(shm, engine, reason, changes):
    RingWriter.open(shm / "ring", TWO).close()
    damage(shm / "ring", *changes, rehash=True)
    error = refused(shm / "ring", engine)
    assert error.code == "ring.layout"
    assert reason in error.message


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 12_287])
def test_a_short_file_is_refused(ring, engine, size):
    os.truncate(ring, size)
    assert refused(ring, engine).code == "ring.layout"


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, layout.HEADER_BYTES - 1), st.integers(1, 255)), max_size=3
    ),
    column=st.tuples(st.integers(COLUMN, OTHER + 63), st.integers(0, 255)),
    rehash=st.booleans(),
)
def test_no_flipped_bits_in_the_header_crash_a_reader(shm, changes, column, rehash):
    """With the hash made right again, too: then the descriptors alone have to hold."""
    path = shm / "ring"
    if not path.exists():
        with RingWriter.open(path, TWO) as writer:
            rows = np.zeros((20, 3))
            writer.write(new_records(20), rows, extra={"scores": np.zeros((20, 6))})
    raw = bytearray(path.read_bytes())
    for offset, bits in (*changes, column):
        raw[offset] ^= bits
    other = shm / "flipped"
    other.write_bytes(raw)
    other.chmod(0o640)
    if rehash and struct.unpack_from("<I", raw, 52)[0] <= 64 * layout.DESC_MAX:
        damage(other, rehash=True)
    with suppress(Refuse), RingReader.open(other) as reader:
        reader.read()
        reader.latest(3)
        reader.stat()
        for name in reader.mapping.columns:
            reader.mapping.window(name, 14, 5)


def test_a_ring_may_have_columns_we_do_not_know(ring, engine):
    """A later writer adds a column: older readers go on reading the ones they know."""
    raw = bytearray(ring.read_bytes())
    count, end = struct.unpack_from("<I", raw, 36)[0], len(raw)
    entry = struct.pack("<24s8sIIIIQQ", b"crc32c", b"<u4", 0, 0, 0, 2, end, 4)
    raw[DESC + 64 * count : DESC + 64 * count + 64] = entry
    raw += bytes(4 * SPEC.capacity)
    ring.write_bytes(raw)
    damage(
        ring,
        (36, "<I", count + 1),
        (52, "<I", 64 * (count + 1)),
        (24, "<Q", len(raw)),
        rehash=True,
    )
    with RingReader.open(ring, engine=engine) as reader:
        assert reader.stat()["file_bytes"] == len(raw)
        assert len(reader.read()) == 0


@pytest.mark.parametrize(
    ("reason", "make"),
    [
        ("symbolic link", lambda path: path.symlink_to("/etc/hostname")),
        ("not a regular file", lambda path: os.mkfifo(path, 0o640)),
        ("too short", lambda path: path.write_bytes(b"x")),
    ],
)
def test_what_is_not_a_ring_file_is_refused(shm, engine, reason, make):
    make(shm / "ring")
    assert reason in refused(shm / "ring", engine).message


@pytest.mark.parametrize("path", ["/", ".", "/proc/self/mem"])
def test_a_path_that_can_be_no_ring_is_refused(path):
    for opening in (RingReader.open, RingWriter.open):
        with pytest.raises(Refuse, match="cannot") as caught:
            opening(path)
        assert caught.value.code == "ring.file"


def test_a_link_in_place_of_the_lock_is_refused(shm):
    (shm / "ring.lock").symlink_to(shm / "elsewhere")
    with pytest.raises(Refuse, match="symbolic link"):
        RingWriter.open(shm / "ring", SPEC)
    assert not (shm / "elsewhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
def test_a_strangers_file_is_refused(ring):
    os.chown(ring, 4321, -1)
    assert "belongs to user 4321" in refused(ring).message
    os.chown(ring.parent, 4321, -1)
    RingReader.open(ring).close()  # the folder's owner may have a ring in it


@pytest.mark.parametrize("mode", [0o660, 0o642])
def test_a_file_that_others_may_write_is_refused(ring, mode):
    ring.chmod(mode)
    assert "others may write" in refused(ring).message


def test_no_ring_is_told_with_the_way_out(shm):
    with pytest.raises(Refuse, match="no such file") as caught:
        RingReader.open(shm / "ring")
    assert "terminal" in caught.value.fix


def test_modes_and_residue(shm):
    path = shm / "folder" / "ring"
    before = os.umask(0)
    try:
        RingWriter.open(path, SPEC).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == {"ring": 0o640, "ring.lock": 0o640}
    assert path.stat().st_blocks * 512 >= SPEC.file_bytes, "every block is there from the start"


def test_the_magic_comes_last(shm, monkeypatch):
    """A file is a ring only when all of it is there; at its path it is never anything else."""
    written = []
    pwrite, rename = os.pwrite, type(shm).rename

    def watch_rename(path, target):
        written.append("rename")
        return rename(path, target)

    monkeypatch.setattr(
        os, "pwrite", lambda fd, b, at: written.append(bytes(b[:8])) or pwrite(fd, b, at)
    )
    monkeypatch.setattr(type(shm), "rename", watch_rename)
    RingWriter.open(shm / "ring", SPEC).close()
    assert written == [bytes(8), bytes(8), layout.MAGIC, "rename"]


def test_asking_for_the_writer_does_not_keep_a_writer_out(shm, monkeypatch):
    """Who asks holds the lock for a moment; a starting writer waits that moment out."""
    RingWriter.open(shm / "ring", SPEC).close()
    asking = os.open(files.lock_path(shm / "ring"), os.O_RDONLY)
    assert files._locked(asking, files.fcntl.LOCK_SH)
    monkeypatch.setattr(files, "sleep", lambda _: os.close(asking))
    RingWriter.open(shm / "ring", SPEC).close()


def test_bad_arguments_do_not_get_past_the_extension(ring):
    from streamapp.ring._ring import Ring

    offset = SPEC.offsets[0]
    types = layout.RECORD_DTYPE, np.dtype("<f4")
    good = (SPEC.file_bytes, 16, layout.RECORD_OFF, ((offset, 3, 4),), types, np.ndarray)
    fd = os.open(ring, os.O_RDWR)
    try:
        for place, value in (
            (0, 1 << 40),
            (1, 0),
            (1, 24),
            (1, 1 << 63),
            (2, 4096),
            (3, ((8192, 3, 4),)),
            (3, ((offset, 1 << 40, 4),)),
            (3, ((offset, 1 << 62, 4),)),
            (3, ((10_240 - 64, 3, 4),)),
        ):
            with pytest.raises(ValueError, match="geometry"):
                Ring(fd, *good[:place], value, *good[place + 1 :], True)
        mapped, read_only = Ring(fd, *good, True), Ring(fd, *good, False)
    finally:
        os.close(fd)
    records, rows, none = np.zeros(1, layout.RECORD_DTYPE), (np.zeros((1, 3), "<f4"),), b""
    for wrong in (
        (records, (rows[0][:, :2].copy(),), none),
        (records, (*rows, *rows), none),
        (records, (), none),
        (records, rows[0], none),
        (np.zeros(9, layout.RECORD_DTYPE), (np.zeros((9, 3), "<f4"),), none),
        (np.zeros(100, "u1"), rows, none),
        (np.zeros(136, "u1")[1:129], rows, none),
        (records, rows, np.array([[64, 0, 0]], "<u8")),
        (records, rows, np.zeros(2, "<u8")),
    ):
        with pytest.raises(ValueError, match=r"must|at most|beyond"):
            mapped.write(*wrong)
    with pytest.raises(PermissionError):
        read_only.write(records, rows, none)
    for call in (read_only.salvage, read_only.retire, lambda: read_only.go_live(0)):
        with pytest.raises(PermissionError):
            call()
    with pytest.raises(ValueError, match="one row for each record"):
        mapped.read(0, np.zeros(2, layout.RECORD_DTYPE), rows)
    with pytest.raises(TypeError):
        mapped.read(0, records)
    with pytest.raises(OverflowError):
        mapped.read(-1, records, rows)
    with pytest.raises(BufferError):
        read_only.read(0, bytes(128), rows)
