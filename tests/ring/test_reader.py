"""What a reader hands out, and what it says of what it cannot."""

import gc
import pickle
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import ring_content

from streamapp.core.errors import Halt, Refuse
from streamapp.ring import (
    Column,
    Frame,
    Frames,
    RingReader,
    RingSpec,
    RingWriter,
    SourcePosition,
    files,
    new_records,
    pack_source,
)
from streamapp.ring.origin import find_since

DIM = 6
SPEC = RingSpec(DIM, 16, extra=(Column("intent_scores", 3), Column("small", 2, "<f2")))


def write(writer, n, at=0, source=None):
    """Rows whose every value says which they are."""
    keys = np.arange(at, at + n)
    records = ring_content.records(keys)
    if source is not None:
        records["source_offset"] = pack_source(writer.source_index(*source), keys)
    extra = {"intent_scores": np.outer(keys, [1, 2, 3]), "small": np.outer(keys, [1, 0.5])}
    names = {column.name for column in writer.spec.extra}
    extra = {name: rows.astype("<f4") for name, rows in extra.items() if name in names}
    return writer.write(records, ring_content.vectors(keys, writer.spec.dim), extra=extra)


def freeze(thing):
    """The bytes of frames, of a frame, of an array, or of several."""
    if isinstance(thing, Frames):
        return freeze((thing.records, *thing.arrays))
    if isinstance(thing, Frame):
        return freeze((thing.frame_id, thing.semantic, thing.small))
    if isinstance(thing, tuple | list):
        return [freeze(part) for part in thing]
    return np.asarray(thing).tobytes()


@pytest.fixture
def writer(shm, engine):
    with RingWriter.open(shm / "ring", SPEC, engine=engine) as ring:
        yield ring


@pytest.fixture
def reader(writer, engine):
    with RingReader.open(writer.path, engine=engine) as ring:
        yield ring


# ---- frames ----


def test_every_column_is_an_attribute_of_frames_and_of_a_frame(writer, reader):
    write(writer, 5)
    frames = reader.read()
    assert list(frames.columns) == ["semantic", "intent_scores", "small"]
    assert frames.intent_scores.tolist() == np.outer(range(5), [1, 2, 3]).tolist()
    assert (frames.small.dtype, frames.small.shape) == (np.float16, (5, 2))
    for array in frames.columns.values():
        assert array.flags.c_contiguous
        assert array.flags.writeable
    frame = frames[-1]
    assert frame.intent_scores.tolist() == [4, 8, 12]
    assert frame.semantic.tolist() == frames.semantic[4].tolist()
    assert frame.frame_id == 4
    assert frame.spin.shape == (4,)
    assert type(frame.sentiment) is float
    assert {"sentiment", "intent_scores", "semantic"} <= {*dir(frame)} & {*dir(frames)}


def test_frames_are_a_sequence(writer, reader):
    write(writer, 5)
    frames = reader.read()
    assert [frame.frame_id for frame in frames] == [0, 1, 2, 3, 4]
    assert frames[1:3].intent_scores.tolist() == [[1, 2, 3], [2, 4, 6]]
    assert frames[-5].frame_id == 0
    for row in (5, -6):
        with pytest.raises(IndexError, match="of 5"):
            frames[row]
    for thing in (frames, frames[0]):
        with pytest.raises(AttributeError, match="no field 'sentimet'"):
            thing.sentimet  # noqa: B018


def test_frames_are_indexed_as_arrays_are(writer, reader):
    write(writer, 5)
    frames = reader.read()
    few = frames[frames.intent_scores[:, 0] > 2]
    assert few.frame_id.tolist() == [3, 4]
    assert few.small.tolist() == [[3, 1.5], [4, 2]]
    assert frames[[4, 0]].frame_id.tolist() == [4, 0]
    assert frames[np.argsort(-frames.frame_id.astype(int))][0].frame_id == 4
    assert frames[np.int64(2)].frame_id == 2
    assert frames["intent_scores"] is frames.intent_scores
    assert frames["frame_id"].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="sentimet"):
        frames["sentimet"]


