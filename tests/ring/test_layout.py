import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from streamapp.core.errors import Refuse
from streamapp.ring import RingReader, RingSpec, RingWriter, layout, new_records
from streamapp.ring._ring import LAYOUT
from streamapp.ring.layout import Column

ROOT = Path(__file__).parents[2]
TYPES = {
    "header": layout.HEADER_DTYPE,
    "descriptor": layout.DESCRIPTOR_DTYPE,
    "source": layout.SOURCE_DTYPE,
    "record": layout.RECORD_DTYPE,
}


@pytest.mark.parametrize("name", TYPES)
def test_python_and_c_agree_on_every_field_and_size(name):
    ours = {f"{name}.{field}": place[1] for field, place in TYPES[name].fields.items()}
    theirs = {key: value for key, value in LAYOUT.items() if key.startswith(name + ".")}
    assert ours == theirs
    assert TYPES[name].itemsize == LAYOUT[name]


def test_python_and_c_agree_on_every_constant():
    enums = {
        "state": layout.State,
        "flag": layout.HeaderFlag,
        "desc": layout.DescFlag,
        "row": layout.RowFlag,
    }
    ours = {
        f"{prefix}_{item.name.lower()}": item for prefix, enum in enums.items() for item in enum
    }
    names = {key for key in LAYOUT if "." not in key and key not in TYPES} - ours.keys()
    ours |= {name: getattr(layout, name.upper()) for name in names}
    assert ours == {name: LAYOUT[name] for name in ours}
    assert len(ours) == 28


def test_the_spec_of_layout_2_has_not_moved():
    """The offsets that other programs rely on, written down once more."""
    fields = layout.RECORD_DTYPE.fields
    offsets = {name: place[1] for name, place in fields.items()}
    assert offsets == {
        "stamp": 0, "frame_id": 8, "timestamp_us": 16, "conversation_hash": 24, "ingest_us": 32,
        "source_offset": 40, "delta_time": 48, "duration_ms": 52, "velocity": 56, "interrupt": 60,
        "fill_rate": 64, "sentiment": 68, "confidence": 72, "spin": 76, "attractor_pull": 92,
        "workflow_node": 96, "case_status": 100, "lead_status": 104, "actor_type": 108,
        "intent_id": 112, "dim_used": 116, "dtype_code": 118, "flags": 119, "presence": 120,
        "epoch": 124,
    }  # fmt: skip
    header = {name: place[1] for name, place in layout.HEADER_DTYPE.fields.items()}
    assert [header[k] for k in ("epoch", "state", "claim", "head", "wake")] == [
        128,
        136,
        256,
        384,
        392,
    ]
    assert (layout.SOURCES_OFF, layout.RECORD_OFF, layout.DESC_OFF) == (4096, 8192, 1024)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_header_is_plain_c11(tmp_path):
    source = tmp_path / "user.c"
    source.write_text('#include "streamapp_ring.h"\nint main(void) { return 0; }\n')
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{ROOT / 'include'}"]
    subprocess.run(["cc", *flags, "-fsyntax-only", str(source)], check=True)


def test_a_reader_needs_only_the_descriptors(shm):
    """A reader made of struct alone finds every value, from the file's own description."""
    spec = RingSpec(3, 4, extra=(Column("scores", 2, "<f2"), Column("second", 5)))
    with RingWriter.open(shm / "ring", spec) as writer:
        records = new_records(6)
        for place, name in enumerate(layout.RECORD_DTYPE.names):
            if name not in {"stamp", "frame_id", "epoch"}:
                records[name] = (np.arange(6) + place).reshape(
                    (6,) + (1,) * (records[name].ndim - 1)
                )
        extra = {"scores": np.arange(12).reshape(6, 2), "second": np.arange(30).reshape(6, 5)}
        writer.write(records, np.arange(18, dtype=np.float32).reshape(6, 3), extra=extra)
    raw = (shm / "ring").read_bytes()
    count, start = struct.unpack_from("<I", raw, 36)[0], struct.unpack_from("<I", raw, 48)[0]
    frames = RingReader.open(shm / "ring").latest(4)
    kinds = {"f4": "f", "f2": "e", "i8": "q", "u8": "Q", "i4": "i", "u4": "I", "u2": "H", "u1": "B"}
    seen = set()
    for index in range(count):
        name, dtype, ndim, rows, _, _, offset, stride = struct.unpack_from(
            "<24s8sIIIIQQ", raw, start + 64 * index
        )
        name, code = name.rstrip(b"\0").decode(), kinds[dtype[1:].rstrip(b"\0").decode()]
        shape = f"<{rows if ndim else 1}{code}"
        values = [struct.unpack_from(shape, raw, offset + seq % 4 * stride) for seq in range(2, 6)]
        expected = frames.columns[name] if name in frames.columns else frames.records[name]
        assert np.array_equal(np.array(values).reshape(expected.shape), expected), name
        seen.add(name)
    assert seen == {*layout.RECORD_DTYPE.names, "semantic", "scores", "second"}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"capacity": 0}, "power of two"),
        ({"capacity": 3}, "power of two"),
        ({"capacity": 1 << 25}, "power of two"),
        ({"dim": 0}, "dim 0"),
        ({"dim": 65_536}, "dim 65536"),
        ({"dtype": "<f8"}, "<f4 or <f2"),
        ({"dim": 65_535, "capacity": 1 << 24}, "bytes"),
        ({"extra": tuple(Column(f"c{i}", 1) for i in range(8))}, "9 columns are more than 8"),
        ({"extra": (Column("scores", 1), Column("scores", 2))}, "'scores' is there twice"),
        ({"extra": (Column("semantic", 1),)}, "'semantic' is there twice"),
        ({"extra": (Column("sentiment", 1),)}, "'sentiment': its name means"),
        ({"extra": (Column("records", 1),)}, "'records': its name means"),
        ({"extra": (Column("Scores", 1),)}, "'Scores': a name is"),
        ({"extra": (Column("s" * 25, 1),)}, "a name is 1 to 24"),
        ({"extra": (Column("scores", 0),)}, "'scores': dim 0"),
        ({"extra": (Column("scores", 1, "<i4"),)}, "'scores': dtype '<i4'"),
    ],
)
def test_an_impossible_shape_is_refused(spec, reason):
    with pytest.raises(Refuse, match=reason) as caught:
        RingSpec(**spec)
    assert caught.value.code == "ring.spec"


@pytest.mark.parametrize("capacity", [1, 2, 32, 64, 8192])
def test_every_column_starts_on_the_first_page_behind_the_one_before(capacity):
    spec = RingSpec(5, capacity, extra=(Column("a", 3, "<f2"), Column("b", 1)))
    ends = [8192 + capacity * 128]
    for offset, column in zip(spec.offsets, spec.columns, strict=True):
        assert offset % 4096 == 0
        assert 0 <= offset - ends[-1] < 4096
        ends.append(offset + capacity * column.row_bytes)
    assert spec.file_bytes == ends[-1]


def test_the_default_ring_fits_dockers_shared_memory():
    assert RingSpec().capacity == 8192
    assert 2 * RingSpec().file_bytes < 64 << 20, "also while it is replaced by another shape"
    assert RingSpec(1024).file_bytes < 64 << 20
