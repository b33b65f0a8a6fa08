"""``streamapp ring`` on a real ring."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from streamapp.ring import RingSpec, RingWriter, SourcePosition, new_records, pack_source


@pytest.fixture
def writer(tmp_path):
    with RingWriter.open(tmp_path / "ring", RingSpec(8, 64)) as ring:
        yield ring


@pytest.fixture
def look(run, tmp_path):
    """``streamapp ring VERB ...`` on the test's ring."""
    return lambda *arguments: run("ring", *arguments, "--ring-path", tmp_path / "ring")


def write(ring, first, count):
    records = new_records(count)
    records["sentiment"] = 0.5
    records["source_offset"] = pack_source(
        ring.source_index("events.raw", 0), np.arange(first, first + count)
    )
    vectors = np.full((count, 8), 1 / np.sqrt(8), np.float32)
    ring.write(
        records, vectors, positions=[SourcePosition("events.raw", 0, first + count, first + count)]
    )


def test_no_ring_says_who_makes_it(look):
    result = look("stat")
    assert result.code == 2
    assert "there is no such file" in result.err
    assert "start the terminal process" in result.err


def test_stat(look, writer):
    write(writer, 0, 10)
    text = look("stat").out
    assert "10 written, 10 kept, next id 10" in text
    assert "64 x 8 <f4" in text
    assert "events.raw/0 up to 10" in text
    said = look("stat", "--json").json
    assert (said["frames"], said["capacity"], said["writer_alive"]) == (10, 64, True)
    assert said["sources"][0]["topic"] == "events.raw"


@pytest.mark.parametrize(("count", "ids"), [(3, [7, 8, 9]), (100, list(range(10))), (0, [])])
def test_tail_prints_the_newest(look, writer, count, ids):
    write(writer, 0, 10)
    result = look("tail", "-n", str(count), "--json")
    assert [json.loads(line)["frame_id"] for line in result.out.splitlines()] == ids


def test_tail_line(look, writer):
    write(writer, 0, 1)
    frame = json.loads(look("tail", "--json").out)
    assert frame["sentiment"] == 0.5
    assert frame["velocity"] is None, "unknown is null, not NaN"
    assert len(frame["semantic"]) == 8
    assert "sentiment 0.5" in look("tail").out


def test_read_goes_from_the_oldest_to_the_newest_in_batches(look, writer):
    write(writer, 0, 50)
    write(writer, 50, 50)
    *batches, total = (
        json.loads(line) for line in look("read", "--batch", "30", "--json").out.splitlines()
    )
    assert [batch["frames"] for batch in batches] == [30, 30, 4]
    assert batches[0]["first"] == 36
    assert batches[0]["shape"] == [30, 8]
    assert total["total"]["frames"] == 64
    assert "64 frames, 0 lost, 0 void" in look("read").out


def test_tensors_need_torch(look, writer, monkeypatch):
    write(writer, 0, 5)
    monkeypatch.setitem(sys.modules, "torch", None)  # import says that there is none
    result = look("read", "--pytorch")
    assert result.code == 2
    assert "pip install torch" in result.err


def test_tensors_are_made_of_the_reader_s_arrays(look, writer, monkeypatch):
    write(writer, 0, 5)
    given = []
    torch = SimpleNamespace(from_numpy=lambda array: given.append(array) or array)
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert "semantic (5, 8) float32" in look("read", "--pytorch").out
    assert given[0].flags.c_contiguous


def test_follow_sees_what_comes_later(writer, tmp_path):
    write(writer, 0, 2)
    command = [sys.executable, "-m", "streamapp.cli", "ring", "tail", "--follow", "--json"]
    with subprocess.Popen(
        [*command, "--ring-path", str(tmp_path / "ring")], stdout=subprocess.PIPE, text=True
    ) as process:
        ids = [json.loads(process.stdout.readline())["frame_id"] for _ in range(2)]
        write(writer, 2, 3)
        ids += [json.loads(process.stdout.readline())["frame_id"] for _ in range(3)]
        process.kill()
    assert ids == [0, 1, 2, 3, 4]


def test_follow_ends_when_idle(look, writer):
    write(writer, 0, 2)
    result = look("read", "--follow", "--idle-s", "0")
    assert result.code == 0
    assert "2 frames, 0 lost" in result.out


def test_an_unknown_engine_is_refused(look):
    assert "c, twin" in look("stat", "--ring-engine", "rust").err