def test_frames_go_to_another_process(writer, reader):
    write(writer, 5)
    frames = reader.read()
    copy, frame = pickle.loads(pickle.dumps((frames, frames[3])))
    assert freeze(copy) == freeze(frames)
    assert (frame.frame_id, frame.intent_scores.tolist()) == (3, [3, 6, 9])


def test_the_same_memory_in_numpy_and_by_dlpack(writer, reader):
    write(writer, 5)
    frames = reader.read()
    for same in (np.asarray(frames), np.from_dlpack(frames), np.from_dlpack(frames.semantic)):
        assert np.shares_memory(same, frames.semantic)
        assert same.tolist() == frames.semantic.tolist()
    assert np.shares_memory(frames.floats, frames.records)
    assert not np.shares_memory(np.array(frames), frames.semantic)
    assert np.asarray(frames, "<f8").dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        np.asarray(frames, "<f8", copy=False)


# ---- arrays that are used again ----


HOLDS = {
    "frames": lambda frames: frames,
    "records": lambda frames: frames.records,
    "field": lambda frames: frames.frame_id,
    "floats": lambda frames: frames.floats,
    "column": lambda frames: frames.semantic,
    "extra column": lambda frames: frames.small,
    "part of a column": lambda frames: frames.intent_scores[1:],
    "columns": lambda frames: frames.columns["intent_scores"],
    "arrays": lambda frames: frames.arrays,
    "frame": lambda frames: frames[0],
    "row": lambda frames: frames[0].semantic,
    "rows": lambda frames: frames[:2],
    "iterated": lambda frames: [*frames],
    "memoryview": lambda frames: memoryview(frames.semantic),
    "dlpack": np.from_dlpack,
    "its base": lambda frames: frames.semantic.T[::2].base,
}


@pytest.mark.parametrize("hold", HOLDS.values(), ids=HOLDS)
def test_what_is_held_is_never_written_again(writer, reader, hold):
    write(writer, 4)
    held = hold(reader.read())
    before = freeze(held)
    for turn in range(1, 6):
        write(writer, 4, 4 * turn)
        assert len(reader.read()) == 4
    assert freeze(held) == before


# ---- reading ----


def test_nothing_to_read_is_no_frames_of_the_right_shape(writer, reader):
    for frames in (reader.read(), reader.read(0), reader.latest(5), reader.read(-3)):
        assert (len(frames), frames.lost, frames.void) == (0, 0, 0)
        assert frames.semantic.shape == (0, DIM)
        assert frames.small.shape == (0, 2)


def test_a_position_of_one_s_own(writer, reader):
    write(writer, 10)
    reader.position = 7
    assert reader.read().frame_id.tolist() == [7, 8, 9]
    reader.position = 10**6
    assert len(reader.read()) == 0
    assert reader.lag == 0
    assert (reader.lost, reader.void) == (0, 0)


def test_reading_without_an_end(writer, reader):
    """timeout=None waits until something comes."""
    frames = []
    thread = threading.Thread(target=lambda: frames.append(reader.read(timeout=None)))
    thread.start()
    write(writer, 2)
    thread.join(60)
    assert frames[0].frame_id.tolist() == [0, 1]


def test_a_position_is_a_number_of_any_kind_but_not_below_zero(writer, reader):
    write(writer, 10)
    frames = reader.read()
    reader.position = frames.frame_id[7]
    assert (reader.lag, reader.read().frame_id.tolist()) == (3, [7, 8, 9])
    assert type(reader.position) is int
    for wrong in (-1, 1 << 62):
        with pytest.raises(Refuse, match=f"frame {wrong}") as caught:
            reader.position = wrong
        assert caught.value.code == "ring.position"
    assert reader.position == 10


