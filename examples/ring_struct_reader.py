"""A ring read with the standard library only: the layout, as documentation that runs.

    python examples/ring_struct_reader.py PATH

Prints the frames that are there, one a line, as ``ring_reader.c`` does.  Names, types, shapes and
places are those that the file's descriptors give; the few offsets below are the header's, of
``include/streamapp_ring.h``.

Right on x86 only: Python has no memory fences, and x86 needs none for loads.  It copies byte by
byte what NumPy would map; to read for a purpose use ``streamapp.ring``.
"""

import mmap
import signal
import struct
import sys

MAGIC = b"EVRING\0\2"
SHOWN = 8  # values of a tensor that are printed
KINDS = {
    "<f2": "<e", "<f4": "<f", "<f8": "<d", "<i4": "<i", "<i8": "<q",
    "|u1": "<B", "<u2": "<H", "<u4": "<I", "<u8": "<Q",
}  # fmt: skip


class Field:
    """One descriptor: 64 bytes that say where a field of row 0 is and how far apart rows are."""

    def __init__(self, data):
        name, dtype, ndim, shape, _, _flags, self.offset, self.stride = struct.unpack(
            "<24s8sIIIIQQ", data
        )
        self.name = name.rstrip(b"\0").decode()
        self.kind = KINDS[dtype.rstrip(b"\0").decode()]
        self.row = struct.Struct(f"<{shape if ndim else 1}{self.kind[1]}")
        self.size = self.row.size

    def read(self, ring, slot):
        """The values of one row."""
        return self.row.unpack_from(ring, self.offset + slot * self.stride)

    def text(self, values):
        """``name=1,2,3``, numbers as C's ``%.9g`` writes them."""
        shown = (f"{v:.9g}" if isinstance(v, float) else str(v) for v in values[:SHOWN])
        return f"{self.name}={','.join(shown)}"


def word(ring, offset):
    """A u64 of the header."""
    return struct.unpack_from("<Q", ring, offset)[0]


def fields_of(ring):
    """Every field and column; the first is the row's stamp."""
    magic, version, order, capacity, size = struct.unpack_from("<8sIIQQ", ring)
    if magic != MAGIC or version != 2 or order != 0x01020304 or size > len(ring):
        raise ValueError("not a ring of layout 2 in this machine's byte order")
    (count,) = struct.unpack_from("<I", ring, 36)
    (start,) = struct.unpack_from("<I", ring, 48)
    fields = [Field(ring[at : at + 64]) for at in range(start, start + 64 * count, 64)]
    stamp = fields[0] if fields else None
    if not stamp or (stamp.name, stamp.kind, stamp.size, stamp.offset % 8) != ("stamp", "<Q", 8, 0):
        raise ValueError("its rows do not begin with a stamp")
    if not capacity or capacity & (capacity - 1):
        raise ValueError("its capacity is not a power of two")
    if any(field.offset + (capacity - 1) * field.stride + field.size > size for field in fields):
        raise ValueError("a field lies outside the file")
    return fields


def open_ring(path):
    """The file's bytes, and its fields."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # pathlib would be one more thing to know
            ring = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return ring, fields_of(ring)
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise SystemExit(f"{path}: no ring that can be read: {error}") from None


def oldest(ring):
    """The first row that the writer has not begun to overwrite."""
    capacity, base, claim = word(ring, 16), word(ring, 120), word(ring, 256)
    return max(claim - capacity, base)


def main(path):
    """Print the rows from the oldest to the newest, and say what was missed."""
    ring, fields = open_ring(path)
    capacity, want = word(ring, 16), oldest(ring)
    frames = lost = void = 0
    while want < word(ring, 384):  # head: rows below it are there
        slot = want & (capacity - 1)
        row = [field.read(ring, slot) for field in fields]  # the stamp comes first
        if (kept := oldest(ring)) > want:  # the writer came by before the copy was done
            lost, want = lost + kept - want, kept
        elif row[0] != (2 * want + 2,):  # a writer that was killed never finished it
            void, want = void + 1, want + 1
        else:
            print(*map(Field.text, fields, row))
            frames, want = frames + 1, want + 1
    print(f"{frames} frames, {lost} lost, {void} void", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: ring_struct_reader.py PATH")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # head(1) may end it
    main(sys.argv[1])
