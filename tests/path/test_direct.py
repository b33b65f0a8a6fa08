"""A worker that writes the ring itself, as real processes: killed, stopped, in turns with a terminal."""

import random
import subprocess
import sys
import threading

import numpy as np
import pytest
from fleet import Fleet, Load, events
from machine import free_ports

from streamapp.ring import RingReader

pytestmark = pytest.mark.timeout(300)

TEXTS = [
    "Quero cancelar meu plano",
    "Where is my order? It should have come on Monday.",
    "  ",
    "Hi",
]


class Follower(threading.Thread):
    """Reads every frame as it comes: ids, and what it was told it lost."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.ids, self.lost, self.void, self.enough = path, [], 0, 0, threading.Event()

    def run(self):
        with RingReader.open(self.path) as reader:
            while not self.enough.is_set() or reader.lag:
                frames = reader.read(64, timeout=0.05)
                self.ids += frames.frame_id.tolist()
                self.lost += frames.lost
                self.void += frames.void


def send(machine, count, seed, failures):
    chance = random.Random(seed)
    try:
        for number in range(count):
            machine.post_until_taken(
                {
                    "id": f"e{seed}-{number}",
                    "message": f"{chance.choice(TEXTS)} {number or ''}",
                    "conversation_id": f"c{number % 5}",
                }
            )
    except BaseException as error:  # noqa: BLE001  # shown by the test
        failures.append(error)


def addresses_of_rows(machine):
    rows = machine.rows("select source_partition as p, source_offset as o from events")
    return sorted((row["p"], row["o"]) for row in rows)


def wait_frames(machine, count):
    machine.wait_rows(count)
    machine.wait_for(lambda: len(machine.frames()[0]) >= count, "every event to be a frame")
    addresses, lost = machine.frames()
    assert len(addresses) == len(set(addresses)), "a frame twice"
    assert sorted(addresses) == addresses_of_rows(machine)
    assert lost == 0


@pytest.mark.models
def test_killed_in_mid_stream_every_event_is_a_frame_once(machines):
    machine = machines(ring="direct", batch_events_max=8, session_s=3).start()
    assert "terminal" not in machine.pids()
    refuses_a_second(machine)
    follower, failures, chance = Follower(machine.ring), [], random.Random(4)
    follower.start()
    sender = threading.Thread(target=send, args=(machine, 100, 1, failures))
    sender.start()
    pause = threading.Event()
    for _ in range(2):
        machine.wait_for(lambda: machine.ready("worker"), "the worker to be back")
        pause.wait(chance.uniform(0.1, 1.0))  # a random moment, not a condition
        machine.kill("worker")
    sender.join(120)
    assert not failures, failures
    wait_frames(machine, 100)
    follower.enough.set()
    follower.join(30)
    assert follower.lost == 0
    assert len(follower.ids) == 100
    assert follower.ids == sorted(set(follower.ids))
    assert follower.ids[-1] - follower.ids[0] + 1 - len(follower.ids) <= follower.void
    vectors_are_the_stored_ones(machine)
    assert machine.stop() == 0


def test_a_terminal_and_a_worker_take_turns(tmp_path):
    """Workers that were killed, each time another who writes, and at the end every row a frame."""
    fleet, sent = Fleet(tmp_path, f"local://{tmp_path / 'log'}", stage_s=0.01), []
    try:
        fleet.start("store")
        for turn, who in enumerate(("direct", "c", "direct")):
            fleet.env["STREAMAPP_RING"] = who
            names = ["worker", *(["terminal"] if who == "c" else [])]
            fleet.start(*names)
            with Load(fleet.broker, events(f"turn{turn}", 1), sent) as load:
                load.more(60)
                fleet.kill("worker")  # the last one's ring is ahead of its log
                fleet.start("worker")
                load.more(60)
            good = len({one.id for one in sent if one.id is not None})
            fleet.wait_rows(good)
            wait_frames(fleet, len(fleet.rows("select id from events")))
            assert fleet.terminate(*names) == {0}
        assert fleet.terminate("store") == {0}
    finally:
        fleet.stop()


def refuses_a_second(machine):
    """Another worker on this host is told in two lines."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "streamapp.cli", "worker", "--worker-port", str(*free_ports(1))],
        env=machine.env, cwd=machine.home, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    error, fix = [line for line in done.stderr.splitlines() if line.startswith(("error:", "fix:"))]
    assert str(machine.ring) in error
    assert "one worker on a host" in fix
    assert "Traceback" not in done.stderr


def vectors_are_the_stored_ones(machine):
    """The frame was made before the row, perhaps by a run of the model that did not live to see it."""
    rows = machine.rows("select source_offset as o, source_partition as p, embedding from events")
    stored = {(row["p"], row["o"]): row["embedding"] for row in rows}
    addresses, _ = machine.frames()
    with RingReader.open(machine.ring) as reader:
        frames = reader.read(4096)
    assert len(frames) == len(addresses)
    for address, vector in zip(addresses, frames.semantic, strict=True):
        expected = stored[address]
        expected = np.zeros(len(vector)) if expected is None else expected
        np.testing.assert_allclose(vector, expected, atol=2e-4)