def test_a_start_that_is_no_place_is_refused(writer, engine):
    with pytest.raises(Refuse, match="'newest'") as caught:
        RingReader.open(writer.path, start="newest", engine=engine)
    assert caught.value.code == "ring.start"


def test_following_by_no_frames_is_refused(writer, reader):
    """It would spin for ever."""
    write(writer, 1)
    for none in (0, -1):
        with pytest.raises(Refuse, match=f"{none} frames") as caught:
            next(reader.follow(none, idle_s=0))
        assert caught.value.code == "ring.batch"


def test_a_closed_reader_says_so(writer, reader):
    write(writer, 3)
    frames = reader.read()
    reader.close()
    reader.close()
    assert reader.closed
    for use in (reader.read, reader.latest, reader.stat, lambda: reader.lag):
        with pytest.raises(Halt, match="was closed") as caught:
            use()
        assert caught.value.code == "ring.closed"
    assert (reader.position, len(frames)) == (3, 3)


def test_a_dropped_reader_leaves_its_frames(writer, engine):
    write(writer, 3)
    frames = RingReader.open(writer.path, engine=engine).read()
    gc.collect()
    assert frames.frame_id.tolist() == [0, 1, 2]


def test_a_ring_that_is_not_there_yet_is_waited_for(shm, engine):
    with pytest.raises(Refuse, match="no such file"):
        RingReader.open(shm / "ring", engine=engine, wait=0.01)
    found = []
    thread = threading.Thread(
        target=lambda: found.append(RingReader.open(shm / "ring", engine=engine, wait=None))
    )
    thread.start()
    with RingWriter.open(shm / "ring", SPEC, engine=engine) as writer:
        write(writer, 1)
        thread.join(60)
        assert len(found[0].read(timeout=60)) == 1


def test_looking_goes_on_in_another_file(writer, reader, engine):
    """Who only asks for the newest, or where a source is, must not look at the old file for ever."""
    write(writer, 3, source=("events.raw", 0))
    assert reader.latest().frame_id.tolist() == [2]
    writer.close()
    with RingWriter.open(writer.path, RingSpec(DIM, 32), engine=engine) as other:
        write(other, 2, 3, source=("events.raw", 0))
        assert reader.latest(9).frame_id.tolist() == [3, 4]
        late = RingReader.open(writer.path, engine=engine)
    with RingWriter.open(writer.path, SPEC, engine=engine) as other:
        write(other, 2, 5, source=("events.raw", 0))
        assert (late.since("events.raw", 0, 5), late.position) == (0, 5)
        assert late.read().frame_id.tolist() == [5, 6]


def test_what_came_just_before_another_file_is_read_from_the_old_one(
    writer, reader, engine, monkeypatch
):
    """The writer commits and gives way between a look for frames and one for another file."""
    write(writer, 2)
    assert len(reader.read()) == 2
    replaced = files.replaced

    def replace_then_look(path, known):
        monkeypatch.setattr(files, "replaced", replaced)
        write(writer, 3, 2)
        writer.close()
        RingWriter.open(path, RingSpec(DIM, 32), engine=engine).close()
        return replaced(path, known)

    monkeypatch.setattr(files, "replaced", replace_then_look)
    assert reader.read().frame_id.tolist() == [2, 3, 4]
    assert (reader.lost, reader.mapping.spec.capacity) == (0, 16)
    assert len(reader.read()) == 0
    assert (reader.position, reader.mapping.spec.capacity) == (5, 32)


def test_an_extra_column_may_come(shm, engine):
    """Another shape is another file; what the reader hands out follows it."""
    with RingWriter.open(shm / "ring", RingSpec(DIM, 16), engine=engine) as writer:
        reader = RingReader.open(shm / "ring", engine=engine)
        write(writer, 2)
        assert list(reader.read().columns) == ["semantic"]
    with RingWriter.open(shm / "ring", SPEC, engine=engine) as writer:
        write(writer, 2, 2)
        frames = reader.read(timeout=60)
    assert frames.frame_id.tolist() == [2, 3]
    assert frames.intent_scores.tolist() == [[2, 4, 6], [3, 6, 9]]
    assert [column.name for column in reader.stat()["columns"]] == list(frames.columns)


