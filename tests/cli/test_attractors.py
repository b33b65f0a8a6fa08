"""``streamapp ring attractors`` on a real ring."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from streamapp.ring import RingSpec, RingWriter, RowFlag, new_records
from streamapp.ring.control import ControlPlane, control_path

DIM = 8


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ring"


@pytest.fixture
def writer(path):
    with RingWriter.open(path, RingSpec(DIM, 64)) as ring:
        yield ring


@pytest.fixture
def pull(run, path):
    """``streamapp ring attractors VERB ...`` on the test's ring."""
    return lambda *arguments: run("ring", "attractors", *arguments, "--ring-path", path)


def write(ring, axes, embedded=True):
    """A frame along each of these axes."""
    records = new_records(len(axes))
    records["flags"] = RowFlag.EMBEDDED if embedded else 0
    ring.write(records, np.eye(DIM, dtype=np.float32)[list(axes)])


def test_without_a_ring_everybody_says_who_makes_it(pull):
    for verb in (("gravity", "2"), ("learn",), ("set", "a", "--text", "t")):
        result = pull(*verb)
        assert result.code == 2
        assert "start what writes it" in result.err


def test_without_a_plane_list_says_how_to_make_one(pull, writer):
    for verb in (("list",), ("remove", "a")):
        result = pull(*verb)
        assert result.code == 2
        assert "streamapp ring attractors set LABEL --text" in result.err


def test_gravity(pull, writer, path):
    assert pull("gravity", "0.5").out == "gravity 0.5\nattractor  mass\n"
    assert pull("list", "--json").json == {
        "path": str(control_path(path)),
        "dim": DIM,
        "gravity": 0.5,
        "attractors": [],
    }
    assert "gravity nan is not a number" in pull("gravity", "nan").err


def test_learn_finds_where_frames_gather(pull, writer):
    write(writer, [1] * 10 + [2] * 6 + [3] * 4)
    said = pull("learn", "--k", "3", "--json").json["attractors"]
    assert [one["label"] for one in said] == ["learned-1", "learned-2", "learned-3"]
    assert [round(one["mass"], 3) for one in said] == [0.5, 0.3, 0.2]
    assert [np.argmax(one["position"]) for one in said] == [1, 2, 3]
    assert "learned-1   0.5" in pull("list").out


def test_learn_looks_at_the_newest_only_and_leaves_what_was_set_by_hand(pull, writer, path):
    write(writer, [1] * 10 + [2] * 10)
    pull("gravity", "3")
    with ControlPlane.open(control_path(path), writable=True) as plane:
        from streamapp.ring.control import Attractor

        mine = Attractor("mine", 9.0, np.ones(DIM, np.float32))
        plane.change(lambda c: c._replace(attractors=(mine,)))
    pull("learn", "--k", "5")
    said = pull("learn", "--k", "1", "--frames", "5", "--json").json
    assert [one["label"] for one in said["attractors"]] == ["mine", "learned-1"]
    assert np.argmax(said["attractors"][1]["position"]) == 2
    assert said["gravity"] == 3


@pytest.mark.parametrize(
    ("frames", "embedded", "said"),
    [
        (0, True, "0 of the newest 0 frames"),
        (3, True, "3 of the newest 3"),
        (9, False, "0 of the newest 9"),
    ],
)
def test_too_few_frames_to_learn_from(pull, writer, frames, embedded, said):
    write(writer, range(frames) if frames < DIM else [0] * frames, embedded)
    result = pull("learn")
    assert result.code == 2
    assert said in result.err
    assert "--k" in result.err


@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_vectors_without_a_direction_teach_nothing(pull, writer, value):
    write(writer, range(DIM))
    pull("learn", "--k", "2")
    records = new_records(20)
    records["flags"] = RowFlag.EMBEDDED
    writer.write(records, np.full((20, DIM), value, np.float32))
    result = pull("learn", "--k", "2", "--frames", "20")
    assert result.code == 2
    assert "0 of the newest 20 frames have a vector" in result.err
    assert len(result.err.splitlines()) == 2, result.err
    assert len(pull("list", "--json").json["attractors"]) == 2, "what was learned before stays"


def test_remove(pull, writer):
    write(writer, [1, 2, 3])
    pull("learn", "--k", "3")
    said = pull("remove", "learned-2", "--json").json
    assert [one["label"] for one in said["attractors"]] == ["learned-1", "learned-3"]
    assert "there are: learned-1, learned-3" in pull("remove", "learned-2").err
    assert pull("remove").code == 2
    assert pull("remove", "--all", "--json").json["attractors"] == []


def test_mass_of_one_that_is_there(pull, writer):
    write(writer, [1, 2, 3])
    pull("learn", "--k", "1")
    said = pull("set", "learned-1", "--mass", "7", "--json").json["attractors"]
    assert [one["mass"] for one in said] == [7]
    assert "say it with --text" in pull("set", "new").err
    assert "is not a number" in pull("set", "learned-1", "--mass", "inf").err


def test_a_text_needs_the_model_of_the_ring(pull, writer, monkeypatch):
    from streamapp import compose

    class Embedder:
        dim = DIM

        def embed(self, texts, kind):
            assert (texts, kind) == (["money back"], "query")
            return np.eye(DIM, dtype=np.float32)[:1], [False]

    class Registry:
        def embedder(self, name):
            return Embedder()

    monkeypatch.setattr(compose, "registry", lambda settings: Registry())
    [one] = pull("set", "refunds", "--text", "money back", "--json").json["attractors"]
    assert (one["label"], one["mass"], np.argmax(one["position"])) == ("refunds", 1.0, 0)
    Embedder.dim = 3
    assert "vectors of 3 values, the ring's have 8" in pull("set", "b", "--text", "x").err


def test_follow_learns_again(writer, path):
    command = [sys.executable, "-m", "streamapp.cli", "ring", "attractors", "learn", "--follow"]
    options = ["--k", "2", "--every-s", "0.1", "--ring-path", str(path), "--json"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert "waiting for more" in process.stderr.readline()
        write(writer, [1, 2])
        lines = []
        while not lines or lines[-1] != "}\n":
            lines.append(process.stdout.readline())
        assert len(json.loads("".join(lines))["attractors"]) == 2
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130


def test_the_labels_of_others_cannot_move_the_cursor(pull, writer, path):
    write(writer, [1])
    pull("learn", "--k", "1")
    data = path.with_name("ring.control").read_bytes().replace(b"learned-1", b"\x1b[2Jxxxxx")
    path.with_name("ring.control").write_bytes(data)
    result = pull("list")
    assert result.code == 2
    assert "\x1b" not in result.out + result.err
