"""What goes into the columns of a ring: types, shapes, more columns than one."""

import numpy as np
import pytest
import ring_content

from streamapp.core.errors import Halt, Refuse
from streamapp.ring import RingReader, RingSpec, RingWriter, SourcePosition, new_records
from streamapp.ring.layout import Column

DIM = 3


def test_vectors_may_be_kept_as_halves(shm, engine):
    values = np.array([[0.5, -2.0, 1024.0]])
    with RingWriter.open(shm / "ring", RingSpec(DIM, 4, "<f2"), engine=engine) as writer:
        writer.write(new_records(1), values)
        frames = RingReader.open(shm / "ring", engine=engine).read()
    assert frames.semantic.dtype == np.float16
    assert frames.semantic.tolist() == values.tolist()


def test_numbers_of_another_type_are_rounded_to_the_columns(shm, engine):
    """Said in the docstring, done in both engines alike: never bits taken for other bits."""
    for dtype in ("<f2", "<f4"):
        spec = RingSpec(2, 8, dtype, (Column("scores", 1, "<f2"),))
        with RingWriter.open(shm / dtype, spec, engine=engine) as writer:
            for kind in ("<f4", "<f8", "<f2", "<i8", "u1", ">f4"):
                values = np.array([[1, 2.0001]], kind)
                writer.write(new_records(1), values, extra={"scores": values[:, 1:]})
            writer.write(new_records(1), [[3, 4]], extra={"scores": [[5]]})
            frames = RingReader.open(shm / dtype, engine=engine).read()
        near = 2 if dtype == "<f2" else np.float32(2.0001)
        assert frames.semantic.dtype == dtype
        assert frames.semantic[:, 0].tolist() == [1] * 6 + [3]
        assert frames.semantic[:, 1].tolist() == [near, near, 2, 2, 2, near, 4]
        assert frames.scores[:, 0].tolist() == [2] * 6 + [5]


def test_extra_columns_are_written_and_read_by_name(shm, engine):
    spec = RingSpec(DIM, 16, extra=(Column("intent_scores", 5, "<f2"), Column("second", 2)))
    with RingWriter.open(shm / "ring", spec, engine=engine) as writer:
        reader = RingReader.open(shm / "ring", engine=engine)
        for first in range(0, 60, 20):  # more than a commit takes, and over the end
            keys = np.arange(first, first + 20)
            second, scores = np.stack([keys, -keys], 1), np.tile(keys[:, None], 5)
            writer.write(
                ring_content.records(keys),
                ring_content.vectors(keys, DIM),
                extra={"second": second, "intent_scores": scores},
            )
            frames = reader.read()
            assert frames.frame_id.tolist() == list(range(first + 4, first + 20))
            assert ring_content.wrong_rows(frames) == 0
            assert np.array_equal(frames.second, second[4:])
            assert np.array_equal(frames.intent_scores, scores[4:])
            assert list(frames.columns) == ["semantic", "intent_scores", "second"]


def test_what_is_wrong_with_a_column_is_told(shm, engine):
    spec = RingSpec(DIM, 16, extra=(Column("scores", 2, "<f2"),))
    rows, scores = np.zeros((1, DIM)), np.zeros((1, 2))
    with RingWriter.open(shm / "ring", spec, engine=engine) as writer:
        for said, semantic, extra in (
            ("column 'scores' .* not nothing", rows, {}),
            ("no column 'score': it has semantic, scores", rows, {"score": scores}),
            (r"'scores' .* \(1, 2\) values of <f2, not \(2,\)", rows, {"scores": scores[0]}),
            ("beyond the type's range", rows, {"scores": scores + 70_000}),
            ("not <c16", rows + 1j, {"scores": scores}),
            ("not <U1", [["a"] * DIM], {"scores": scores}),
        ):
            with pytest.raises(Refuse, match=said) as caught:
                writer.write(new_records(1), semantic, extra=extra)
            assert caught.value.code == "ring.rows"
            assert caught.value.fix
        position = SourcePosition("events.raw", 0, 1, 1)
        writer.write(new_records(0), rows[:0], positions=[position])
        writer.heartbeat()
        assert writer.next_frame_id == 0
        assert writer.sources() == [position]


@pytest.mark.parametrize("n", [2, 5])
def test_the_short_way_takes_only_what_needs_no_look(shm, n):
    """`ops.writer` copies arrays of the very type and shape; all else goes the way that checks."""
    plain = new_records(n), np.ones((n, DIM), "<f4")
    wide = np.ones((n, 2 * DIM), "<f4")
    odd = np.zeros(n * 128 + 1, "u1")[1:].view(plain[0].dtype)
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16)) as writer:
        put = writer._map.ops.writer(lambda *_: None)
        for records, semantic in (
            (plain[0], wide[:, :DIM]),
            (plain[0], wide),
            (plain[0], plain[1][0]),
            (plain[0], plain[1].astype("<f8")),
            (plain[0], plain[1].view("<i4")),
            (plain[0], plain[1].astype(">f4")),
            (plain[0], plain[1].tolist()),
            (plain[0][:0], plain[1][:0]),
            (new_records(n + 1), plain[1]),
            (new_records(9), np.ones((9, DIM), "<f4")),
            (odd, plain[1]),
            (plain[0].view("V128"), plain[1]),
            (None, None),
        ):
            assert put(records, semantic) is None
        for wrong in ((), plain[:1], (*plain, plain[1])):
            assert put(*wrong) is None
        assert writer.next_frame_id == 0
        assert put(*plain) == 0
        writer.reserve(1)
        assert put(*plain) is None
        reader = RingReader.open(shm / "ring")
        not_for_writing = reader.mapping.ops.writer(lambda *_: None)
        assert not_for_writing(*plain) is None
        assert (reader.read().semantic == 1).all()
    with pytest.raises(Halt, match="closed"):
        writer.write(*plain)


def test_other_columns_are_another_file_too(shm, engine):
    """A reader in the middle of it keeps the old file, all columns and windows of it."""
    shapes = [RingSpec(DIM, 16), RingSpec(DIM, 16, extra=(Column("scores", 512, "<f2"),))]
    shapes += [RingSpec(DIM, 16, "<f2", (Column("scores", 512),)), shapes[0]]
    reader, kept = None, []
    for turn, spec in enumerate(shapes):
        with RingWriter.open(shm / "ring", spec, engine=engine) as writer:
            keys = np.arange(20 * turn, 20 * turn + 20)
            extra = {column.name: np.full((20, column.dim), turn) for column in spec.extra}
            writer.write(ring_content.records(keys), np.full((20, DIM), turn), extra=extra)
            reader = reader or RingReader.open(shm / "ring", engine=engine)
            frames = reader.read(timeout=5)
            while not len(frames):
                frames = reader.read(timeout=5)
            assert frames.frame_id.tolist() == list(range(20 * turn + 4, 20 * turn + 20))
            assert list(frames.columns) == [column.name for column in spec.columns]
            assert [rows.dtype for rows in frames.columns.values()] == [
                column.dtype for column in spec.columns
            ]
            mapping = reader.mapping
            kept += [mapping.window(c.name, 20 * turn + 4, 16) for c in spec.columns]
            kept += mapping.columns.values()
    values = [np.unique(view).tolist() for view in kept if view is not None]
    assert values == sorted(values), "old files stay readable: no SIGBUS"
    assert values[0] == [0]
    assert values[-1] == [3]
