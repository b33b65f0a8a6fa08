"""The control plane: whole or refused, whoever writes it and whenever they die."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from control_writer import plane_of
from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.errors import Refuse, Retry, StreamappError
from streamapp.ring import control as module
from streamapp.ring.control import (
    ATTRACTORS_MAX,
    HEADER_BYTES,
    HEADER_DTYPE,
    SLOT_DTYPE,
    Attractor,
    Control,
    ControlPlane,
    attractor_dtype,
    control_path,
)

DIM = 5
WAIT_S = 30


def attractor(label="here", mass=1.0, value=1.0, dim=DIM):
    return Attractor(label, mass, np.full(dim, value, np.float32))


@pytest.fixture
def path(shm):
    return shm / "x.ring.control"


@pytest.fixture
def plane(path):
    with ControlPlane.create(path, DIM) as opened:
        yield opened


def same(one, other):
    assert one.gravity == other.gravity
    assert [a[:2] for a in one.attractors] == [a[:2] for a in other.attractors]
    for a, b in zip(one.attractors, other.attractors, strict=True):
        np.testing.assert_array_equal(a.position, b.position)


def test_what_was_written_is_read(plane, path):
    same(plane.read(), Control(1.0, ()))
    wanted = Control(-0.5, (attractor("conta-ção", 2.5), attractor("b", -1.0, 3.0)))
    before = plane.sequence()
    plane.write(wanted)
    assert plane.sequence() == before + 2
    with ControlPlane.open(path) as other:
        same(other.read(), wanted)
    assert control_path(Path("/a/x.ring")) == Path("/a/x.ring.control")


def test_the_group_may_write_whatever_the_umask(shm):
    before = os.umask(0o077)
    try:
        ControlPlane.create(shm / "c", DIM).close()
    finally:
        os.umask(before)
    assert (shm / "c").stat().st_mode & 0o777 == 0o660
    assert [p.name for p in shm.iterdir()] == ["c"], "nothing is left of making it"


def test_making_what_is_there_opens_it(plane, path):
    plane.write(Control(7.0))
    with ControlPlane.create(path, DIM) as again:
        assert again.read().gravity == 7
    with pytest.raises(Refuse, match="vectors of 5 values, the ring's have 6"):
        ControlPlane.create(path, 6)


def test_many_who_make_it_at_once_share_one(path):
    start = threading.Barrier(8)
    planes = []

    def make():
        start.wait(WAIT_S)
        planes.append(ControlPlane.create(path, DIM))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert len({plane.identity for plane in planes}) == 1
    for plane in planes:
        plane.close()


@pytest.mark.parametrize(
    ("control", "reason"),
    [
        (Control(float("nan")), "gravity nan"),
        (Control(1e7), "gravity"),
        (Control(1, (attractor(mass=float("inf")),)), "mass inf"),
        (Control(1, (attractor(value=float("nan")),)), "points nowhere"),
        (Control(1, (attractor(value=0),)), "points nowhere: its length is 0"),
        (Control(1, (attractor(dim=4),)), r"shape \(4,\)"),
        (Control(1, (attractor(""),)), "1 to 32 bytes"),
        (Control(1, (attractor("ã" * 17),)), "1 to 32 bytes"),
        (Control(1, (attractor("a\x1b[2J"),)), "printable"),
        (Control(1, (attractor(), attractor())), "twice"),
        (Control(1, tuple(attractor(str(i)) for i in range(65))), "65 attractors"),
    ],
)
def test_no_plane_takes_nonsense(plane, control, reason):
    plane.write(Control(3.0))
    with pytest.raises(Refuse, match=reason):
        plane.write(control)
    assert plane.read().gravity == 3, "what held before still holds"


def poke(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


NAN = np.float32("nan").tobytes()
SLOT = HEADER_BYTES + SLOT_DTYPE.itemsize + ATTRACTORS_MAX * attractor_dtype(DIM).itemsize
PLACE = SLOT + SLOT_DTYPE.itemsize  # the first attractor of slot 1, which holds after one write


@pytest.mark.parametrize(
    ("offset", "data", "reason"),
    [
        (SLOT, b"\xff\xff\xff\xff", "attractors are more than 64"),
        (SLOT + 4, NAN, "gravity nan"),
        (PLACE, b"\xff\xfe", "UTF-8"),
        (PLACE, b"a\nb", "printable"),
        (PLACE + 32, NAN, "mass nan"),
        (PLACE + 64, NAN, "points nowhere"),
        (PLACE + 64, np.full(DIM, 3e38, np.float32).tobytes(), "points nowhere"),
    ],
)
def test_what_others_wrote_wrongly_is_refused(plane, path, offset, data, reason):
    plane.write(Control(1, (attractor(),)))
    poke(path, offset, data)
    with pytest.raises(Refuse, match=reason):
        plane.read()


BROKEN = {
    "another magic": (lambda p: poke(p, 0, b"EVRING"), "magic"),
    "another version": (lambda p: poke(p, 8, b"\x09"), "version 1"),
    "another byte order": (lambda p: poke(p, 12, b"\1\2\3\4"), "version 1"),
    "dim 0": (lambda p: poke(p, 24, b"\0\0\0\0"), "version 1"),
    "dim 17": (lambda p: poke(p, 24, b"\x11"), "version 1"),
    "a larger table": (lambda p: poke(p, 28, b"\xff\xff"), "version 1"),
    "cut": (lambda p: os.truncate(p, 500), "500 bytes"),
    "nearly empty": (lambda p: os.truncate(p, 10), "magic"),
    "open to all": (lambda p: p.chmod(0o666), "everybody may write"),
    "a link": (lambda p: p.rename(p.with_name("y")) and p.symlink_to("y"), "symbolic link"),
    "a fifo": (lambda p: p.unlink() or os.mkfifo(p), "not a regular file"),
    "a folder": (lambda p: p.unlink() or p.mkdir(), "not a regular file"),
    "nothing": (lambda p: p.unlink(), "there is no control plane"),
}


@pytest.mark.parametrize(("break_it", "reason"), BROKEN.values(), ids=BROKEN)
def test_what_is_not_a_plane_is_refused(plane, path, break_it, reason):
    break_it(path)
    with pytest.raises(Refuse, match=reason):
        ControlPlane.open(path)


def test_a_plane_of_a_stranger_is_refused(plane, path):
    if os.geteuid():
        pytest.skip("only root can give files away")
    os.chown(path, 12345, -1)
    with pytest.raises(Refuse, match="belongs to user 12345"):
        ControlPlane.open(path)


def test_another_group_may_write_it(shm):
    if os.geteuid():
        pytest.skip("only root can become somebody else")
    path = shm / "c"
    ControlPlane.create(path, DIM).close()
    os.chown(path, -1, 4321)
    shm.chmod(0o711)
    program = (
        "import os, sys; os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(12345);"
        "from streamapp.ring.control import *; plane = ControlPlane.open(sys.argv[1], writable=True);"
        "plane.change(lambda c: c._replace(gravity=9))"
    )

    def as_group(gid):
        return subprocess.run(
            [sys.executable, "-c", f"import streamapp.ring.control; {program}", path, str(gid)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    stranger = as_group(999)
    assert "ask its owner to `chgrp`" in stranger.stderr
    assert as_group(4321).returncode == 0, stranger.stderr
    with ControlPlane.open(path) as plane:
        assert plane.read().gravity == 9


def test_a_file_that_is_cut_short_while_open_ends_nobody(plane, path):
    plane.write(Control(2.0))
    os.truncate(path, 100)
    with pytest.raises(StreamappError):
        plane.read()


def test_a_half_written_slot_spoils_nothing_and_the_next_writer_mends_it(plane, path):
    good = Control(4.0, (attractor("kept"),))
    plane.write(good)
    at = plane.sequence()
    poke(path, 64, (at + 1).to_bytes(8, "little"))  # a writer came, wrote half, and died
    poke(path, HEADER_BYTES, os.urandom(200))
    same(plane.read(), good)
    with ControlPlane.open(path) as fresh:
        same(fresh.read(), good)
    plane.change(lambda old: old._replace(gravity=5.0))
    assert plane.sequence() == at + 2
    same(plane.read(), good._replace(gravity=5.0))


@pytest.mark.parametrize("sequence", [2**64 - 1, 2**64 - 2, 2**63])
def test_a_sequence_that_another_one_drove_to_its_end_goes_round(plane, path, sequence):
    plane.write(Control(3.0))
    plane.write(Control(3.0))  # in both slots
    poke(path, HEADER_DTYPE.fields["sequence"][1], sequence.to_bytes(8, "little"))
    for gravity in (4.0, 5.0, 6.0):
        before = plane.sequence()
        plane.write(Control(gravity))
        assert plane.read().gravity == gravity
        assert plane.sequence() != before


def test_a_reader_never_waits_for_a_writer(plane, monkeypatch):
    """A writer that comes by again and again makes it give up, not wait."""
    plane.write(Control(1.0))
    sequence = iter(range(2, 10_000, 4))
    monkeypatch.setattr(plane, "sequence", lambda: next(sequence))
    with pytest.raises(Retry, match="all the time"):
        plane.read()
    assert next(sequence) <= 2 + 4 * 2 * module.TRIES + 4


def test_writers_take_turns(plane, path, monkeypatch):
    monkeypatch.setattr(module, "LOCK_WAIT_S", 0.05)
    with (
        ControlPlane.open(path, writable=True) as other,
        other._turn(),
        pytest.raises(Retry, match="another process writes"),
    ):
        plane.write(Control(2.0))
    plane.write(Control(2.0))


def test_changes_of_many_writers_add_up(plane, path):
    def add(number):
        with ControlPlane.open(path, writable=True) as mine:
            for i in range(4):
                new = attractor(f"{number}-{i}")
                mine.change(lambda c, new=new: c._replace(attractors=(*c.attractors, new)))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(plane.read().attractors) == 24


def kill_writers(start, path, rounds):
    """Writers are killed at random moments; all that a reader sees is of one write."""
    generator = np.random.default_rng(5)
    reads = 0
    with ControlPlane.open(path) as plane:
        for round_ in range(rounds):
            writer = start("control_writer.py", path, round_ * 1_000_000)
            assert writer.stdout.readline() == "ready\n"
            deadline = time.monotonic() + generator.uniform(0.0, 0.1)
            while time.monotonic() < deadline:
                reads += read_whole(plane)
            writer.send_signal(signal.SIGKILL)
            writer.wait(WAIT_S)
            assert read_whole(plane), "nobody writes: there is always one that holds"
    return reads


def read_whole(plane):
    try:
        found = plane.read()
    except Retry:
        return 0
    if found.attractors:
        number = int(found.attractors[0].label.split("-")[0])
        same(found, plane_of(number, plane.dim))
    return 1


def test_a_killed_writer_leaves_what_held(start, path):
    ControlPlane.create(path, 384).close()
    assert kill_writers(start, path, 4) > 20


@pytest.mark.soak
def test_killed_writers_leave_what_held_for_long(start, path):
    ControlPlane.create(path, 1024).close()
    assert kill_writers(start, path, 200) > 1000


@given(st.integers(0, 64), st.integers(1, 70))
def test_the_header_for_c_says_where_everything_is(count, dim):
    kind = attractor_dtype(dim)
    assert kind.itemsize % 64 == 0
    assert kind.itemsize >= 64 + 4 * dim
    fields = kind.fields
    assert (fields["mass"][1], fields["position"][1]) == (32, 64)


def test_the_header_for_c_agrees(tmp_path):
    include = Path(__file__).parents[2] / "include"
    text = (include / "streamapp_ring_control.h").read_text()
    numbers = dict(re.findall(r"#define EVCTRL_(\w+) (\d+)$", text, re.MULTILINE))
    assert {name: int(value) for name, value in numbers.items()} == {
        "VERSION": module.VERSION,
        "HEADER_BYTES": HEADER_BYTES,
        "ATTRACTORS_MAX": ATTRACTORS_MAX,
        "LABEL_BYTES": module.LABEL_BYTES,
    }
    places = {
        "evctrl_header": ("sequence", HEADER_DTYPE, HEADER_DTYPE.itemsize),
        "evctrl_slot": ("written_unix_us", SLOT_DTYPE, SLOT_DTYPE.itemsize),
        "evctrl_attractor": ("mass", attractor_dtype(1), 64),
    }
    checks = "".join(
        f'_Static_assert(sizeof({name}) == {size}, "");'
        f'_Static_assert(offsetof({name}, {field}) == {kind.fields[field][1]}, "");'
        for name, (field, kind, size) in places.items()
    )  # fmt: skip
    source = tmp_path / "check.c"
    source.write_text(f'#include <stddef.h>\n#include "streamapp_ring_control.h"\n{checks}\n')
    done = subprocess.run(
        ["cc", "-std=c11", "-Wall", "-Werror", "-fsyntax-only", f"-I{include}", source],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