# ---- where frames came from ----

HERE, THERE = ("events.raw", 0), ("events.raw", 1)


def test_since_goes_on_after_a_frame_that_was_seen(writer, reader):
    write(writer, 3, 10, HERE)
    write(writer, 3, 70, THERE)
    write(writer, 3, 13, HERE)
    frame = reader.read(5)[-1]
    origin = reader.origin(frame)
    assert origin == (*THERE, 71)
    assert reader.since(*origin) == 0
    assert reader.read().source_offset.tolist()[0] == frame.source_offset
    for offset, ids, missed in (
        (10, range(9), 0),
        (12, range(2, 9), 0),
        (13, range(6, 9), 0),
        (15, range(8, 9), 0),
        (16, (), 0),
        (0, range(9), 10),
    ):
        assert reader.since(*HERE, offset) == missed, offset
        assert reader.read().frame_id.tolist() == list(ids)
    assert (reader.lost, reader.void) == (0, 0)


def test_since_says_how_many_offsets_were_lapped(writer, reader):
    write(writer, 8, 100, HERE)
    write(writer, 8, 500, THERE)
    write(writer, 4, 108, HERE)
    # Frames 0 to 3 are gone: offsets 100 to 103 of this source.
    assert reader.since(*HERE, 101) == 3
    assert reader.read(1).frame_id.tolist() == [4]
    assert reader.since(*HERE, 104) == 0
    assert reader.since(*THERE, 500) == 0
    write(writer, 8, 112, HERE)
    write(writer, 8, 120, HERE)
    # Nothing of the other source is left: what the ring knows is how far it had got.
    rows = {column.name: np.zeros((0, column.dim)) for column in SPEC.extra}
    positions = [SourcePosition(*THERE, 508, 1)]
    writer.write(new_records(0), np.zeros((0, DIM)), extra=rows, positions=positions)
    assert reader.since(*THERE, 506) == 2
    assert reader.lag == 0, "what comes next is the first from there"
    assert reader.since(*THERE, 508) == 0


def test_since_trusts_no_row_that_was_overwritten_meanwhile(writer, reader):
    """The writer comes by while the offsets are being looked at."""
    write(writer, 8, 100, HERE)
    mapping, looks = reader.mapping, []

    class Operations:
        head = staticmethod(mapping.ops.head)

        @staticmethod
        def claim():
            looks.append(mapping.ops.claim())
            if len(looks) == 1:
                write(writer, 8, 108, HERE)
                write(writer, 4, 116, HERE)
            return looks[0] if len(looks) == 1 else mapping.ops.claim()

    view = SimpleNamespace(**vars(mapping) | {"ops": Operations, "word": mapping.word})
    assert find_since(view, HERE, 100) == (4, 4)
    assert len(looks) == 2


def test_since_before_the_first_offset_there_can_be(writer, reader):
    """-2 is Kafka's word for the beginning; no offsets are missed below 0."""
    write(writer, 4, 3, source=("events.raw", 0))
    assert (reader.since("events.raw", 0, -2), reader.position) == (3, 0)


def test_since_of_a_source_that_is_not_there(writer, reader):
    for known in ("none", "events.raw/0"):
        with pytest.raises(Refuse, match="no frames from events.raw/7") as caught:
            reader.since("events.raw", 7, 0)
        assert caught.value.code == "ring.source"
        assert known in caught.value.fix
        write(writer, 1, 0, HERE)
    rows = {column.name: np.zeros((1, column.dim)) for column in SPEC.extra}
    writer.write(new_records(1), np.zeros((1, DIM)), extra=rows)
    assert reader.origin(reader.latest(1)[0]) is None, "a frame that came from no log"
