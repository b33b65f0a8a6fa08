"""The ancestors' consumer, by its names."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import ring_content

from streamapp.core.errors import Refuse
from streamapp.ring import PhysicsConsumer, RingSpec, RingWriter
from streamapp.ring.opening import oldest
from streamapp.ring.pool import Pool


def write(writer, n, at=0):
    keys = np.arange(at, at + n)
    writer.write(ring_content.records(keys), ring_content.vectors(keys, 4))


@pytest.fixture
def writer(shm):
    with RingWriter.open(shm / "ring", RingSpec(4, 16)) as ring:
        yield ring


def test_the_ancestors_snippet(writer, monkeypatch, capsys):
    monkeypatch.setenv("STREAMAPP_RING_PATH", str(writer.path))
    write(writer, 3)
    with PhysicsConsumer() as consumer:
        for frame in consumer.follow(idle_s=0.01):
            print(frame.frame_id, frame.semantic[:3], frame.sentiment)  # noqa: T201  # the snippet
    line = ring_content.vectors([2], 4)[0, :3]
    assert capsys.readouterr().out == f"2 {line} {ring_content.records([2])['sentiment'][0]}\n"


@pytest.mark.parametrize("when", ["oldest", "copy"])
def test_the_newest_frame_is_found_though_the_writer_comes_by(writer, monkeypatch, when):
    """It overwrites the whole ring between a look at the head and the copy."""
    write(writer, 16)
    consumer = PhysicsConsumer(writer.path)
    after, laps = {"oldest": oldest, "copy": Pool.take}[when], []

    def lapped(*args):
        if not laps:
            laps.append(16)
            for at in range(16, 48, 8):
                write(writer, 8, at)
        return after(*args)

    where = "streamapp.ring.reader.oldest" if when == "oldest" else "streamapp.ring.pool.Pool.take"
    monkeypatch.setattr(where, lapped)
    assert consumer.read_latest().frame_id == 47
    assert laps, "the writer came by"


def test_follow_skips_nothing_between_two_looks(writer):
    """The ancestor's looked at the newest frame every millisecond and lost those between."""
    write(writer, 3)
    consumer = PhysicsConsumer(writer.path)
    frames = consumer.follow()
    assert next(frames).frame_id == 2
    for start in range(3, 12, 3):
        write(writer, 3, start)
    assert [next(frames).frame_id for _ in range(9)] == list(range(3, 12))
    assert consumer.reader.lost == 0


def test_an_empty_ring_has_no_latest_frame(writer):
    """The ancestor's gave a frame of zeros."""
    with PhysicsConsumer(writer.path) as consumer:
        assert consumer.read_latest() is None
        assert len(consumer.read_batch(8)) == 0
        write(writer, 1)
        assert consumer.read_latest().frame_id == 0


def test_a_batch_is_the_newest_in_order(writer):
    """The ancestor's repeated frames when asked for more than there are."""
    write(writer, 8)
    write(writer, 8, 8)
    write(writer, 4, 16)
    with PhysicsConsumer(writer.path) as consumer:
        assert consumer.read_batch(3).frame_id.tolist() == [17, 18, 19]
        assert consumer.read_batch(100).frame_id.tolist() == list(range(4, 20))
        assert consumer.read_latest().frame_id == 19


def test_tensors_share_the_frames_memory(writer, monkeypatch):
    given = []
    torch = SimpleNamespace(from_numpy=lambda array: given.append(array) or array)
    monkeypatch.setitem(sys.modules, "torch", torch)
    write(writer, 5)
    with PhysicsConsumer(writer.path) as consumer:
        semantic, floats = consumer.read_batch_tensors(4)
    assert (semantic.shape, floats.shape) == ((4, 4), (4, 12))
    assert semantic is given[0]


def test_real_tensors(writer):
    torch = pytest.importorskip("torch", reason="torch is not installed: the tensors' memory")
    write(writer, 5)
    with PhysicsConsumer(writer.path) as consumer:
        semantic, floats = consumer.read_batch_tensors(4)
        frames = consumer.read_batch(4)
        shared = torch.from_dlpack(frames)
    assert (tuple(semantic.shape), tuple(floats.shape)) == ((4, 4), (4, 12))
    assert shared.data_ptr() == frames.semantic.ctypes.data
    assert semantic.tolist() == frames.semantic.tolist()


def test_without_torch_it_says_what_to_install(writer, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with (
        PhysicsConsumer(writer.path) as consumer,
        pytest.raises(Refuse, match="torch is not installed") as caught,
    ):
        consumer.read_batch_tensors(1)
    assert "streamapp[torch]" in caught.value.fix


def test_without_a_ring_it_says_who_makes_it(shm):
    with pytest.raises(Refuse, match="no such file") as caught:
        PhysicsConsumer(shm / "ring")
    assert "terminal" in caught.value.fix
